//! The compactor: one thread that has the store take no more room than its live data warrants.
//!
//! Rows that were replaced or deleted stay in the tables until somebody writes them anew without.
//! What is live the map knows, and what is on the medium the disk; when more is dead than live,
//! and that is worth it, the tables are compacted. docs/decisions/040-store-format.md says why so.

use crate::disk::{Disk, DiskError, DiskUsage};
use crate::log::compaction::{Compaction, Task};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// So few dead bytes are not worth a compaction.
pub const DEAD_BYTES_MIN: u64 = 16 << 20;
/// How often the room is looked at, when nobody asks for it.
const LOOK_AGE: Duration = Duration::from_secs(1);

/// What a compactor needs.
#[derive(Debug)]
pub struct Compactor {
    disk: Arc<dyn Disk>,
    compaction: Arc<Compaction>,
    /// Dead bytes that the last compaction left, or met when it failed: until there are twice as
    /// many, another one would do no better.
    left: u64,
}

impl Compactor {
    /// One for a store whose log is in the tables, with rows of `live_bytes`.
    pub fn new(disk: Arc<dyn Disk>, compaction: Arc<Compaction>, live_bytes: u64) -> Self {
        compaction.checkpointed(live_bytes);
        let compactor = Self { disk, compaction, left: 0 };
        compactor.look();
        compactor
    }

    /// Measures what the store takes.
    fn look(&self) -> DiskUsage {
        let usage = self.disk.usage();
        self.compaction.looked(usage);
        usage
    }

    /// Looks, and compacts when it is due or asked for, until it is told to end.
    pub fn run(mut self) {
        while let Some(task) = self.compaction.wait(LOOK_AGE) {
            if let Err(error) = guarded(|| self.disk.shrink()) {
                tracing::warn!("{error}");
            }
            let usage = self.look();
            if task == Task::Compact || self.is_due(usage) {
                self.compact();
            }
        }
    }

    fn dead_bytes(&self, usage: DiskUsage) -> u64 {
        usage.tables.saturating_sub(self.compaction.live_bytes())
    }

    fn is_due(&self, usage: DiskUsage) -> bool {
        let least = DEAD_BYTES_MIN.max(self.compaction.live_bytes()).max(2 * self.left);
        self.dead_bytes(usage) > least
    }

    fn compact(&mut self) {
        self.compaction.begin();
        let done = guarded(|| self.disk.compact());
        let usage = self.disk.usage();
        self.left = self.dead_bytes(usage);
        match &done {
            Ok(()) => tracing::info!(table_bytes = usage.tables, "compacted the tables"),
            Err(error) => tracing::warn!("the tables are as they were: {error}"),
        }
        self.compaction.end(usage, done.err());
    }
}

/// A panic is an error here: nothing but room is lost when the compactor fails.
fn guarded(work: impl FnOnce() -> Result<(), DiskError>) -> Result<(), DiskError> {
    let panicked = || DiskError::new("compacting", "stopped unexpectedly");
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked()))
}
