//! The compactor: one thread that has the store take no more room than its live data warrants.
//!
//! Rows that were replaced or deleted stay in the tables until somebody writes them anew without.
//! What is live the map knows, and what is on the medium the disk; when more is dead than live,
//! and that is worth it, the tables are compacted. docs/decisions/040-store-format.md says why so.

use crate::storage::{Storage, StorageError, StorageUsage};
use crate::wal::compaction::{Compaction, Task};
use crate::wal::{DiskSpace, WriteQueue};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So few dead bytes are not worth a compaction.
pub const DEAD_BYTES_MIN: u64 = 16 << 20;
/// The same on a full medium.
const FULL_DEAD_BYTES_MIN: u64 = 1 << 20;
/// Between two compactions that are asked for there is so many times what the first one took.
const REST_FACTOR: u32 = 9;
const REST_LOOK: Duration = Duration::from_millis(20);
/// How often the room is looked at, when nobody asks for it.
const LOOK_AGE: Duration = Duration::from_secs(1);

/// What a compactor needs.
#[derive(Debug)]
pub struct Compactor {
    disk: Arc<dyn Storage>,
    compaction: Arc<Compaction>,
    space: Arc<DiskSpace>,
    queue: Arc<WriteQueue>,
    left: Remainder,
    /// When the last compaction ended, and how long it took.
    last: Option<(Instant, Duration)>,
}

/// Dead bytes that the last compaction left, or met when it failed: until there are twice as many,
/// another one would do no better.
#[derive(Debug, Default)]
struct Remainder {
    /// Bytes of the tables then.
    tables: u64,
    dead: u64,
}

impl Remainder {
    /// What is live is known at the end of a checkpoint, and the compaction may have run during
    /// one: what its rows take of the tables was not dead.
    fn learn(&mut self, live: u64) {
        self.dead = self.dead.min(self.tables.saturating_sub(live));
    }
}

impl Compactor {
    /// One that has not looked yet.
    pub fn new(
        disk: Arc<dyn Storage>,
        compaction: Arc<Compaction>,
        space: Arc<DiskSpace>,
        queue: Arc<WriteQueue>,
    ) -> Self {
        Self { disk, compaction, space, queue, left: Remainder::default(), last: None }
    }

    /// Measures what the store takes.
    pub fn look(&self) -> StorageUsage {
        if let Some(room) = self.disk.room() {
            self.space.measured(room, self.queue.load().1 as u64);
        }
        let usage = self.disk.usage();
        self.compaction.looked(usage);
        usage
    }

    /// Looks, and compacts when it is due or asked for, until it is told to end.
    pub fn run(mut self) {
        while let Some(task) = self.compaction.wait(LOOK_AGE) {
            if let Err(error) = guarded(|| self.disk.keep_house()) {
                tracing::warn!("{error}");
            }
            let usage = self.look();
            self.left.learn(self.compaction.live_bytes());
            if self.is_due(usage) || (task == Task::Compact && self.has_rested()) {
                self.compact();
            } else if task == Task::Compact {
                std::thread::sleep(REST_LOOK);
            }
        }
    }

    fn dead_bytes(&self, usage: StorageUsage) -> u64 {
        usage.tables.saturating_sub(self.compaction.live_bytes())
    }

    fn is_due(&self, usage: StorageUsage) -> bool {
        let live = self.compaction.live_bytes();
        let least = match self.space.is_full() {
            true => FULL_DEAD_BYTES_MIN.max(live / 8),
            false => DEAD_BYTES_MIN.max(live),
        };
        self.dead_bytes(usage) > least.max(2 * self.left.dead) && self.space.fits(live)
    }

    /// Whoever asks for compactions, one after the other, gets a part of the medium's time only.
    fn has_rested(&self) -> bool {
        self.last.is_none_or(|(ended, took)| ended.elapsed() >= took * REST_FACTOR)
    }

    fn compact(&mut self) {
        let began = Instant::now();
        self.compaction.begin();
        let done = guarded(|| self.disk.compact());
        let usage = self.disk.usage();
        self.left = Remainder { tables: usage.tables, dead: self.dead_bytes(usage) };
        match &done {
            Ok(()) => tracing::info!(table_bytes = usage.tables, "compacted the tables"),
            Err(error) => tracing::warn!("the tables are as they were: {error}"),
        }
        self.last = Some((Instant::now(), began.elapsed()));
        self.compaction.end(usage, done.err());
    }
}

/// A panic is an error here: nothing but room is lost when the compactor fails.
fn guarded(work: impl FnOnce() -> Result<(), StorageError>) -> Result<(), StorageError> {
    let panicked = || StorageError::new("compacting", "stopped unexpectedly");
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_checkpoint_was_writing_during_a_compaction_is_not_dead_for_good() {
        let mut left = Remainder { tables: 100, dead: 100 };
        left.learn(0);
        assert_eq!(left.dead, 100, "nothing new is known");
        left.learn(95);
        assert_eq!(left.dead, 5);
        left.learn(10);
        assert_eq!(left.dead, 5, "what died since can be removed");
    }
}
