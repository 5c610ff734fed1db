//! The store against a plain `BTreeMap`: seeded random commands, replies and state compared at
//! each, also through crashes and restarts of everything but the edges.
//!
//! `VATN_COMMANDS` sets how many commands, `VATN_SEED` repeats a run.

use crate::support::commands::{Generator, OwnedCommand, encode_value, request};
use crate::support::model::{Cell, Cells, Model, encoded};
use crate::support::storage_runtime::{open, wait_for};
use std::collections::BTreeMap;
use std::sync::Arc;
use vatn::budget::Cost;
use vatn::clock::Clock;
use vatn::commands::Command;
use vatn::commands::Set;
use vatn::engine::{Allowance, BarrierStatus, Engine, PendingReply, Replies};
use vatn::net::Caller;
use vatn::protocol::change::{ChangeReader, Op};
use vatn::protocol::{ChangeBuffer, DurabilityBarrier, Level, Refusal, Seq};
use vatn::server::StorageRuntime;
use vatn::state::map::Head;
use vatn::state::{Context, Store};
use vatn::storage::MemoryStorage;
use vatn::storage::memory::Batches;

/// A follower that applies only the changes.
fn follow(cells: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: &ChangeBuffer) {
    for change in ChangeReader::new(changes.bytes()) {
        let change = change.unwrap();
        match change.op {
            Op::Set => drop(cells.insert(change.key.to_vec(), change.value.to_vec())),
            Op::Touch => assert!(change.value.is_empty(), "a touch carries no value"),
            Op::Delete | Op::Expire => drop(cells.remove(change.key)),
        }
    }
}

fn context(now: u64) -> Context {
    Context {
        now,
        durability: Level::Synced,
        page_items: 10_000,
        page_bytes: 1 << 20,
        reply_bytes: 1 << 20,
        command_items: 1 << 14,
        walk: Cost::MAX,
        write_bytes: 1 << 20,
    }
}

fn compare(seed: u64, commands: usize) {
    let mut generator = Generator::new(seed);
    let mut store = Store::default();
    let mut model = Model::default();
    let mut followed = BTreeMap::new();
    let mut now = 1_000_000;
    for step in 0..commands {
        now += generator.pause_ms();
        let owned = generator.command();
        let request = owned.decode();
        let command = request.command.unwrap();
        let mut changes = ChangeBuffer::default();
        model.expire(now);
        store.expire(&context(now), usize::MAX, &mut changes);
        let expected = model.apply(&command, now, Level::Synced);
        let applied = store.apply(&command, &context(now), &mut changes);
        let got = applied
            .outcome
            .map(|outcome| encoded(&outcome.reply().unwrap()))
            .map_err(|refusal: Refusal| refusal.code());
        assert_eq!(got, expected, "seed {seed}, step {step}: {command:?}");
        assert_eq!(store.seq(), model.seq, "seed {seed}, step {step}: {command:?}");
        follow(&mut followed, &changes);
    }
    let state: BTreeMap<_, _> = store
        .entries()
        .map(|(key, entry)| {
            let Head { seq, expires_at, level, .. } = entry.head;
            let cell = Cell { value: entry.value.to_vec(), seq, expires_at, level };
            (key.to_vec(), cell)
        })
        .collect();
    assert_eq!(state, model.cells, "seed {seed}: the state");
    let values: BTreeMap<_, _> =
        model.cells.into_iter().map(|(key, cell)| (key, cell.value)).collect();
    assert_eq!(followed, values, "seed {seed}: what a follower of the changes has");
}

/// A number from the environment.
fn given(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|number| number.parse().ok())
}

#[test]
fn random_commands_agree_with_a_plain_map() {
    let (seed, commands) = (given("VATN_SEED"), given("VATN_COMMANDS").unwrap_or(100_000));
    for _ in 0..commands / 5_000 {
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        println!("seed {seed}");
        compare(seed, 5_000);
    }
}

/// How one run of the store ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    Kill,
    PowerLoss,
}

/// A store that is restarted again and again, and its model.
struct Lives {
    generator: Generator,
    clock: Clock,
    disk: Arc<MemoryStorage>,
    model: Model,
    /// Acknowledged or shown writes up to here must survive a kill, or a power failure.
    stored: Seq,
    synced: Seq,
    /// The deletes of this run, by key.
    removed: BTreeMap<Vec<u8>, (Level, Seq)>,
}

impl Lives {
    fn new(seed: u64) -> Self {
        Self {
            generator: Generator::new(seed),
            clock: Clock::manual(1_000_000),
            disk: Arc::new(MemoryStorage::default()),
            model: Model::after(Cells::new(), 0),
            stored: 0,
            synced: 0,
            removed: BTreeMap::new(),
        }
    }

    /// One run: commands, an end, and a check of the state after the restart.
    fn live(&mut self, commands: u64) {
        let storage_runtime = open(self.disk.clone(), &self.clock).unwrap();
        let engine = storage_runtime.engine();
        self.find(&engine, End::Stop);
        for _ in 0..commands {
            self.clock.advance_to(self.clock.now() + self.generator.pause_ms());
            self.command(&engine);
        }
        let random = self.generator.random();
        let end = [End::Stop, End::Kill, End::PowerLoss][random.usize(..3)];
        self.end(end, storage_runtime);
        if end != End::Stop && self.generator.random().bool() {
            self.crash_while_starting();
        }
        let storage_runtime = open(self.disk.clone(), &self.clock).unwrap();
        self.find(&storage_runtime.engine(), end);
        storage_runtime.stop().unwrap();
    }

    fn end(&mut self, end: End, storage_runtime: StorageRuntime) {
        let left = match end {
            End::Stop => None,
            End::Kill => Some(self.disk.after_kill()),
            End::PowerLoss => Some(self.power_loss()),
        };
        storage_runtime.stop().unwrap();
        if let Some(left) = left {
            self.disk = Arc::new(left);
        }
    }

    fn power_loss(&mut self) -> MemoryStorage {
        let unsynced = self.disk.unsynced_batches();
        let random = self.generator.random();
        let (log, rows) = (random.usize(0..=unsynced.log), random.usize(0..=unsynced.rows));
        self.disk.after_power_loss(Batches { log, rows })
    }

    /// A start interrupted by a failing disk and another crash.
    fn crash_while_starting(&mut self) {
        self.disk.fail_after(self.generator.random().u64(..12));
        if let Ok(storage_runtime) = open(self.disk.clone(), &self.clock) {
            // The disk may fail at any moment of the stop, too.
            let _ = storage_runtime.stop();
        }
        self.disk = Arc::new(self.power_loss());
    }

    /// Executes one random command on the store and on the model, and compares the replies.
    fn command(&mut self, engine: &Engine) {
        let owned = self.generator.command();
        let request = owned.decode();
        let (id, now) = (request.id.unwrap(), self.clock.now());
        let command = request.command.as_ref().unwrap();
        self.model.expire(now);
        self.removed.retain(|key, _| !self.model.cells.contains_key(key));
        let before = self.model.now();
        let expected = self.model.apply(command, now, Level::Synced);
        let (answer, bytes) = execute(engine, &owned);
        match expected {
            Ok(result) => {
                let head = [&[0x94, 1][..], &encode_value(&id.into()), &[0xC0]].concat();
                assert_eq!(bytes, [head, result].concat(), "{command:?}");
            }
            Err(code) => {
                let response = rmpv::decode::read_value(&mut &bytes[..]).unwrap();
                assert_eq!(response[2][0].as_str(), Some(code.name()), "{command:?}");
            }
        }
        // Some clients do not wait for their reply.
        if self.generator.random().u8(..4) != 0 {
            let barrier = answer.barrier().unwrap();
            wait_for("an answer", || engine.barrier_status(barrier) != BarrierStatus::Waiting);
            assert_eq!(engine.barrier_status(barrier), BarrierStatus::Ready);
            self.owe(command, &before, barrier);
        }
    }

    /// A client got its reply: what it wrote, or saw, must survive as its level says.
    fn owe(&mut self, command: &Command<'_>, before: &Model, barrier: DurabilityBarrier) {
        let mut owed = vec![(Level::Stored, barrier.stored), (Level::Synced, barrier.synced)];
        let after = &self.model;
        if after.seq > before.seq {
            let requested = command.durability().unwrap_or(Level::Synced);
            let level = before.level(command, requested);
            owed.push((level, after.seq));
            // A value hidden by a `memory` write must not come back.
            let (left, now) = (before.left(), after.left());
            let hidden = left.iter().filter(|(key, _)| !now.contains_key(*key));
            owed.extend(
                hidden.filter(|_| level == Level::Memory).map(|(_, c)| (c.level, after.seq)),
            );
            for key in before.cells.keys().filter(|key| !after.cells.contains_key(*key)) {
                self.removed.insert(key.clone(), (level, after.seq));
            }
        }
        if let Command::Get(get) = command {
            let shown = after.cells.get(&*get.key).map(|cell| (cell.level, cell.seq));
            owed.extend(shown.or_else(|| self.removed.get(&*get.key).copied()));
        }
        for (level, seq) in owed {
            if level >= Level::Stored {
                self.stored = self.stored.max(seq);
            }
            if level == Level::Synced {
                self.synced = self.synced.max(seq);
            }
        }
    }

    /// Compares the state after a restart with the model, and continues from there.
    fn find(&mut self, engine: &Engine, end: End) {
        let now = self.clock.now();
        let seq = ask(engine, request(1, "hello", vec![]))
            .as_map()
            .and_then(|hello| hello.iter().find(|(name, _)| name.as_str() == Some("seq")))
            .and_then(|(_, seq)| seq.as_u64())
            .unwrap();
        let cells = cells(engine, now);
        self.model.expire(now);
        let is_live = |cell: &Cell| cell.expires_at == 0 || cell.expires_at > now;
        let left = self.model.persisted.iter().rev().find(|(_, persisted)| {
            let live = persisted.iter().filter(|(_, cell)| is_live(cell));
            live.eq(cells.iter())
        });
        let Some((last, _)) = left else { panic!("after a {end:?}, no prefix left {cells:?}") };
        let owed = match end {
            End::Stop => self.model.seq,
            End::Kill => self.stored,
            End::PowerLoss => self.synced,
        };
        assert!(*last >= owed, "after a {end:?}: {last} is left, {owed} was promised");
        let is_next = if end == End::Stop { seq == self.model.seq } else { seq >= self.model.seq };
        assert!(is_next, "after a {end:?}: the store continues from {seq}, not {}", self.model.seq);
        self.model = Model::after(cells, seq);
        (self.stored, self.synced) = (0, 0);
        self.removed.clear();
    }
}

fn execute(engine: &Engine, command: &OwnedCommand) -> (PendingReply, Vec<u8>) {
    let requests = [command.decode()];
    let (caller, mut replies) = (Caller::local(), Replies::default());
    wait_for("room in the queue", || {
        let mut allowance = Allowance::default().waiting_for_room();
        engine.call(&caller, &requests, &mut allowance, &mut replies).done == 1
    });
    (replies.list.remove(0), replies.encoded.fill())
}

fn ask(engine: &Engine, command: OwnedCommand) -> rmpv::Value {
    let (_, bytes) = execute(engine, &command);
    rmpv::decode::read_value(&mut &bytes[..]).unwrap()[3].clone()
}

/// Everything that the store holds, with all metadata.
fn cells(engine: &Engine, now: u64) -> Cells {
    let page = ask(engine, request(1, "range", vec![]));
    let cell = |item: &rmpv::Value| {
        let meta = rmpv::Value::Map(vec![("meta".into(), true.into())]);
        let entry = ask(engine, request(1, "get", vec![item[0].clone(), meta]));
        let cell = Cell {
            value: encode_value(&entry[0]),
            seq: entry[1].as_u64().unwrap(),
            expires_at: entry[2].as_u64().map_or(0, |ttl_ms| now + ttl_ms),
            level: entry[3].as_str().unwrap().parse().unwrap(),
        };
        (crate::support::dealer::key_bytes(&item[0]), cell)
    };
    page[0].as_array().unwrap().iter().map(cell).collect()
}

#[test]
fn random_commands_agree_with_a_plain_map_through_crashes_and_restarts() {
    let seed = given("VATN_SEED").unwrap_or_else(|| fastrand::u64(..));
    let commands = given("VATN_COMMANDS").unwrap_or(20_000);
    println!("seed {seed} (VATN_SEED repeats it), {commands} commands (VATN_COMMANDS)");
    let mut lives = Lives::new(seed);
    let (mut done, mut count) = (0, 0);
    while done < commands {
        let few = lives.generator.random().u64(1..400);
        lives.live(few);
        (done, count) = (done + few, count + 1);
    }
    println!("{done} commands in {count} lives");
}

#[test]
fn a_value_is_kept_byte_for_byte() {
    let mut store = Store::default();
    // 1 as a u16: longer than necessary.
    let value = [0xCD, 0x00, 0x01];
    let set = Set {
        key: (&b"k"[..]).into(),
        value: &value,
        expiry: None,
        condition: None,
        return_value: false,
        durability: None,
    };
    let mut changes = ChangeBuffer::default();
    assert!(store.apply(&Command::Set(set), &context(1), &mut changes).outcome.is_ok());
    let (_, entry) = store.entries().next().unwrap();
    assert_eq!(entry.value, &value);
    assert_eq!(encode_value(&rmpv::Value::from(1)), [0x01]);
}

#[test]
fn a_refusal_waits_for_the_writes_it_reveals_like_a_result() {
    let mut store = Store::default();
    let mut changes = ChangeBuffer::default();
    let options = |name: &str, value: rmpv::Value| rmpv::Value::Map(vec![(name.into(), value)]);
    let text = request(1, "set", vec!["k".into(), "text".into()]);
    let refused = [
        request(2, "incr", vec!["k".into(), options("durability", "memory".into())]),
        request(3, "set", vec!["k".into(), 1.into(), options("if", "absent".into())]),
        request(4, "delete", vec!["k".into(), options("if", 77.into())]),
    ];
    let set = text.decode().command.unwrap();
    assert!(store.apply(&set, &context(1), &mut changes).outcome.is_ok());
    for command in &refused {
        let command = command.decode().command.unwrap();
        let applied = store.apply(&command, &context(1), &mut changes);
        assert!(applied.outcome.is_err(), "{command:?}");
        assert_eq!(applied.barrier.synced, 1, "{command:?}");
    }
}
