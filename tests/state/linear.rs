//! Linearizability, through crashes: the operations of concurrent clients on a key fit one order
//! that agrees with the times of their calls and replies, kills in between included (promises 1 and
//! 3).
//!
//! Histories are checked key by key, since linearizability composes over keys; a pair of keys that
//! only batches write is checked as one.

use crate::support::broker::Broker;
use crate::support::dealer::Connection;
use crate::support::linear::{Model, Operation, endings};
use rmpv::Value;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use vatn::client::Request;
use vatn::protocol::Level;

const CLIENTS: usize = 6;
const REGISTERS: usize = 3;
/// The histories of all keys are cut at a kill with its restart, so that the search stays small.
const ROUNDS: usize = 12;
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// A key with a value or none. The pair of keys that batches write together counts as one key,
/// whose two halves are always read equal.
struct Register;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Read(Option<u64>),
    Write(u64),
    /// Whether there was something to delete; `None` when the reply was lost.
    Delete(Option<bool>),
    /// Written only where there was no value; whether that held.
    Create(u64, Option<bool>),
    /// An addition, and its result; `None` when the reply was lost.
    Add(u64, Option<u64>),
}

impl Model for Register {
    type State = Option<u64>;
    type Action = Action;

    fn step(state: &Option<u64>, action: &Action) -> Option<Option<u64>> {
        match *action {
            Action::Read(seen) => (seen == *state).then_some(seen),
            Action::Write(value) => Some(Some(value)),
            Action::Delete(answered) => {
                answered.is_none_or(|there| there == state.is_some()).then_some(None)
            }
            Action::Create(value, answered) => {
                let done = state.is_none();
                let next = if done { Some(value) } else { *state };
                answered.is_none_or(|answered| answered == done).then_some(next)
            }
            Action::Add(delta, answered) => {
                let next = state.map_or(delta, |before| before + delta);
                answered.is_none_or(|answered| answered == next).then_some(Some(next))
            }
        }
    }
}

type History = Vec<Operation<Action>>;

fn operation(action: Action, called: u64, returned: u64) -> Operation<Action> {
    Operation { action, called, returned: Some(returned) }
}

fn is_linearizable(history: &[Operation<Action>]) -> bool {
    !endings::<Register>(&[None], history).is_empty()
}

#[test]
fn the_checker_accepts_linearizable_histories_only() {
    use Action::{Add, Create, Delete, Read, Write};
    // Two concurrent writes: a read may see either, and then no longer the other.
    let overlap = [operation(Write(1), 1, 10), operation(Write(2), 2, 9)];
    let reads = |first, second| {
        let reads = [operation(Read(first), 11, 12), operation(Read(second), 13, 14)];
        [&overlap[..], &reads].concat()
    };
    assert!(is_linearizable(&reads(Some(1), Some(1))));
    assert!(is_linearizable(&reads(Some(2), Some(2))));
    assert!(!is_linearizable(&reads(Some(1), Some(2))), "a value came back");
    assert!(!is_linearizable(&reads(None, None)), "both writes were lost");
    // A read that began after a write was answered must see it.
    let stale = [operation(Write(1), 1, 2), operation(Read(None), 3, 4)];
    assert!(!is_linearizable(&stale));
    // A write whose reply was lost may be seen, and stays then.
    let lost = Operation { action: Write(7), called: 1, returned: None };
    let seen = |values: [Option<u64>; 2]| {
        let reads = values.into_iter().zip([2, 4]);
        let reads = reads.map(|(value, at)| operation(Read(value), at, at + 1));
        [vec![lost.clone()], reads.collect()].concat()
    };
    assert!(is_linearizable(&seen([None, None])));
    assert!(is_linearizable(&seen([None, Some(7)])));
    assert!(!is_linearizable(&seen([Some(7), None])), "an observed write was undone");
    // Counters and conditions: two of them cannot both come first.
    let twice = [operation(Add(1, Some(1)), 1, 5), operation(Add(1, Some(1)), 2, 6)];
    assert!(!is_linearizable(&twice));
    let once = [operation(Create(1, Some(true)), 1, 5), operation(Create(2, Some(true)), 2, 6)];
    assert!(!is_linearizable(&once));
    let between = [&once[..], &[operation(Delete(Some(true)), 3, 4)]].concat();
    assert!(is_linearizable(&between));
}

/// The state shared by the clients of a round.
#[derive(Debug, Default)]
struct Round {
    /// A clock that ticks with every call and every return.
    clock: AtomicU64,
    values: AtomicU64,
    replies: AtomicU64,
    target: u64,
    due: Notify,
    is_over: AtomicBool,
}

impl Round {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }
}

/// One request of a client: its key's name in the histories, the request, and the interpretation of
/// its reply.
struct Call {
    key: String,
    request: Request,
    action: Action,
}

fn draw(random: &mut fastrand::Rng, round: &Round) -> Call {
    // Unlike the other levels, these guarantee that a write survives a kill.
    let level = if random.bool() { Level::Stored } else { Level::Synced };
    let durable = |request: Request| request.option("durability", level.name());
    let value = 1 + round.values.fetch_add(1, Ordering::Relaxed);
    let key = format!("r{}", random.usize(..REGISTERS));
    let (request, action) = match random.u8(..10) {
        0..3 => (Request::new("get").key(key.as_bytes()), Action::Read(None)),
        3 | 4 => {
            let request = Request::new("set").key(key.as_bytes()).argument(&value.into());
            (durable(request), Action::Write(value))
        }
        5 => (durable(Request::new("delete").key(key.as_bytes())), Action::Delete(None)),
        6 => {
            let request = Request::new("set").key(key.as_bytes()).argument(&value.into());
            (durable(request.option("if", "absent")), Action::Create(value, None))
        }
        7 => {
            let delta = random.u64(1..4);
            let request = Request::new("incr").key(b"counter").option("delta", delta);
            let action = Action::Add(delta, None);
            let request = durable(request.option("initial", delta));
            return Call { key: "counter".to_owned(), request, action };
        }
        8 => {
            let set = |key: &str| Request::new("set").key(key.as_bytes()).argument(&value.into());
            let request = Request::new("batch").requests(&[set("pair/a"), set("pair/b")]);
            let action = Action::Write(value);
            return Call { key: "pair".to_owned(), request: durable(request), action };
        }
        _ => {
            let request = Request::new("range").option("prefix", "pair/");
            return Call { key: "pair".to_owned(), request, action: Action::Read(None) };
        }
    };
    Call { key, request, action }
}

/// The action with the result of its reply.
fn answered(action: Action, result: &Value) -> Action {
    match action {
        Action::Read(_) => Action::Read(read(result)),
        Action::Write(value) => Action::Write(value),
        Action::Delete(_) => Action::Delete(Some(result.as_bool().unwrap())),
        Action::Create(value, _) => Action::Create(value, Some(true)),
        Action::Add(delta, _) => Action::Add(delta, Some(result.as_u64().unwrap())),
    }
}

/// The value in a reply to `get`, or to `range` of the pair.
fn read(result: &Value) -> Option<u64> {
    let Some(page) = result.as_array() else { return result.as_u64() };
    let items = page[0].as_array().unwrap();
    let values: HashSet<Option<u64>> = items.iter().map(|item| item[1].as_u64()).collect();
    assert!(items.is_empty() || items.len() == 2 && values.len() == 1, "half a batch: {page:?}");
    values.into_iter().next().flatten()
}

type Histories = BTreeMap<String, History>;

/// Sends one request after another until the connection ends or the round is over.
async fn ask(router: String, round: Arc<Round>, seed: u64) -> Histories {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut histories = Histories::new();
    let Ok(mut connection) = Connection::connect(&router).await else { return histories };
    while !round.is_over.load(Ordering::Relaxed) {
        let Call { key, request, action } = draw(&mut random, &round);
        let called = round.tick();
        let answer = connection.call(&[request]).await;
        let returned = answer.is_ok().then(|| round.tick());
        let action = match answer.map(|mut outcomes| outcomes.remove(0)) {
            Ok(Ok(result)) => answered(action, &result),
            Ok(Err((code, _))) => match action {
                Action::Create(value, _) if code == "CONFLICT" => {
                    Action::Create(value, Some(false))
                }
                other => panic!("{other:?} was refused with {code}"),
            },
            // The reply was lost; a read without a reply tells nothing.
            Err(_) => action,
        };
        let is_read = matches!(action, Action::Read(_));
        if returned.is_some() || !is_read {
            histories.entry(key).or_default().push(Operation { action, called, returned });
        }
        if returned.is_none() {
            break;
        }
        if round.replies.fetch_add(1, Ordering::Relaxed) + 1 == round.target {
            round.due.notify_one();
        }
    }
    histories
}

/// The values of the keys after a restart, as reads after all other operations.
async fn read_all(router: &str) -> BTreeMap<String, Option<u64>> {
    let mut connection = Connection::connect(router).await.unwrap();
    let mut found = BTreeMap::new();
    let keys = (0..REGISTERS).map(|index| format!("r{index}")).chain(["counter".to_owned()]);
    for key in keys {
        let value = connection.result(Request::new("get").key(key.as_bytes())).await;
        found.insert(key, read(&value));
    }
    let pair = connection.result(Request::new("range").option("prefix", "pair/")).await;
    found.insert("pair".to_owned(), read(&pair));
    found
}

#[test]
fn histories_of_clients_are_linearizable_across_kills() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed: u64 = number("VATN_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed} (VATN_SEED repeats it)");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut broker = Broker::open(folder.path(), &[]);
    let mut states: BTreeMap<String, Option<u64>> = runtime.block_on(read_all(&broker.router));
    let (mut operations, mut unanswered) = (0, 0);
    let rounds = number("VATN_KILL_ROUNDS").map_or(ROUNDS, |rounds| rounds as usize);
    for index in 0..rounds {
        let target = random.u64(1..2_000);
        let values = AtomicU64::new(index as u64 * 1_000_000);
        let round = Arc::new(Round { target, values, ..Round::default() });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (router, seed) = (broker.router.clone(), random.u64(..));
                runtime.spawn(ask(router, Arc::clone(&round), seed))
            })
            .collect();
        let moment = Duration::from_micros(random.u64(..3_000));
        let mut histories = Histories::new();
        let ended = async {
            round.due.notified().await;
            tokio::time::sleep(moment).await;
            tokio::task::spawn_blocking(move || broker.kill()).await.unwrap();
            round.is_over.store(true, Ordering::Relaxed);
            for client in clients {
                for (key, history) in client.await.unwrap() {
                    histories.entry(key).or_default().extend(history);
                }
            }
        };
        let ended = runtime.block_on(async { tokio::time::timeout(HANGS_AFTER, ended).await });
        ended.expect("nothing hangs");
        broker = Broker::open(folder.path(), &[]);
        let found = runtime.block_on(read_all(&broker.router));
        for (key, history) in &mut histories {
            let now = round.tick();
            history.push(operation(Action::Read(found[key]), now, round.tick()));
            operations += history.len();
            unanswered += history.iter().filter(|one| one.returned.is_none()).count();
            let endings = endings::<Register>(&[states[key]], history);
            assert!(!endings.is_empty(), "round {index}, {key}: no order fits {history:#?}");
        }
        states = found;
    }
    println!("{rounds} kills, {operations} operations, {unanswered} of them unanswered");
}
