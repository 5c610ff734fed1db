//! What is charged for each hold of the lock, and that it stays within the budget of the turn. All
//! is counted: nothing here looks at a clock.

use super::append_lock::tests::engine;
use super::{Allowance, Context, End, Engine, Progress, Replies};
use crate::budget::Cost;
use crate::commands::options::Expiry;
use crate::commands::{
    Batch, Count, Decr, DeleteMulti, DeleteRange, Get, GetMulti, Hello, Incr, Ping, Range, Set,
    SetMulti, Stats, Touch,
};
use crate::commands::{Command, Request};
use crate::net::Caller;
use crate::net::turns::LIGHT_BYTES;
use crate::protocol::refusal::Code;
use crate::protocol::{Level, Refusal};
use crate::state::map::INLINE_BYTES_MAX;
use crate::state::undo::Undo;
use std::sync::Arc;

const SHARE: Cost = Cost::new(64, 256 << 10);

fn request(command: Command<'_>) -> Request<'_> {
    Request { id: Some(1), notification: false, command: Ok(command) }
}

/// What a call came to, and its replies.
struct Called {
    done: usize,
    end: End,
    used: Cost,
    replies: Replies,
}

fn call(engine: &Engine, requests: &[Request<'_>], mut allowance: Allowance) -> Called {
    let mut replies = Replies::default();
    let Progress { done, end } =
        engine.call(&Caller::local(), requests, &mut allowance, &mut replies);
    Called { done, end, used: allowance.work.used(), replies }
}

fn light(engine: &Engine, requests: &[Request<'_>], share: Cost) -> Called {
    call(engine, requests, Allowance::light(share))
}

fn set<'a>(key: &'a [u8], value: &'a [u8], ttl_ms: Option<u64>) -> Command<'a> {
    let durability = Some(Level::Queued);
    Command::Set(Set {
        key: key.into(),
        value,
        expiry: ttl_ms.map(Expiry::After),
        condition: None,
        durability,
        return_value: false,
    })
}

fn get(key: &[u8]) -> Command<'_> {
    Command::Get(Get { key: key.into(), meta: false })
}

fn range() -> Command<'static> {
    Command::Range(Range::default())
}

/// The bytes of a bin of so many bytes, its head included.
fn value(len: usize) -> Vec<u8> {
    let mut bytes = vec![0xC6];
    bytes.extend_from_slice(&((len - 5) as u32).to_be_bytes());
    bytes.resize(len, 7);
    bytes
}

fn run(engine: &Engine, command: Command<'_>) {
    let called = call(engine, &[request(command)], Allowance::default());
    assert_eq!((called.done, called.end), (1, End::Done));
}

/// What a single request is charged, and the replies.
fn charged(engine: &Engine, request: &Request<'_>) -> (Cost, Replies) {
    let called = call(engine, std::slice::from_ref(request), Allowance::default());
    assert_eq!((called.done, called.end), (1, End::Done));
    (called.used, called.replies)
}

/// The head of a reply to the request 1, and of a refusal.
const HEAD: usize = 4;

#[test]
fn a_request_is_charged_itself_and_what_is_copied_for_its_reply() {
    let (engine, _log) = engine(&Arc::default());
    let (small, large) = (value(1_000), value(50_000));
    run(&engine, set(b"s", &small, None));
    run(&engine, set(b"l", &large, None));
    // The entry, and the request.
    assert_eq!(charged(&engine, &request(get(b"s"))).0, Cost::new(2, HEAD + 1_000));
    // Copied as well, but when the lock is left.
    let (cost, replies) = charged(&engine, &request(get(b"l")));
    assert_eq!((cost, replies.encoded.len()), (Cost::new(2, HEAD + 50_000), HEAD + 50_000));
    let ping = Command::Ping(Ping { payload: Some(&large) });
    assert_eq!(charged(&engine, &request(ping)).0, Cost::new(1, HEAD + 50_000));
    let refusal = Refusal::new(Code::BadRequest, "no");
    let refused = Request { id: Some(1), notification: false, command: Err(refusal) };
    let (cost, replies) = charged(&engine, &refused);
    assert_eq!(cost, Cost::new(1, replies.encoded.len()));
    let (cost, replies) = charged(&engine, &Request { notification: true, ..refused });
    assert!(cost.bytes > 0 && replies.encoded.is_empty(), "a refused notification costs as much");
    for status in [Command::Stats(Stats), Command::Hello(Hello::default())] {
        assert!(charged(&engine, &request(status)).0.entries > 10);
    }
}

#[test]
fn a_notification_that_only_reads_is_not_executed() {
    let (engine, _log) = engine(&Arc::default());
    run(&engine, set(b"s", &value(1_000), None));
    let batch = Batch { commands: vec![get(b"s"), get(b"s")], durability: None };
    for command in [get(b"s"), range(), Command::Stats(Stats), Command::Batch(batch)] {
        let notified = Request { id: None, notification: true, command: Ok(command) };
        let (cost, replies) = charged(&engine, &notified);
        assert_eq!((cost, replies.encoded.len()), (Cost::new(1, 0), 0));
    }
    let notified = Request { notification: true, ..request(set(b"n", b"\x01", None)) };
    charged(&engine, &notified);
    assert_eq!(engine.len(), 2, "one that writes is");
}

#[test]
fn a_turn_ends_when_its_budget_is_used_up() {
    let (engine, _log) = engine(&Arc::default());
    let requests: Vec<_> = (0..200).map(|_| request(get(b"none"))).collect();
    let called = light(&engine, &requests, SHARE);
    assert_eq!((called.done, called.end), (SHARE.entries / 2, End::OutOfTurn));
    let large = value(100 << 10);
    let requests: Vec<_> = (0..9).map(|_| request(set(b"k", &large, None))).collect();
    let called = light(&engine, &requests, SHARE);
    assert_eq!((called.done, called.end), (1, End::OutOfTurn));
}

#[test]
fn what_is_too_much_for_a_light_turn_is_left_before_it_is_done() {
    let (engine, _log) = engine(&Arc::default());
    let (medium, large) = (value(3_000), value(100 << 10));
    run(&engine, set(b"large", &large, None));
    let keys: Vec<Vec<u8>> = (0..100).map(|n: u32| format!("k{n:03}").into_bytes()).collect();
    keys.iter().for_each(|key| run(&engine, set(key, &medium, None)));
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let few = Command::GetMulti(GetMulti { keys: keys[..30].to_vec() });
    let twice = vec![get(b"large"), get(b"large")];
    let huge = value(300 << 10);
    for command in [
        get(b"large"),
        few,
        range(),
        Command::GetMulti(GetMulti { keys: keys.clone() }),
        Command::Batch(Batch { commands: twice, durability: None }),
        set(b"new", &huge, None),
    ] {
        let requests = [request(command)];
        let Called { done, end, used, replies } = light(&engine, &requests, SHARE);
        assert_eq!((done, end), (0, End::NeedsHeavyTurn), "{requests:?}");
        assert!(used.bytes < LIGHT_BYTES && replies.encoded.is_empty(), "{used:?}: {requests:?}");
        assert_eq!(call(&engine, &requests, Allowance::default()).done, 1);
    }
}

#[test]
fn a_reply_that_is_left_is_charged_what_was_made_of_it() {
    let (engine, _log) = engine(&Arc::default());
    run(&engine, set(b"large", &value(100 << 10), None));
    let called = light(&engine, &[request(get(b"large"))], SHARE);
    assert_eq!(called.done, 0);
    assert_eq!(called.used, Cost::new(2, HEAD), "the entry, the request, and its head");
}

#[test]
fn expired_keys_are_taken_out_a_few_at_a_time_and_counted_when_all_are_gone() {
    let (engine, _log) = engine(&Arc::default());
    for key in 0..1_000_u32 {
        run(&engine, set(&key.to_be_bytes(), b"\x01", Some(1_000)));
    }
    engine.clock.advance_to(engine.clock.now() + 2_000);
    let requests = [request(Command::Count(Count { prefix: b"" }))];
    let mut turns = 0;
    loop {
        let called = light(&engine, &requests, SHARE);
        if called.done > 0 {
            break;
        }
        assert!(called.end == End::OutOfTurn && engine.len() < 1_000);
        let expired = called.used.entries;
        assert!((200..=300).contains(&expired), "{expired}");
        turns += 1;
    }
    assert_eq!((turns, engine.len()), (3, 0));
}

/// A random command of any kind.
fn random_command<'a>(
    random: &mut fastrand::Rng,
    keys: &'a [Vec<u8>],
    values: &'a [Vec<u8>],
    is_inner: bool,
) -> Command<'a> {
    let key = random.choice(keys).unwrap().as_slice();
    let value = random.choice(values).unwrap().as_slice();
    let few = 1 << random.u32(..8);
    let durability = if is_inner {
        None
    } else {
        random.choice([None, Some(Level::Memory), Some(Level::Queued)]).unwrap()
    };
    let some: Vec<&[u8]> = (0..few).map(|_| random.choice(keys).unwrap().as_slice()).collect();
    let expiry = random.bool().then_some(Expiry::After(60_000));
    match random.u8(..if is_inner { 10 } else { 13 }) {
        0 => get(key),
        1 => Command::GetMulti(GetMulti { keys: some }),
        2 => Command::Range(Range { limit: Some(few), reverse: random.bool(), ..Range::default() }),
        3 => Command::Count(Count { prefix: b"k" }),
        4 => {
            let (key, condition, return_value) = (key.into(), None, false);
            Command::Set(Set { key, value, expiry, condition, durability, return_value })
        }
        5 => {
            let mut pair =
                |key: &&'a [u8]| ((*key).into(), random.choice(values).unwrap().as_slice());
            let pairs = some.iter().map(&mut pair).collect();
            Command::SetMulti(SetMulti { prefix: b"", pairs, expiry, durability })
        }
        6 => {
            let keys = some.into_iter().map(Into::into).collect();
            Command::DeleteMulti(DeleteMulti { prefix: b"", keys, durability })
        }
        7 => Command::Touch(Touch { key: key.into(), expiry, durability }),
        8 => {
            let (key, delta, initial) = (key.into(), 1, Some(0));
            match random.bool() {
                true => Command::Incr(Incr { key, delta, initial, expiry, durability }),
                false => Command::Decr(Decr { key, delta, initial, expiry, durability }),
            }
        }
        9 => {
            let (prefix, limit) = (Some(&b"k1"[..]), Some(few));
            Command::DeleteRange(DeleteRange {
                prefix,
                limit,
                durability,
                ..DeleteRange::default()
            })
        }
        10 => Command::Ping(Ping { payload: Some(value) }),
        11 => random.choice([Command::Stats(Stats), Command::Hello(Hello::default())]).unwrap(),
        _ => {
            let commands =
                (0..random.usize(1..40)).map(|_| random_command(random, keys, values, true));
            Command::Batch(Batch { commands: commands.collect(), durability })
        }
    }
}

/// As if all that was written had come to the tables.
fn forget_pending(engine: &Engine) {
    let mut core = engine.core_mut();
    core.pending.clear();
    core.taken = crate::protocol::WriteCost::default();
    drop(core.store.take_undo(Undo::default()));
    let (items, bytes) = engine.queue.load();
    engine.queue.give_back(items, bytes);
}

/// What one light command may be over what it was known to cost: the entries that it passes on a
/// walk, the bytes of its reply, and of each key that it writes the old value.
fn beyond(share: Cost, cost: Cost) -> Cost {
    let kept = (cost.entries + 1) * 2 * (INLINE_BYTES_MAX + 64);
    Cost::new(share.entries + 3 * cost.entries + 2, LIGHT_BYTES + 4_096 + kept)
}

#[test]
fn whatever_is_asked_a_hold_stays_within_its_budget() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (engine, _log) = engine(&Arc::default());
    let keys: Vec<Vec<u8>> = (0..200).map(|n: u32| format!("k{n}").into_bytes()).collect();
    let lengths = [5, 6, 300, 4_000, 5_000, 20_000, 90_000];
    let values: Vec<Vec<u8>> = lengths.map(value).into();
    let (mut executed, mut heavy) = (0, 0);
    while executed < 3_000 {
        forget_pending(&engine);
        let count = random.usize(1..60);
        let command = |_| random_command(&mut random, &keys, &values, false);
        let mut requests: Vec<_> = (0..count).map(command).map(request).collect();
        for request in &mut requests {
            request.notification = random.u8(..5) == 0;
        }
        let share = Cost::new(1 << random.u32(4..11), (64 << 10) << random.u32(..4));
        let mut rest = requests.as_slice();
        while !rest.is_empty() {
            let Called { done, end, used, .. } = light(&engine, rest, share);
            let most = rest[..rest.len().min(done + 1)].iter();
            let core = engine.core();
            let costs = most
                .filter_map(|one| Some(one.command.as_ref().ok()?.cost_on(&core.store, None).work));
            let most = costs.map(|cost| beyond(share, cost)).fold(share, |most, one| {
                Cost::new(
                    most.entries.max(share.entries + one.entries),
                    most.bytes.max(share.bytes + one.bytes),
                )
            });
            drop(core);
            assert!(used.fits(most), "{used:?} of {share:?} for {:?}", &rest[..done.min(3)]);
            rest = &rest[done..];
            executed += done;
            if end == End::NeedsHeavyTurn {
                let Called { done, used, .. } = call(&engine, &rest[..1], Allowance::default());
                assert_eq!(done, 1);
                let Context { reply_bytes, command_items, page_items, .. } =
                    engine.context(engine.clock.now());
                let most = Cost::new(4 * (command_items + page_items), 5 * reply_bytes);
                assert!(used.fits(most), "{used:?} for {:?}", rest[0]);
                (rest, executed, heavy) = (&rest[1..], executed + 1, heavy + 1);
            } else {
                assert!(done > 0 || end == End::OutOfTurn);
            }
        }
    }
    assert!(heavy > 50, "{heavy} were heavy");
}
