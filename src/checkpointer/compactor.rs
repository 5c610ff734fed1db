//! The compactor: one thread that limits the disk space of the store to what its live data
//! warrants.
//!
//! Replaced and deleted rows stay in the tables until a compaction rewrites the tables without
//! them. The map knows the live bytes, the disk the bytes in use. When more is dead than live, and
//! the dead bytes are worth the work, the tables are compacted. docs/decisions/040-store-format.md
//! gives the reasons.

use crate::storage::{Storage, StorageError, StorageUsage};
use crate::wal::compaction::{Compaction, Task};
use crate::wal::{DiskSpace, WriteQueue};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Fewer dead bytes than this are not worth a compaction.
pub const DEAD_BYTES_MIN: u64 = 16 << 20;
/// The same limit on a full disk.
const FULL_DEAD_BYTES_MIN: u64 = 1 << 20;
/// The pause between two requested compactions, as a multiple of the first one's duration.
const REST_FACTOR: u32 = 9;
const REST_LOOK: Duration = Duration::from_millis(20);
/// How often disk usage is checked when no compaction is requested.
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

/// Dead bytes that the last compaction left, or found when it failed. Until there are twice as
/// many, another compaction would do no better.
#[derive(Debug, Default)]
struct Remainder {
    /// Bytes of the tables at that time.
    tables: u64,
    dead: u64,
}

impl Remainder {
    /// Records the live bytes, known at the end of a checkpoint. A compaction may have run during
    /// that checkpoint: the rows which the checkpoint wrote to the tables were not dead.
    fn learn(&mut self, live: u64) {
        self.dead = self.dead.min(self.tables.saturating_sub(live));
    }
}

impl Compactor {
    /// A compactor that has not measured yet.
    pub fn new(
        disk: Arc<dyn Storage>,
        compaction: Arc<Compaction>,
        space: Arc<DiskSpace>,
        queue: Arc<WriteQueue>,
    ) -> Self {
        Self { disk, compaction, space, queue, left: Remainder::default(), last: None }
    }

    /// Measures the disk space that the store takes.
    pub fn look(&self) -> StorageUsage {
        if let Some(room) = self.disk.room() {
            self.space.measured(room, self.queue.load().1 as u64);
        }
        let usage = self.disk.usage();
        self.compaction.looked(usage);
        usage
    }

    /// Measures, and compacts when a compaction is due or requested, until the queue is closed.
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

    /// Whether enough time has passed since the last compaction: a client that requests one after
    /// another gets only part of the disk's time.
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

/// Runs `work`, and turns a panic into an error: a compactor that fails loses only disk space.
fn guarded(work: impl FnOnce() -> Result<(), StorageError>) -> Result<(), StorageError> {
    let panicked = || StorageError::new("compacting", "stopped unexpectedly");
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_a_checkpoint_writes_during_a_compaction_do_not_count_as_dead() {
        let mut left = Remainder { tables: 100, dead: 100 };
        left.learn(0);
        assert_eq!(left.dead, 100, "nothing new is known");
        left.learn(95);
        assert_eq!(left.dead, 5);
        left.learn(10);
        assert_eq!(left.dead, 5, "what died since can be removed");
    }
}
