//! Crashes on a test's disk: the remaining state is a prefix of the order of writes, with every
//! acknowledged write whose level covers the crash, and no partial batch (promises 1 and 2).

use crate::support::commands::Generator;
use crate::support::storage_runtime::config;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vatn::clock::Clock;
use vatn::commands::Command;
use vatn::config::WriteQueueConfig;
use vatn::engine::{Allowance, BarrierStatus, ChangesQuery, Engine, Replies};
use vatn::net::Caller;
use vatn::protocol::change::Op;
use vatn::protocol::{DurabilityBarrier, Level, Seq};
use vatn::server::StorageRuntime;
use vatn::storage::memory::Batches;
use vatn::storage::{MemoryStorage, Storage};
use vatn::wal::feed::FeedReader;

fn open(disk: &Arc<MemoryStorage>, write_queue: WriteQueueConfig, clock: &Clock) -> StorageRuntime {
    let disk: Arc<dyn Storage> = Arc::clone(disk) as _;
    StorageRuntime::open(config(write_queue), clock.clone(), disk, &mut |_| {}).unwrap()
}

/// The contents of the whole map, read like a client, with the times of expiry.
fn state(engine: &Engine, clock: &Clock) -> Timed {
    let options = rmpv::Value::Map(vec![("meta".into(), true.into())]);
    let frame = crate::support::commands::request(1, "range", vec![options]);
    let (mut allowance, mut replies) = (Allowance::default(), Replies::default());
    let called = engine.call(&Caller::local(), &[frame.decode()], &mut allowance, &mut replies);
    assert_eq!(called.done, 1);
    let response = rmpv::decode::read_value(&mut &replies.encoded.fill()[..]).unwrap();
    let items = response[3][0].as_array().unwrap().clone();
    let bytes = |value: &rmpv::Value| match value {
        rmpv::Value::String(text) => text.as_bytes().to_vec(),
        rmpv::Value::Binary(bytes) => bytes.clone(),
        other => panic!("not a key: {other}"),
    };
    let timed = |meta: &rmpv::Value| {
        let expires_at = meta[2].as_u64().map_or(0, |ttl| clock.now() + ttl);
        (crate::support::commands::encode_value(&meta[0]), expires_at)
    };
    items.iter().map(|pair| (bytes(&pair[0]), timed(&pair[1]))).collect()
}

/// Values with the time at which they expire; 0 never.
type Timed = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

/// Every prefix of the persisted writes, by seq: the states that a crash may leave.
struct History {
    /// The state after each write, oldest first; a `memory` write only removes the value that it
    /// hides.
    states: Vec<(Seq, Timed)>,
    feed: FeedReader,
}

impl History {
    fn after(start: Timed, feed: FeedReader) -> Self {
        Self { states: vec![(0, start)], feed }
    }

    /// Reads the feed, which has every committed write.
    fn follow(&mut self) {
        let read = self.feed.read(usize::MAX);
        assert_eq!(read.lost, None);
        for change in read.records.iter().flat_map(|record| record.persisted()) {
            let (seq, mut state) = self.states.last().unwrap().clone();
            match change.op {
                Op::Touch => {
                    let timed = state.get_mut(change.key);
                    timed.map(|(value, end)| {
                        *end = change.expires_at.unwrap_or(0);
                        (value.clone(), *end)
                    })
                }
                Op::Set => {
                    let timed = (change.value.to_vec(), change.expires_at.unwrap_or(0));
                    state.insert(change.key.to_vec(), timed)
                }
                Op::Delete | Op::Expire => state.remove(change.key),
            };
            if seq == change.seq {
                self.states.pop();
            }
            self.states.push((change.seq, state));
        }
    }

    /// The last write after which the state, without what has expired at `now`, was `left`.
    fn find(&self, left: &Timed, now: u64) -> Option<&(Seq, Timed)> {
        self.states.iter().rev().find(|(_, state)| live(state, now) == *left)
    }
}

fn live(state: &Timed, now: u64) -> Timed {
    let is_live = |expires_at: u64| expires_at == 0 || expires_at > now;
    let live = state.iter().filter(|(_, (_, expires_at))| is_live(*expires_at));
    live.map(|(key, timed)| (key.clone(), timed.clone())).collect()
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// Executes one random write; returns the barrier of its acknowledgement, with its level. A write
/// that changes nothing waits for the writes of others, at their levels.
fn write(engine: &Engine, generator: &mut Generator) -> Option<(Level, DurabilityBarrier)> {
    let owned = generator.command();
    let request = owned.decode();
    let level =
        request.command.as_ref().ok().and_then(Command::durability).unwrap_or(Level::Synced);
    let (caller, mut replies) = (Caller::local(), Replies::default());
    let before = engine.feed().last_seq();
    let requests = [request];
    wait_for("room", || {
        let mut allowance = Allowance::default().waiting_for_room();
        engine.call(&caller, &requests, &mut allowance, &mut replies).done == 1
    });
    let barrier = replies.list[0].barrier().unwrap();
    if generator.random().u8(..4) == 0 {
        return None; // This client does not wait for its reply.
    }
    wait_for("the barrier", || engine.barrier_status(barrier) != BarrierStatus::Waiting);
    assert_eq!(engine.barrier_status(barrier), BarrierStatus::Ready);
    let response = rmpv::decode::read_value(&mut &replies.encoded.fill()[..]).unwrap();
    let wrote = response[2].is_nil() && before < u64::MAX;
    wrote.then_some((level, barrier))
}

fn crash_and_check(seed: u64, by_power: bool) {
    let mut generator = Generator::new(seed);
    generator.writes_only = true;
    let clock = Clock::manual(1_000_000);
    let queue = WriteQueueConfig { items: 40, bytes: 1 << 20, wait_ms: 1_000 };
    let mut disk = Arc::new(MemoryStorage::default());
    let mut start = Timed::new();
    for round in 0..6 {
        let storage_runtime = open(&disk, queue.clone(), &clock);
        let engine = storage_runtime.engine();
        let mut history = History::after(start, engine.feed().reader());
        let (shown, now) = (state(&engine, &clock), clock.now());
        assert_eq!(shown, live(&history.states[0].1, now), "seed {seed}, round {round}: restart");
        let mut acknowledged = 0;
        for _ in 0..generator.random().usize(1..120) {
            clock.advance_to(clock.now() + generator.pause_ms());
            let Some((level, barrier)) = write(&engine, &mut generator) else { continue };
            let (covers, seq) = match by_power {
                true => (level == Level::Synced, barrier.synced),
                false => (level >= Level::Stored, barrier.stored.max(barrier.synced)),
            };
            if covers {
                acknowledged = acknowledged.max(seq);
            }
        }
        let left = if by_power {
            let unsynced = disk.unsynced_batches();
            let random = generator.random();
            let (log, rows) = (random.usize(0..=unsynced.log), random.usize(0..=unsynced.rows));
            disk.after_power_loss(Batches { log, rows })
        } else {
            disk.after_kill()
        };
        storage_runtime.stop().unwrap();
        history.follow();
        disk = Arc::new(left);
        let after = open(&disk, queue.clone(), &clock);
        let found = state(&after.engine(), &clock);
        let prefix = history.find(&found, clock.now());
        let Some((seq, timed)) = prefix.cloned() else {
            panic!("seed {seed}, round {round}: no prefix: {found:?}")
        };
        assert!(
            seq >= acknowledged,
            "seed {seed}, round {round}: {seq} left, {acknowledged} promised"
        );
        let applied = after.engine().watermarks().progress().stored;
        assert!(applied >= history.states.last().unwrap().0, "no seq is given out twice");
        after.stop().unwrap();
        start = timed;
    }
}

fn seeds() -> Vec<u64> {
    let given = std::env::var("VATN_SEED").ok().and_then(|seed| seed.parse().ok());
    given.map_or_else(|| (0..60).map(|_| fastrand::u64(..)).collect(), |seed| vec![seed])
}

#[test]
fn a_kill_leaves_a_prefix_with_every_stored_write() {
    for seed in seeds() {
        println!("seed {seed}");
        crash_and_check(seed, false);
    }
}

#[test]
fn a_power_failure_leaves_a_prefix_with_every_synced_write() {
    for seed in seeds() {
        println!("seed {seed}");
        crash_and_check(seed, true);
    }
}

#[tokio::test]
async fn the_history_after_a_kill_is_complete_up_to_the_next_seq() {
    let (clock, queue) = (Clock::manual(1_000_000), WriteQueueConfig::default());
    let disk = Arc::new(MemoryStorage::default());
    let before = open(&disk, queue.clone(), &clock);
    let mut generator = Generator::new(1);
    generator.writes_only = true;
    let is_write = |barrier: DurabilityBarrier| barrier != DurabilityBarrier::OPEN;
    while !write(&before.engine(), &mut generator).is_some_and(|(_, barrier)| is_write(barrier)) {}
    let killed = Arc::new(disk.after_kill());
    before.stop().unwrap();

    let after = open(&killed, queue, &clock);
    let goes_on = after.engine().feed().last_seq();
    let query = ChangesQuery { after: 0, prefix: vec![], limit: None, wait_ms: 0 };
    let result = after.engine().changes_now(query).await.unwrap();
    let result = rmpv::decode::read_value(&mut &result[..]).unwrap();
    assert!(!result[0].as_array().unwrap().is_empty());
    assert_eq!(result[1].as_u64(), Some(goes_on), "a subscriber asks until it is there");
    after.stop().unwrap();
}
