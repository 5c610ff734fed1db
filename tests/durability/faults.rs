//! A disk that fails at every operation in turn. Waiting clients get the system's error text, reads
//! go on and show exactly what reached its level, and nothing hangs. Acknowledged writes are there
//! when the cause is gone (promises 3 and 4).

use crate::support::dealer::{Outcome, key_bytes};
use crate::support::ledger::{Bytes, Change, Ledger, State, encode};
use crate::support::storage_runtime::{Held, call, execute, open, settle, wait_for};
use rmpv::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use vatn::client::{RawValue, Request};
use vatn::clock::Clock;
use vatn::engine::Engine;
use vatn::protocol::Level;
use vatn::storage::memory::{Batches, Fault};
use vatn::storage::{MemoryStorage, Space, Storage};
use vatn::wal::{Record, Segment, tables};

const WORDS: &str = "the test's disk fails (injected)";
const LEVELS: [Level; 4] = [Level::Memory, Level::Queued, Level::Stored, Level::Synced];

/// One write of the script, executed.
struct Written {
    held: Option<Held>,
    outcome: Option<Outcome>,
    changes: Vec<Change>,
}

/// The writes of a run, in order, with their outcomes.
struct Script<'e> {
    engine: &'e Engine,
    ledger: Ledger,
    /// By its index in the ledger.
    written: BTreeMap<usize, Written>,
    refused: usize,
    count: u64,
}

impl<'e> Script<'e> {
    fn new(engine: &'e Engine) -> Self {
        let ledger = Ledger::after(State::new());
        Self { engine, ledger, written: BTreeMap::new(), refused: 0, count: 0 }
    }

    /// Writes in every way and at every level; waits for some replies, and leaves others open.
    fn run(&mut self) {
        for turn in 0..10 {
            for level in LEVELS {
                self.write(level, turn);
            }
            if turn % 3 == 2 {
                let flushed = call(self.engine, &Request::new("flush"));
                assert!(flushed.is_ok() || is_storage(&flushed), "{flushed:?}");
            }
        }
    }

    fn write(&mut self, level: Level, turn: u64) {
        let key = |name: &str| format!("{name}/{}", turn % 3);
        let hits = key("hits");
        match (turn + level as u64) % 4 {
            0 => {
                let (key, value) = (key("k"), self.value());
                let request = Request::new("set").key(key.as_bytes());
                let request = request.argument(&RawValue::from(&value));
                self.send(request, level, vec![(key, Some(encode(&value)))]);
            }
            1 => {
                let pairs = [(key("a"), self.value()), (key("b"), self.value())];
                let change = |(key, value): &(String, Value)| (key.clone(), Some(encode(value)));
                let changes = pairs.iter().map(change).collect();
                let pairs = pairs.map(|(key, value)| (key, RawValue::from(&value)));
                self.send(Request::new("set_multi").pairs(&pairs), level, changes);
            }
            2 => {
                let number = self.number(&hits) + 1;
                let request = Request::new("incr").key(hits.as_bytes()).option("initial", 1);
                self.send(request, level, vec![(hits, Some(encode(&number.into())))]);
            }
            _ => {
                let (key, gone, value) = (key("a"), key("b"), self.value());
                let inner = [
                    Request::new("set").key(key.as_bytes()).argument(&RawValue::from(&value)),
                    Request::new("delete").key(gone.as_bytes()),
                ];
                let changes = vec![(key, Some(encode(&value))), (gone, None)];
                self.send(Request::new("batch").requests(&inner), level, changes);
            }
        }
    }

    fn value(&mut self) -> Value {
        self.count += 1;
        Value::from(format!("value {} {}", self.count, "x".repeat(60)))
    }

    fn number(&self, key: &str) -> u64 {
        let value = self.ledger.live(key).map(|value| crate::support::ledger::decode(value));
        value.map_or(0, |value| value.as_u64().unwrap())
    }

    fn send(&mut self, request: Request, level: Level, changes: Vec<Change>) {
        let request = request.option("durability", level.name());
        // Once writes are refused, all later ones are refused too, and change nothing.
        if self.refused > 0 {
            let outcome = call(self.engine, &request);
            assert!(is_storage(&outcome), "a write after the disk failed: {outcome:?}");
            return;
        }
        let held = execute(self.engine, &request);
        let has_failed = self.engine.watermarks().has_failed();
        if has_failed && is_refused_at_once(&held, self.engine) {
            self.refused += 1;
            return;
        }
        let place = self.ledger.note(level, &changes).expect("a state of its own");
        let mut written = Written { held: Some(held), outcome: None, changes };
        // Some clients wait for their reply before the next request.
        if place.is_multiple_of(3) {
            written.settle(self.engine);
        }
        self.written.insert(place, written);
    }

    /// Waits for all replies.
    fn settle(&mut self) {
        for (place, written) in &mut self.written {
            written.settle(self.engine);
            let outcome = written.outcome.as_ref().unwrap();
            assert!(outcome.is_ok() || is_storage(outcome), "write {place}: {outcome:?}");
            self.ledger.writes[*place].is_acknowledged = outcome.is_ok();
        }
    }

    /// The state guaranteed to every reader: the newest change of each key that reached its level.
    fn promised(&self) -> BTreeMap<String, Bytes> {
        let mut values = BTreeMap::new();
        for (place, written) in &self.written {
            // A `memory` write that hides a value waits for the level of that value.
            let level = self.ledger.writes[*place].promised;
            if level < Level::Stored || written.outcome.as_ref().is_some_and(Result::is_ok) {
                for (key, value) in &written.changes {
                    match value {
                        Some(value) => drop(values.insert(key.clone(), value.clone())),
                        None => drop(values.remove(key)),
                    }
                }
            }
        }
        values
    }
}

impl Written {
    fn settle(&mut self, engine: &Engine) {
        if let Some(held) = self.held.take() {
            self.outcome = Some(settle(engine, &held));
        }
    }
}

/// Whether a write was refused before it was applied: such a refusal waits for nothing.
fn is_refused_at_once(held: &Held, engine: &Engine) -> bool {
    held.is_open() && is_storage(&settle(engine, held))
}

fn is_storage(outcome: &Outcome) -> bool {
    matches!(outcome, Err((code, message)) if code == "STORAGE" && message.contains(WORDS))
}

/// Runs the script on a disk with this fault; returns whether the disk failed.
fn run_on(fault: Fault) -> bool {
    let (disk, clock) = (Arc::new(MemoryStorage::default()), Clock::manual(1_000_000));
    disk.fail(fault);
    let storage_runtime = match open(disk.clone(), &clock) {
        Ok(storage_runtime) => storage_runtime,
        Err(error) => {
            assert!(error.to_string().contains(WORDS), "{error}");
            assert_survived(&disk, &Ledger::after(State::new()), &clock);
            return true;
        }
    };
    let engine = storage_runtime.engine();
    let mut script = Script::new(&engine);
    script.run();
    script.settle();
    if engine.watermarks().has_failed() {
        look_around(&script);
    }
    let mut ledger = script.ledger;
    // Each write of the script has its own seq, so the last published seq is their number.
    ledger.published = usize::try_from(engine.feed().last_seq()).unwrap();
    let stopped = storage_runtime.stop();
    match &stopped {
        Ok(()) => assert!(!disk.has_failed(), "a stop that did not report the failure"),
        Err(error) => assert!(error.to_string().contains(WORDS), "{error}"),
    }
    assert_survived(&disk, &ledger, &clock);
    stopped.is_err()
}

/// Checks what works, and what does not, on a store whose disk has failed.
fn look_around(script: &Script<'_>) {
    let engine = script.engine;
    for level in LEVELS {
        let late = Request::new("set").key(b"late").argument(&1.into());
        assert!(is_storage(&call(engine, &late.option("durability", level.name()))));
    }
    // Where only trimming failed, all writes are in the tables.
    let flushed = call(engine, &Request::new("flush"));
    let is_all_done = script.written.values().all(|written| matches!(written.outcome, Some(Ok(_))));
    assert!(is_storage(&flushed) || flushed.is_ok() && is_all_done, "{flushed:?}");
    let far = Request::new("wait").argument(&1_000_000_000.into()).argument(&"synced".into());
    assert!(is_storage(&call(engine, &far)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let late = Request::new("set").key(b"late").argument(&1.into()).encode(1);
    let command = vatn::commands::Request::decode(&late).command.unwrap();
    assert!(runtime.block_on(run(engine, command)).is_err());

    let stats = call(engine, &Request::new("stats")).unwrap();
    assert!(stats.to_string().contains(WORDS), "{stats}");
    assert_eq!(call(engine, &Request::new("ping").argument(&7.into())), Ok(7.into()));
    assert!(call(engine, &Request::new("hello")).is_ok());
    // The checkpointer may have failed before the committer noticed.
    wait_for("the committer to end", || engine.watermarks().progress().is_settled);
    let promised = script.promised();
    for name in ["k", "a", "b", "hits"] {
        for turn in 0..3 {
            let key = format!("{name}/{turn}");
            let value = call(engine, &Request::new("get").key(key.as_bytes())).unwrap();
            let shown = Some(encode(&value)).filter(|_| !value.is_nil());
            assert_eq!(shown.as_ref(), promised.get(&key), "{key}");
        }
    }
    let page = call(engine, &Request::new("range")).unwrap();
    let item = |item: &Value| (String::from_utf8(key_bytes(&item[0])).unwrap(), encode(&item[1]));
    let shown: BTreeMap<_, _> = page[0].as_array().unwrap().iter().map(item).collect();
    assert_eq!(shown, promised);
    assert_eq!(call(engine, &Request::new("count")), Ok(promised.len().into()));
    let nothing = Request::new("get_multi").keys(&[] as &[&str]);
    assert_eq!(call(engine, &nothing), Ok(Value::Array(vec![])));
}

/// Opens healthy copies of the disk, after a kill and after a power failure: each is a prefix, with
/// every guaranteed write in it.
fn assert_survived(disk: &MemoryStorage, ledger: &Ledger, clock: &Clock) {
    assert_prefix(disk.after_kill(), ledger, Level::Stored, clock);
    // Every number of unsynced batches of one kind, with none or all of the other kind.
    let all = disk.unsynced_batches();
    let logs = (0..=all.log).flat_map(|log| [(log, 0), (log, all.rows)]);
    let rows = (0..=all.rows).flat_map(|rows| [(0, rows), (all.log, rows)]);
    for (log, rows) in logs.chain(rows) {
        let left = disk.after_power_loss(Batches { log, rows });
        assert_log_has_what_the_tables_show(&left);
        assert_prefix(left, ledger, Level::Synced, clock);
    }
}

/// No row outlives the record of its write; otherwise the history would have a hole.
fn assert_log_has_what_the_tables_show(disk: &MemoryStorage) {
    let (mut checkpointed, mut in_log) = (0, 0);
    disk.scan(Space::Table, &[], &mut |key, row| {
        checkpointed = checkpointed.max(tables::decode(key, row).unwrap().seq);
        true
    })
    .unwrap();
    disk.scan(Space::Log, &[], &mut |_, record| {
        in_log = Record::decode(record).unwrap().last_seq;
        true
    })
    .unwrap();
    // All trimmed records are before the newest segment.
    let begun = Segment::read_all(disk).unwrap().last().map_or(0, |segment| segment.id - 1);
    assert!(
        checkpointed <= in_log.max(begun),
        "the tables show {checkpointed}, the log ends at {in_log}"
    );
}

fn assert_prefix(disk: MemoryStorage, ledger: &Ledger, covered: Level, clock: &Clock) {
    let storage_runtime = open(Arc::new(disk), clock).unwrap();
    let engine = storage_runtime.engine();
    let state = state(&engine);
    let owed = ledger.owed(covered);
    let Some(places) = ledger.find(&state) else { panic!("no prefix left {state:?}") };
    assert!(*places.end() >= owed, "{} of {owed} writes are left", places.end());
    let is_published = covered == Level::Synced || *places.end() >= ledger.published;
    assert!(is_published, "{} writes were published, {} are left", ledger.published, places.end());
    let after = Request::new("set").key(b"after").argument(&1.into());
    assert!(call(&engine, &after).is_ok());
    storage_runtime.stop().unwrap();
}

fn state(engine: &Engine) -> State {
    let page = call(engine, &Request::new("range")).unwrap();
    let entry = |item: &Value| {
        let key = String::from_utf8(key_bytes(&item[0])).unwrap();
        let meta = Request::new("get").key(key.as_bytes()).option("meta", true);
        let entry = call(engine, &meta).unwrap();
        (key, (encode(&item[1]), entry[3].as_str().unwrap().parse().unwrap()))
    };
    page[0].as_array().unwrap().iter().map(entry).collect()
}

/// Lets the disk fail at each operation in turn until a whole run passes; returns the number of
/// operations.
fn at_every_operation(fault: impl Fn(u64) -> Fault) -> u64 {
    let mut passed = 0;
    for after in 0.. {
        // The threads' order differs between runs, so a run that passes may not be the last.
        passed = if run_on(fault(after)) { 0 } else { passed + 1 };
        if passed == 5 {
            return after - 4;
        }
    }
    unreachable!()
}

#[test]
fn a_disk_failure_at_any_operation_is_reported_and_undoes_nothing_acknowledged() {
    let fault = |after| Fault { after, only_syncs: false, writes_all_the_same: false };
    let operations = at_every_operation(fault);
    println!("failed at each of {operations} operations");
    assert!(operations > 40);
}

#[test]
fn a_failed_write_that_reached_the_disk_breaks_no_guarantee() {
    let fault = |after| Fault { after, only_syncs: false, writes_all_the_same: true };
    assert!(at_every_operation(fault) > 40);
}

#[test]
fn a_disk_that_fails_to_sync_acknowledges_nothing_as_synced() {
    let fault = |after| Fault { after, only_syncs: true, writes_all_the_same: true };
    assert!(at_every_operation(fault) > 20);
}

#[test]
fn writers_that_wait_for_room_are_refused_when_the_disk_fails() {
    let (disk, clock) = (Arc::new(MemoryStorage::default()), Clock::manual(1));
    let storage_runtime = open(disk.clone(), &clock).unwrap();
    let engine = storage_runtime.engine();
    disk.fail_after(0);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let writers: Vec<_> = (0..40_u64)
        .map(|number| {
            let engine = Arc::clone(&engine);
            runtime.spawn(async move {
                let set = Request::new("set").key(&number.to_be_bytes()).argument(&1.into());
                let frame = set.encode(1);
                run(&engine, vatn::commands::Request::decode(&frame).command.unwrap()).await
            })
        })
        .collect();
    wait_for("all to be refused", || writers.iter().all(|writer| writer.is_finished()));
    for writer in writers {
        let refusal = runtime.block_on(writer).unwrap().unwrap_err();
        assert_eq!(refusal.code(), vatn::protocol::Code::Storage);
    }
    assert!(storage_runtime.stop().is_err());
}

/// Executes a command like the HTTP edge.
async fn run(
    engine: &vatn::engine::Engine,
    command: vatn::commands::Command<'_>,
) -> Result<(), vatn::protocol::Refusal> {
    let caller = vatn::net::Caller::local();
    vatn::http::engine::run(engine, &caller, command, |_| Ok(())).await.map(drop)
}
