//! The syncer: one thread that has the medium follow, where no writer waits for it.
//!
//! Not the committer: a sync takes longer the more was written since the last one, and those who
//! ask only for `stored` would wait for it. The disk's other work ahead of time is done here too.

use super::Engine;
use super::spans::Commit;
use crate::clock::Nanos;
use crate::storage::StorageError;
use crate::wal::watermarks::Progress;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

/// What is stored and not synced is synced at the latest after so long, in milliseconds.
const SYNC_AGE_MS: u64 = 1_000;
/// Or when it is so much: the next sync that somebody waits for is to be short.
pub(super) const UNSYNCED_BYTES: u64 = 4 << 20;
/// How often the age is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long the medium is left to others after a piece of what is done ahead of time.
const PAUSE: Duration = Duration::from_millis(2);

/// The syncer, as others see it.
#[derive(Debug, Default)]
pub(super) struct Syncer {
    thread: OnceLock<Thread>,
    is_stopping: AtomicBool,
}

impl Syncer {
    /// Has it look at once, if `is_due`.
    pub(super) fn wake_if(&self, is_due: bool) {
        if is_due && let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl Engine {
    /// Syncs now and then until [`Engine::stop_syncing`], or until the disk fails.
    pub fn keep_synced(&self) {
        let _ = self.syncer.thread.set(std::thread::current());
        let syncing = || self.sync_until_stopped();
        match catch_unwind(AssertUnwindSafe(syncing)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(&error),
            Err(_) => self
                .fail(&StorageError::new("the syncer", "stopped unexpectedly; restart the broker")),
        }
        self.wake_committer();
    }

    /// Has the syncer end. Call it when the committer has ended.
    pub fn stop_syncing(&self) {
        self.syncer.is_stopping.store(true, Ordering::Release);
        self.syncer.wake_if(true);
    }

    fn sync_until_stopped(&self) -> Result<(), StorageError> {
        while !self.syncer.is_stopping.load(Ordering::Acquire) && !self.watermarks.has_failed() {
            self.slow.tell_left_out(self.since_boot());
            let is_busy = self.disk.preallocate(self.space.free_bytes());
            if !self.is_sync_due() {
                std::thread::park_timeout(if is_busy { PAUSE } else { TICK });
                continue;
            }
            let before = self.watermarks.progress();
            let (stored, (now, began)) = (before.stored, self.clock.now_and_since_boot());
            self.counters.unsynced_bytes.set(0);
            self.disk.sync()?;
            self.note_sync(&before, began);
            self.watermarks.committed(stored, stored);
            // A record is counted before it is stored, and may not be on the medium yet.
            let is_all = self.watermarks.progress().stored == stored
                && self.counters.unsynced_bytes.get() == 0;
            self.counters.unsynced_since.set(if is_all { 0 } else { now });
        }
        Ok(())
    }

    /// Notes a sync that `began` then and is done.
    fn note_sync(&self, before: &Progress, began: Nanos) {
        let stored = before.stored;
        self.commits.note(Commit {
            stored,
            stored_before: stored,
            synced: stored,
            synced_before: before.synced,
            began,
            written: began,
            ended: self.since_boot(),
        });
    }

    fn is_sync_due(&self) -> bool {
        let since = self.counters.unsynced_since.get();
        let is_old = since > 0 && self.clock.now().saturating_sub(since) >= SYNC_AGE_MS;
        is_old || self.counters.unsynced_bytes.get() >= UNSYNCED_BYTES
    }
}
