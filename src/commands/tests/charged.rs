//! The cost of each command: every entry passed and byte copied, also where it is refused. Removing
//! a charge changes a number in these tests.

use crate::budget::Cost;
use crate::commands::options::{Condition, Expiry};
use crate::commands::{
    Append, Batch, Blob, Command, Count, Delete, DeleteMulti, DeleteRange, Get, GetMulti, Incr,
    Range, Set, SetMulti, Touch,
};
use crate::protocol::change::ChangeReader;
use crate::protocol::{ChangeBuffer, Code, Level, Op, Reply};
use crate::state::{Context, Store};

/// A value of 100 bytes, which is copied, and one of 10,000, which is shared.
const SMALL: [u8; 100] = value(98);
const LARGE: [u8; 10_000] = {
    let mut bytes = [7; 10_000];
    [bytes[0], bytes[1], bytes[2]] = [0xC5, 0x27, 0x0D];
    bytes
};

const fn value(len: u8) -> [u8; 100] {
    let mut bytes = [7; 100];
    [bytes[0], bytes[1]] = [0xC4, len];
    bytes
}

fn key(key: &str) -> crate::protocol::Key<'_> {
    key.as_bytes().into()
}

fn set<'a>(name: &'a str, value: &'a [u8]) -> Set<'a> {
    Set {
        key: key(name),
        value,
        expiry: None,
        condition: None,
        durability: None,
        return_value: false,
    }
}

fn get(name: &str) -> Command<'_> {
    Command::Get(Get { key: key(name), meta: false })
}

fn delete(name: &str) -> Command<'_> {
    let (return_value, condition, durability) = (false, None, None);
    Command::Delete(Delete { key: key(name), return_value, condition, durability })
}

fn incr(name: &str) -> Command<'_> {
    let (delta, initial, expiry, durability) = (1, None, None, None);
    Command::Incr(Incr { key: key(name), delta, initial, expiry, durability })
}

fn append<'a>(name: &'a str, text: &'a str) -> Command<'a> {
    let bytes = Blob { is_text: true, bytes: text.as_bytes() };
    let (expiry, condition, durability) = (None, None, None);
    Command::Append(Append { key: key(name), bytes, expiry, condition, durability })
}

fn touch(name: &str) -> Command<'_> {
    Command::Touch(Touch { key: key(name), expiry: Some(Expiry::After(60)), durability: None })
}

fn first_of_range() -> Command<'static> {
    let limit = Some(1);
    Command::DeleteRange(DeleteRange { prefix: Some(b""), limit, ..DeleteRange::default() })
}

fn batch(commands: Vec<Command<'_>>) -> Command<'_> {
    Command::Batch(Batch { commands, durability: None })
}

fn context(now: u64) -> Context {
    Context::unbounded(now, Level::Synced)
}

/// Four keys, and three that have expired unseen at 9: `l`, `n`, `s`, `t`, `x0`, `x1`, `x2`.
fn store() -> Store {
    let (mut store, mut changes) = (Store::default(), ChangeBuffer::default());
    let mut apply = |set: Set<'_>| {
        assert!(store.apply(&Command::Set(set), &context(1), &mut changes).outcome.is_ok());
    };
    for (name, value) in [("l", &LARGE[..]), ("n", b"\x05"), ("s", &SMALL), ("t", &SMALL)] {
        apply(set(name, value));
    }
    for name in ["x0", "x1", "x2"] {
        apply(Set { expiry: Some(Expiry::After(5)), ..set(name, b"\x01") });
    }
    store
}

fn charged(command: &Command<'_>, context: &Context) -> Cost {
    store().apply(command, context, &mut ChangeBuffer::default()).cost
}

#[test]
fn a_read_is_charged_for_the_entries_that_it_passes() {
    let range = |limit| Command::Range(Range { limit, ..Range::default() });
    for (command, entries) in [
        (get("s"), 1),
        (get("none"), 1),
        (Command::GetMulti(GetMulti { keys: vec![b"s", b"t", b"none"] }), 3),
        // All seven, and up to the third entry that is not shown.
        (range(None), 7),
        (range(Some(2)), 3),
        (Command::Count(Count { prefix: b"s" }), 1 + 3),
    ] {
        assert_eq!(charged(&command, &context(9)), Cost::new(entries, 0), "{command:?}");
    }
}

#[test]
fn a_write_is_charged_for_new_bytes_and_for_kept_old_ones() {
    let pairs = vec![(key("s"), &SMALL[..]), (key("new"), &LARGE[..])];
    let multi = SetMulti { prefix: b"", pairs, expiry: None, durability: None };
    let keys = vec![key("s"), key("none")];
    let gone = DeleteMulti { prefix: b"", keys, durability: None };
    let if_present = Set { condition: Some(Condition::Present), ..set("s", &SMALL) };
    // In the map, in the log, and, under the key, the old value for a rollback.
    let written = 2 * (1 + 100);
    for (command, cost) in [
        (Command::Set(set("s", &SMALL)), Cost::new(1, written + 1 + 100)),
        (Command::Set(if_present), Cost::new(2, written + 1 + 100)),
        (Command::Set(set("new", &SMALL)), Cost::new(1, 2 * (3 + 100) + 3)),
        // The old value is shared.
        (Command::Set(set("l", &SMALL)), Cost::new(1, written + 1)),
        (Command::SetMulti(multi), Cost::new(2, written + 1 + 100 + 2 * (3 + 10_000) + 3)),
        (delete("s"), Cost::new(2, 2 + 1 + 100)),
        (delete("l"), Cost::new(2, 2 + 1)),
        (delete("none"), Cost::new(1, 0)),
        // It expires now.
        (delete("x1"), Cost::new(2, 2 * 2 + 2 + 1)),
        (Command::DeleteMulti(gone), Cost::new(3, 2 + 1 + 100)),
        // One entry is passed, one ends the page.
        (first_of_range(), Cost::new(2 + 2, 2 + 2 + 1)),
        (incr("n"), Cost::new(2, 2 * (1 + 1) + 1 + 1)),
        (incr("s"), Cost::new(1, 0)),
        // The new value is made, and then written.
        (append("s", "x"), Cost::new(2, 101 + 2 * (1 + 101) + 1 + 100)),
        (append("none", "x"), Cost::new(2, 2 + 2 * (4 + 2) + 4)),
        (append("n", "x"), Cost::new(1, 0)),
        (touch("l"), Cost::new(2, 2 + 1)),
        (touch("s"), Cost::new(2, 2 + 1 + 100)),
    ] {
        assert_eq!(charged(&command, &context(9)), cost, "{command:?}");
    }
}

#[test]
fn a_batch_is_charged_for_commands_and_results_even_when_it_is_refused() {
    // The head of the array, then the values.
    let results = 1 + 100 + 100;
    let reads = batch(vec![get("s"), get("t"), get("l")]);
    assert_eq!(charged(&reads, &context(9)), Cost::new(2 * 3, results));
    let mixed = batch(vec![get("s"), touch("l"), get("t")]);
    assert_eq!(charged(&mixed, &context(9)), Cost::new(3 + 2 + 2, 2 + 1 + results - 1 + 1));
    // One entry goes back.
    let refused = batch(vec![touch("s"), get("s"), incr("l")]);
    let way_back = 1 + 100;
    let copied = 2 + way_back + (1 + 100) + way_back;
    assert_eq!(charged(&refused, &context(9)), Cost::new(3 + 2 + 1 + 1 + 1, copied));
}

#[test]
fn a_batch_that_reads_is_refused_before_anything_is_copied() {
    let context = Context { reply_bytes: 10_000, ..context(9) };
    let reads = batch(vec![get("s"), get("l")]);
    assert_eq!(charged(&reads, &context), Cost::new(2 * 2, 0));
    // Where it writes too, the results read before stay within the limit.
    let mixed = batch(vec![get("s"), touch("l"), get("l")]);
    let cost = charged(&mixed, &context);
    assert!(cost.bytes < 300, "{cost:?}");
}

#[test]
fn an_expiry_time_in_the_past_removes_the_key() {
    let passed = Some(Expiry::At(9));
    let text = Blob { is_text: true, bytes: b"x" };
    let (condition, durability) = (None, None);
    for command in [
        Command::Set(Set { expiry: passed, ..set("s", &SMALL) }),
        Command::Append(Append {
            key: key("s"),
            bytes: text,
            expiry: passed,
            condition,
            durability,
        }),
        Command::Touch(Touch { key: key("s"), expiry: passed, durability }),
    ] {
        assert_eq!(
            charged(&command, &context(9)).entries,
            if let Command::Set(_) = command { 2 } else { 3 }
        );
        let (mut store, mut changes) = (store(), ChangeBuffer::default());
        let seq = store.seq();
        assert!(store.apply(&command, &context(9), &mut changes).outcome.is_ok());
        let ops: Vec<_> = ChangeReader::new(changes.bytes()).map(|one| one.unwrap().op).collect();
        assert_eq!((ops, store.seq()), (vec![Op::Delete], seq + 1), "{command:?}");
    }
    let (mut store, mut changes) = (store(), ChangeBuffer::default());
    let (seq, missing) = (store.seq(), Set { expiry: passed, ..set("none", &SMALL) });
    let applied = store.apply(&Command::Set(missing), &context(9), &mut changes);
    assert!(applied.outcome.is_ok_and(|outcome| outcome.reply() == Some(Reply::Uint(seq))));
    assert!(changes.is_empty() && store.seq() == seq, "what changes nothing takes no seq");
}

#[test]
fn an_append_is_measured_and_refused_before_anything_is_copied() {
    let (max, mut store) = (1 << 20, store());
    let longest = [&[0xC6, 0, 0x10, 0, 0][..], &vec![7; max]].concat();
    let mut apply = |command: &Command<'_>| {
        let cost = command.cost_on(&store, None);
        let mut changes = ChangeBuffer::default();
        let applied = store.apply(command, &context(9), &mut changes);
        (applied.outcome.map(|_| ()), applied.cost, cost, changes)
    };
    assert!(apply(&Command::Set(set("k", &longest))).0.is_ok());
    let (outcome, cost, known, _) = apply(&append("k", "x"));
    assert_eq!(outcome.unwrap_err().code(), Code::TooLarge);
    assert_eq!((cost, known.work), (Cost::new(1, 0), Cost::new(2, 2)));
    let (outcome, cost, known, changes) = apply(&append("k", ""));
    assert!(outcome.is_ok() && cost.bytes <= known.work.bytes + 1);
    assert!(changes.len() > max && changes.len() <= known.write.bytes);
}

#[test]
fn a_walk_ends_where_its_budget_ends() {
    let walk = Cost::new(3, 1 << 20);
    let all = Command::Range(Range::default());
    let applied = Context { walk, ..context(9) };
    assert_eq!(charged(&all, &applied), Cost::new(4, 0));
    let walk = Cost::new(100, 5_000);
    let store = store();
    let applied = store.query(&all, &Context { walk, ..context(9) });
    assert!(applied.outcome.is_err() && applied.cost.entries < 4, "the first has 10,000 bytes");
}
