//! Where the time of a late reply went. All times are given by the tests.

use super::*;
use crate::clock::{Clock, ManualHands, Millis as Ms};
use crate::commands::Request;
use crate::config::Config;
use crate::engine::{Allowance, PendingReply, Replies, recover};
use crate::storage::{
    Durability, KeyValue, MemoryStorage, Row, Space, Storage, StorageError, StorageUsage,
};
use crate::wal::Log;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A disk on which time passes: for each record, and for each sync.
#[derive(Debug, Default)]
pub(crate) struct SlowDisk {
    disk: MemoryStorage,
    pub(crate) hands: Arc<ManualHands>,
    pub(crate) append_ms: AtomicU64,
    pub(crate) sync_ms: AtomicU64,
}

impl SlowDisk {
    /// An engine on it whose committer has not begun.
    pub(crate) fn engine(self: &Arc<Self>) -> (Arc<Engine>, Log) {
        let clock = Clock::reading(&self.hands);
        let recovered = recover(self.as_ref(), &clock, &mut |_| {}).unwrap();
        let disk = Arc::clone(self) as Arc<dyn Storage>;
        Engine::new(Config::without_edges("memory"), clock, disk, recovered).unwrap()
    }

    fn pass(&self, time: &AtomicU64) {
        self.hands.pass(time.load(Ordering::Acquire));
    }
}

impl Storage for SlowDisk {
    fn commit(&self, rows: Vec<Row<'_>>, sync: Durability) -> Result<(), StorageError> {
        self.commit_in_steps(rows, sync, &mut || {})
    }

    fn commit_in_steps(
        &self,
        rows: Vec<Row<'_>>,
        sync: Durability,
        written: &mut dyn FnMut(),
    ) -> Result<(), StorageError> {
        self.pass(&self.append_ms);
        if sync == Durability::Fsynced {
            written();
            self.pass(&self.sync_ms);
        }
        self.disk.commit(rows, sync)
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.pass(&self.sync_ms);
        self.disk.sync()
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.disk.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        self.disk.scan(space, from, each)
    }

    fn floor(&self, space: Space, key: &[u8]) -> Result<Option<KeyValue>, StorageError> {
        self.disk.floor(space, key)
    }

    fn trim_log(&self, before: u64) -> Result<(), StorageError> {
        self.disk.trim_log(before)
    }

    fn usage(&self) -> StorageUsage {
        self.disk.usage()
    }
}

const SET: &[u8] = b"\x94\0\x01\xa3set\x92\xa1k\x01";

/// Executes a `synced` write that waits since `since`; how it went, and what its reply waits for.
fn set(engine: &Engine, since: Nanos) -> (Timed, DurabilityBarrier) {
    let mut replies = Replies::default();
    replies.times = CallTimes::begin(since, engine.since_boot());
    let requests = [Request::decode(SET)];
    let progress =
        engine.call(&Caller::local(), &requests, &mut Allowance::default(), &mut replies);
    assert_eq!(progress.done, 1);
    let barrier = replies.list.first().and_then(PendingReply::barrier).unwrap();
    (Timed::new(&replies.times, &requests), barrier)
}

/// What each stage took, in milliseconds.
fn millis(spans: &Spans) -> Vec<u32> {
    Stage::ALL.iter().map(|stage| spans.micros(*stage) / 1_000).collect()
}

#[test]
fn each_stage_of_a_late_reply_has_its_own_time() {
    let disk = Arc::<SlowDisk>::default();
    let (engine, log) = disk.engine();
    let pass = |time: Ms| disk.hands.pass(time);
    pass(7);
    let since = engine.since_boot();
    pass(4);
    let (timed, barrier) = set(&engine, since);
    pass(3);
    disk.append_ms.store(20, Ordering::Release);
    disk.sync_ms.store(180, Ordering::Release);
    engine.stop();
    engine.commit(log);
    pass(2);
    let released = engine.since_boot();
    pass(1);
    engine.note_sent(&Caller::local(), &timed, barrier, released, engine.since_boot(), 0);
    let slow = engine.slow_requests().recent();
    let [one] = slow.as_slice() else { panic!("{slow:?}") };
    assert_eq!(millis(&one.spans), [4, 0, 0, 0, 3, 20, 180, 2, 1]);
    assert_eq!((one.spans.longest(), one.method), (Stage::Fsync, "set"));
    let line = one.to_string();
    assert!(line.starts_with("210.0 ms set seq 1 synced from local connection "), "{line}");
}

#[test]
fn what_is_synced_later_than_it_was_stored_waits_for_that_sync() {
    let disk = Arc::<SlowDisk>::default();
    let (engine, _log) = disk.engine();
    let (timed, barrier) = set(&engine, 0);
    disk.hands.pass(150);
    let (now, ended) = (engine.since_boot(), 190_000_000);
    let stored = Commit {
        stored: 1,
        stored_before: 0,
        synced: 0,
        synced_before: 0,
        began: 0,
        written: 0,
        ended: 0,
    };
    engine.commits.note(stored);
    engine.commits.note(Commit {
        stored_before: 1,
        synced: 1,
        began: now,
        written: now,
        ended,
        ..stored
    });
    disk.hands.pass(50);
    let released = engine.since_boot();
    engine.note_sent(&Caller::local(), &timed, barrier, released, released, 0);
    let slow = engine.slow_requests().recent();
    assert_eq!(millis(&slow[0].spans), [0, 0, 0, 0, 150, 0, 40, 10, 0]);
}

#[test]
fn who_waits_for_the_lock_is_told_so() {
    let disk = Arc::<SlowDisk>::default();
    let (engine, _log) = disk.engine();
    let others = engine.core_mut();
    let looks = disk.hands.looks();
    let caller = std::thread::spawn({
        let engine = Arc::clone(&engine);
        move || set(&engine, 0).0
    });
    // It looked when it began, when it was called, and when it found the lock taken.
    while disk.hands.looks() < looks + 3 {
        std::thread::yield_now();
    }
    disk.hands.pass(180);
    drop(others);
    let timed = caller.join().unwrap();
    let now = engine.since_boot();
    engine.note_sent(&Caller::local(), &timed, DurabilityBarrier::OPEN, now, now, 0);
    let slow = engine.slow_requests().recent();
    assert_eq!(millis(&slow[0].spans), [0, 0, 180, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn what_is_not_late_is_not_noted() {
    let disk = Arc::<SlowDisk>::default();
    let (engine, _log) = disk.engine();
    let (timed, barrier) = set(&engine, 0);
    for (pass, noted) in [(99, 0), (1, 1)] {
        disk.hands.pass(pass);
        let now = engine.since_boot();
        engine.note_sent(&Caller::local(), &timed, barrier, now, now, 0);
        assert_eq!(engine.slow_requests().recent().len(), noted);
    }
}
