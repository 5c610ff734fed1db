//! A disk that fails while writes are uncommitted: afterwards every read is answered, and shows the
//! newest value of each key that reached its writer's level, and no other (promises 3 and 4).
//!
//! `VATN_ROUNDS` sets how many random rounds, `VATN_SEED` repeats a run.

use crate::support::commands::{Generator, encode_value};
use crate::support::dealer::{Outcome, key_bytes};
use crate::support::gated::GatedDisk;
use crate::support::model::{Cell, Cells, Model};
use crate::support::storage_runtime::{
    Held, call, config, execute, execute_frame, settle, wait_for,
};
use rmpv::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use vatn::client::Request;
use vatn::clock::Clock;
use vatn::commands::Command;
use vatn::config::WriteQueueConfig;
use vatn::engine::Engine;
use vatn::protocol::Level;
use vatn::server::StorageRuntime;

use Level::{Memory, Queued, Stored, Synced};

const START: u64 = 1_000_000;

fn open(disk: &Arc<GatedDisk>, clock: &Clock) -> StorageRuntime {
    let queue = WriteQueueConfig { items: 10_000, bytes: 1 << 20, wait_ms: 60_000 };
    StorageRuntime::open(config(queue), clock.clone(), Arc::clone(disk) as _, &mut |_| {}).unwrap()
}

fn is_storage(outcome: &Outcome) -> bool {
    matches!(outcome, Err((code, _)) if code == "STORAGE")
}

/// One step of a test.
#[derive(Debug, Clone)]
enum Step {
    /// A write at a level.
    Write(Level, Request),
    /// This much time passes.
    Pass(u64),
}

fn set(level: Level, key: &str, value: u64) -> Step {
    Step::Write(level, Request::new("set").key(key.as_bytes()).argument(&value.into()))
}

fn set_for(level: Level, key: &str, value: u64, ttl_ms: u64) -> Step {
    let request = Request::new("set").key(key.as_bytes()).argument(&value.into());
    Step::Write(level, request.option("ttl_ms", ttl_ms))
}

fn delete(level: Level, key: &str) -> Step {
    Step::Write(level, Request::new("delete").key(key.as_bytes()))
}

fn incr(level: Level, key: &str) -> Step {
    Step::Write(level, Request::new("incr").key(key.as_bytes()).option("initial", 1))
}

fn touch(level: Level, key: &str, ttl_ms: u64) -> Step {
    Step::Write(level, Request::new("touch").key(key.as_bytes()).argument(&ttl_ms.into()))
}

fn set_both(level: Level, value: u64) -> Step {
    let pairs = [("a", value.into()), ("b", value.into())];
    Step::Write(level, Request::new("set_multi").pairs(&pairs))
}

/// Several steps as one write.
fn batch(level: Level, steps: &[Step]) -> Step {
    let inner = |step: &Step| match step {
        Step::Write(_, request) => request.clone(),
        Step::Pass(_) => panic!("time does not pass in a batch"),
    };
    let inner: Vec<Request> = steps.iter().map(inner).collect();
    Step::Write(level, Request::new("batch").requests(&inner))
}

fn take(engine: &Engine, clock: &Clock, step: &Step) -> Option<Held> {
    match step {
        Step::Write(level, request) => {
            Some(execute(engine, &request.clone().option("durability", level.name())))
        }
        Step::Pass(ms) => {
            clock.advance_to(clock.now() + ms);
            None
        }
    }
}

/// Commits `before`, then runs `steps` on a disk that fails: the first `committing` of them are
/// being written, the others are pending. Compares the result. Each item is a key, its value, its
/// level, and its time to live.
fn after_failure(
    before: &[Step],
    steps: &[Step],
    committing: usize,
    left: &[(&str, u64, Level, Option<u64>)],
) {
    let (disk, clock) = (Arc::new(GatedDisk::default()), Clock::manual(START));
    let storage_runtime = open(&disk, &clock);
    let engine = storage_runtime.engine();
    for step in before {
        if let Some(held) = take(&engine, &clock, step) {
            settle(&engine, &held).unwrap();
        }
    }
    call(&engine, &Request::new("flush")).unwrap();
    // The expected state may have been written at `memory`, and never reach the disk.
    let gate = disk.hold();
    let mut waiting = Vec::new();
    for (place, step) in steps.iter().enumerate() {
        if place == committing && place > 0 {
            wait_for("the committer to be at the disk", || disk.waiting() > 0);
        }
        waiting.extend(take(&engine, &clock, step));
    }
    disk.disk.fail_after(0);
    drop(gate);
    let outcomes: Vec<Outcome> = waiting.iter().map(|held| settle(&engine, held)).collect();
    assert!(outcomes.iter().any(is_storage), "{outcomes:?}");
    let late = set(Memory, "late", 1);
    assert!(is_storage(&settle(&engine, &take(&engine, &clock, &late).unwrap())));

    let about = format!("{before:?}, then {steps:?}, {committing} of them with the disk");
    let want: Cells = left
        .iter()
        .map(|(key, value, level, ttl_ms)| cell(key, *value, *level, *ttl_ms, &clock))
        .collect();
    assert_shows(&engine, &want, &clock, &about);
    assert!(storage_runtime.stop().is_err());
}

fn cell(
    key: &str,
    value: u64,
    level: Level,
    ttl_ms: Option<u64>,
    clock: &Clock,
) -> (Vec<u8>, Cell) {
    let expires_at = ttl_ms.map_or(0, |ttl_ms| clock.now() + ttl_ms);
    let value = encode_value(&value.into());
    (key.as_bytes().to_vec(), Cell { value, seq: 0, expires_at, level })
}

/// The state of a key in a reply with `meta`, without its seq where none is expected.
fn found(meta: &Value, clock: &Clock) -> Cell {
    let expires_at = meta[2].as_u64().map_or(0, |ttl_ms| clock.now() + ttl_ms);
    let level = meta[3].as_str().unwrap().parse().unwrap();
    Cell { value: encode_value(&meta[0]), seq: meta[1].as_u64().unwrap(), expires_at, level }
}

/// Every kind of read is answered, and shows exactly `want`. A seq of 0 matches any.
fn assert_shows(engine: &Engine, want: &Cells, clock: &Clock, about: &str) {
    let meta = |request: Request| call(engine, &request.option("meta", true));
    let same = |found: &Cell, want: &Cell| {
        let seq = if want.seq == 0 { 0 } else { found.seq };
        Cell { seq, ..found.clone() } == *want
    };
    let page = meta(Request::new("range")).unwrap();
    let items = page[0].as_array().unwrap();
    let shown: Cells =
        items.iter().map(|item| (key_bytes(&item[0]), found(&item[1], clock))).collect();
    let is_same = shown.len() == want.len()
        && shown.iter().zip(want).all(|(left, right)| left.0 == right.0 && same(left.1, right.1));
    assert!(is_same, "{about}: shows {shown:?}, not {want:?}");
    let count = call(engine, &Request::new("count"));
    assert_eq!(count, Ok(want.len().into()), "{about}");
    let keys = ["", "a", "b", "ba", "bb", "c", "ca", "n1", "n2", "n3", "late"];
    for key in keys {
        let got = meta(Request::new("get").key(key.as_bytes()));
        match want.get(key.as_bytes()) {
            Some(cell) => {
                assert!(same(&found(got.as_ref().unwrap(), clock), cell), "{about}: {got:?}")
            }
            None => assert_eq!(got, Ok(Value::Nil), "{about}: {key}"),
        }
    }
    let all = call(engine, &Request::new("get_multi").keys(&keys)).unwrap();
    assert_eq!(all.as_array().unwrap().len(), want.len(), "{about}");
}

/// The steps in every layout: from all of them pending, to all of them being written.
fn in_every_layout(before: &[Step], steps: &[Step], left: &[(&str, u64, Level, Option<u64>)]) {
    for committing in 0..=steps.len() {
        after_failure(before, steps, committing, left);
    }
}

#[test]
fn reads_after_a_failure_show_exactly_the_guaranteed_state() {
    let before = [set(Synced, "a", 1), set(Queued, "b", 2), set(Memory, "c", 3)];
    let over =
        [set(Synced, "a", 10), set(Synced, "b", 20), set(Synced, "c", 30), set(Synced, "n1", 40)];
    let left = [("a", 1, Synced, None), ("b", 2, Queued, None), ("c", 3, Memory, None)];
    in_every_layout(&before, &over, &left);
    let over = over.map(|step| match step {
        Step::Write(_, request) => Step::Write(Stored, request),
        pass => pass,
    });
    in_every_layout(&before, &over, &left);
}

#[test]
fn the_newest_write_that_reached_its_level_stays() {
    let before = [set(Synced, "a", 1)];
    let queued = ("a", 3, Queued, None);
    in_every_layout(&before, &[set(Synced, "a", 2), set(Queued, "a", 3)], &[queued]);
    in_every_layout(&before, &[set(Queued, "a", 3), set(Synced, "a", 2)], &[queued]);
    let between =
        [set(Synced, "a", 2), set(Queued, "a", 3), set(Stored, "a", 4), delete(Synced, "a")];
    in_every_layout(&before, &between, &[queued]);
    in_every_layout(&before, &[set(Synced, "a", 2), set(Queued, "a", 3), delete(Queued, "a")], &[]);
    in_every_layout(&before, &[delete(Queued, "a"), set(Synced, "a", 2)], &[]);
    in_every_layout(
        &before,
        &[set(Synced, "a", 2), set(Synced, "a", 3)],
        &[("a", 1, Synced, None)],
    );
    in_every_layout(&[], &[set(Memory, "a", 5), set(Synced, "a", 2)], &[("a", 5, Memory, None)]);
}

#[test]
fn deletes_counters_and_touches_are_rolled_back() {
    let before = [set_for(Synced, "a", 5, 9_000)];
    let kept = [("a", 5, Synced, Some(9_000))];
    for lost in [delete(Synced, "a"), incr(Stored, "a"), touch(Synced, "a", 100)] {
        in_every_layout(&before, std::slice::from_ref(&lost), &kept);
        in_every_layout(&before, &[lost.clone(), lost], &kept);
    }
    in_every_layout(&[], &[incr(Synced, "a"), delete(Synced, "a")], &[]);
    // A value computed from a lost value belongs to its own writer, and reached the level that it
    // requested.
    let counted = [("a", 7, Queued, Some(9_000))];
    in_every_layout(&before, &[incr(Synced, "a"), incr(Queued, "a")], &counted);
    // A touch creates nothing: it applies to the restored value, if there is one.
    let touched = [("a", 5, Queued, Some(700))];
    in_every_layout(&before, &[set(Synced, "a", 6), touch(Queued, "a", 700)], &touched);
    in_every_layout(&[], &[set(Synced, "a", 6), touch(Queued, "a", 700)], &[]);
}

#[test]
fn a_batch_is_rolled_back_whole_or_kept_whole() {
    let before = [set(Synced, "a", 1), set(Memory, "b", 2)];
    let kept = [("a", 1, Synced, None), ("b", 2, Memory, None)];
    let steps = [set(Synced, "a", 8), delete(Synced, "b"), incr(Synced, "c"), delete(Synced, "c")];
    in_every_layout(&before, &[batch(Synced, &steps)], &kept);
    in_every_layout(&before, &[set_both(Stored, 9)], &kept);
    let stays = [("a", 8, Queued, None)];
    in_every_layout(&before, &[batch(Queued, &steps), set(Synced, "b", 1)], &stays);
    // One of its changes hides a persisted value, and so all of them wait.
    let hides = batch(Memory, &[set(Memory, "b", 8), set(Memory, "c", 8), set(Memory, "a", 8)]);
    in_every_layout(&before, &[hides], &kept);
    let both = [Request::new("delete_multi").keys(&["b", "a"])];
    in_every_layout(&before, &both.map(|request| Step::Write(Memory, request)), &kept);
    in_every_layout(&before, &[set_both(Memory, 8)], &kept);
}

#[test]
fn an_expired_value_stays_hidden_and_a_lost_value_removes_no_other() {
    let before = [set(Synced, "a", 1), set_for(Synced, "b", 2, 50)];
    let over =
        [set_for(Synced, "a", 8, 20), set(Synced, "b", 8), Step::Pass(50), set(Queued, "c", 3)];
    let left = [("a", 1, Synced, None), ("c", 3, Queued, None)];
    in_every_layout(&before, &over, &left);
    // A touch that came too late for the restored value.
    let late = [set(Synced, "b", 8), Step::Pass(50), touch(Queued, "b", 900)];
    in_every_layout(&before, &late, &left[..1]);
}

/// The effects of one random write.
struct Written {
    at: u64,
    held: Held,
    outcome: Option<Outcome>,
    /// The level at which its changes are kept: its own, or that of the value which a `memory`
    /// write hides.
    level: Level,
    changes: Vec<(Vec<u8>, Option<Cell>)>,
    /// The keys whose values it set or removed; it has only touched the others.
    made: BTreeSet<Vec<u8>>,
}

impl Written {
    fn settle(&mut self, engine: &Engine) {
        self.outcome.get_or_insert_with(|| settle(engine, &self.held));
    }

    fn has_reached_its_level(&self) -> bool {
        self.level < Stored || self.outcome.as_ref().is_some_and(|outcome| !is_storage(outcome))
    }
}

/// The keys whose values a command may set or remove.
fn made(command: &Command<'_>, keys: &mut BTreeSet<Vec<u8>>) {
    match command {
        Command::Set(set) => drop(keys.insert(set.key.to_vec())),
        Command::SetMulti(set) => {
            keys.extend(set.pairs.iter().map(|(key, _)| [set.prefix, key].concat()));
        }
        Command::Delete(delete) => drop(keys.insert(delete.key.to_vec())),
        Command::DeleteMulti(delete) => {
            keys.extend(delete.keys.iter().map(|key| [delete.prefix, key].concat()));
        }
        Command::Append(append) => drop(keys.insert(append.key.to_vec())),
        Command::Incr(incr) => drop(keys.insert(incr.key.to_vec())),
        Command::Decr(decr) => drop(keys.insert(decr.key.to_vec())),
        Command::Batch(batch) => batch.commands.iter().for_each(|inner| made(inner, keys)),
        _ => {}
    }
}

/// The keys that a command changes, including those that end as they began.
fn changed(before: &Model, command: &Command<'_>, now: u64) -> BTreeSet<Vec<u8>> {
    let mut model = before.now();
    let mut changed = BTreeSet::new();
    let steps = match command {
        Command::Batch(batch) => &batch.commands,
        single => std::slice::from_ref(single),
    };
    for step in steps {
        let old = model.now();
        let _ = model.apply(step, now, Synced);
        let keys = old.cells.keys().chain(model.cells.keys());
        changed.extend(keys.filter(|key| old.cells.get(*key) != model.cells.get(*key)).cloned());
    }
    changed
}

/// A client that writes at random, and records what was guaranteed to it.
struct Client {
    generator: Generator,
    clock: Clock,
    model: Model,
    written: Vec<Written>,
}

impl Client {
    fn new(seed: u64, clock: &Clock) -> Self {
        let model = Model::after(Cells::new(), 0);
        let mut generator = Generator::new(seed);
        generator.writes_only = true;
        Self { generator, clock: clock.clone(), model, written: Vec::new() }
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.generator.random().u32(..one_in) == 0
    }

    /// Sends one command, at each level equally often.
    fn write(&mut self, engine: &Engine) {
        let pause_ms = self.generator.pause_ms();
        self.clock.advance_to(self.clock.now() + pause_ms);
        let frame = self.generator.command();
        let held = execute_frame(engine, &frame.0);
        // Refused before it was applied, since the disk has failed.
        if held.is_open() && is_storage(&crate::support::dealer::decode(held.response()).1) {
            return;
        }
        let now = self.clock.now();
        self.model.expire(now);
        let before = self.model.now();
        let request = frame.decode();
        let command = request.command.as_ref().unwrap();
        let requested = self.model.level(command, command.durability().unwrap_or(Synced));
        let _ = self.model.apply(command, now, Synced);
        if self.model.seq == before.seq {
            return;
        }
        let change = |key: Vec<u8>| {
            let cell = self.model.cells.get(&key).cloned();
            (key, cell)
        };
        let changes = changed(&before, command, now).into_iter().map(change).collect();
        let hidden = before.left().iter().filter(|(key, _)| !self.model.left().contains_key(*key));
        let level = match requested {
            Memory => hidden.map(|(_, cell)| cell.level).max().unwrap_or(Memory),
            requested => requested,
        };
        let mut keys = BTreeSet::new();
        made(command, &mut keys);
        self.written.push(Written { at: now, held, outcome: None, level, changes, made: keys });
    }

    /// The state guaranteed to every reader: the writes that reached their level, in order.
    fn promised(&self) -> Cells {
        let mut cells = Cells::new();
        let expire = |cells: &mut Cells, now| {
            cells.retain(|_, cell| cell.expires_at == 0 || cell.expires_at > now);
        };
        for written in self.written.iter().filter(|written| written.has_reached_its_level()) {
            expire(&mut cells, written.at);
            for (key, cell) in &written.changes {
                match cell {
                    None => drop(cells.remove(key)),
                    Some(cell) if written.made.contains(key) => {
                        cells.insert(key.clone(), cell.clone());
                    }
                    Some(touched) => {
                        if let Some(found) = cells.get_mut(key) {
                            let value = found.value.clone();
                            // Based on the restored value, not on the lost value that was touched.
                            let level = match found.level {
                                Memory => Memory,
                                _ => touched.level.max(Queued),
                            };
                            *found = Cell { value, level, ..touched.clone() };
                        }
                    }
                }
            }
        }
        expire(&mut cells, self.clock.now());
        cells
    }
}

/// Writes at random to a disk that sometimes delays, and fails in the end.
fn round(seed: u64) {
    let (disk, clock) = (Arc::new(GatedDisk::default()), Clock::manual(START));
    let storage_runtime = open(&disk, &clock);
    let engine = storage_runtime.engine();
    let mut client = Client::new(seed, &clock);
    for _ in 0..client.generator.random().u32(..30) {
        client.write(&engine);
        if client.chance(2)
            && let Some(written) = client.written.last_mut()
        {
            written.settle(&engine);
        }
    }
    let gate = disk.hold();
    let lost = client.generator.random().u32(1..12);
    for _ in 0..lost {
        let count = client.written.len();
        client.write(&engine);
        let is_urgent = client.written.get(count).is_some_and(|new| !new.held.is_open());
        if is_urgent && client.chance(4) {
            wait_for("the committer to be at the disk", || disk.waiting() > 0);
        }
    }
    let after = client.generator.random().u64(..3);
    disk.disk.fail_after(after);
    drop(gate);
    while !engine.watermarks().has_failed() {
        client.write(&engine);
        client.written.iter_mut().for_each(|written| written.settle(&engine));
    }
    client.written.iter_mut().for_each(|written| written.settle(&engine));
    wait_for("the committer to end", || engine.watermarks().progress().is_settled);
    assert_shows(&engine, &client.promised(), &clock, &format!("seed {seed}"));
    let later = clock.now() + client.generator.random().u64(..100);
    clock.advance_to(later);
    assert_shows(&engine, &client.promised(), &clock, &format!("seed {seed}, later"));
    assert!(storage_runtime.stop().is_err());
}

#[test]
fn random_failing_writes_leave_the_guaranteed_state() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let seed = number("VATN_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds = number("VATN_ROUNDS").unwrap_or(300);
    println!("{rounds} rounds (VATN_ROUNDS) from seed {seed} (VATN_SEED) on");
    (0..rounds).for_each(|number| round(seed.wrapping_add(number)));
}
