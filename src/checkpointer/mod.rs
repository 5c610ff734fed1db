//! The checkpointer: threads that bring the tables up to date behind the log, with the last value
//! of each key only.
//!
//! A checkpoint passes over the keys whose rows are out of date and writes the current value of
//! each, in key order. Only then do the records leave the queue, and only then may the log be
//! trimmed. So a checkpointer that fails loses nothing (LeakDB's requeue): a restart replays the
//! log.

mod compactor;

pub use compactor::{Compactor, DEAD_BYTES_MIN};

use crate::clock::Clock;
use crate::config::RetainConfig;
use crate::protocol::change::ChangeReader;
use crate::protocol::{ChangeBuffer, Seq};
use crate::state::checkpoint::Checkpoint;
use crate::storage::{Durability, Row, Storage, StorageError};
use crate::wal::queue::{Due, Work};
use crate::wal::tables::{self, meta};
use crate::wal::{Checkpoints, Compaction, DiskSpace, Segments, Watermarks, WriteQueue};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Up to this many rows go through the disk's own journal; more rows, or larger ones, are written
/// directly as sorted files.
const FEW_ROWS: usize = 10_000;
const FEW_BYTES: usize = 8 << 20;
/// Rows in one batch: other writers wait for the disk no longer than one batch takes.
const BATCH_ROWS: usize = 1024;
/// How often a checkpoint is retried when the disk has no room for it.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(100);
/// A checkpoint of fewer keys than this is not shared between threads.
const SHARE_FROM: usize = 50_000;

/// What the checkpointer needs.
#[derive(Debug, Clone)]
pub struct Checkpointer {
    /// Where the tables are.
    pub disk: Arc<dyn Storage>,
    /// The keys whose rows in the tables are out of date.
    pub checkpoints: Arc<dyn Checkpoints>,
    /// The write queue, which holds the work to do.
    pub queue: Arc<WriteQueue>,
    /// The watermarks to advance.
    pub watermarks: Arc<Watermarks>,
    /// The log segments that can be trimmed after a checkpoint.
    pub segments: Arc<Segments>,
    /// The compactor's requests: a checkpoint notifies the compactor that space may be reclaimable.
    pub compaction: Arc<Compaction>,
    /// The free space of the disk.
    pub space: Arc<DiskSpace>,
    /// How much of the log is retained although it could be trimmed.
    pub retain: RetainConfig,
    /// The clock for the age of the log.
    pub clock: Clock,
    /// How many threads share a checkpoint.
    pub threads: usize,
}

impl Checkpointer {
    /// Checkpoints what the queue holds now, before the broker does anything else. If the disk is
    /// too full for that, the checkpoint is postponed: the log at least is made durable.
    pub fn catch_up(&self) -> Result<(), StorageError> {
        match self.queue.due() {
            Some(due) if self.has_room() => self.checkpoint(due),
            Some(_) => self.disk.sync(),
            None => Ok(()),
        }
    }

    /// Whether the largest possible output of a checkpoint fits on the disk.
    fn has_room(&self) -> bool {
        let (_, bytes) = self.queue.load();
        self.space.fits((bytes as u64).min(self.checkpoints.live_bytes()))
    }

    /// Waits a while, in which space may be freed on the disk. Returns false at a stop: the rest
    /// then stays in the log and reaches the tables after the next start.
    fn wait_for_room(&self) -> bool {
        std::thread::sleep(NO_ROOM_PAUSE);
        !self.queue.is_closed()
    }

    /// Runs checkpoints until the queue is closed and empty, or the disk fails.
    pub fn run(&self) {
        while let Some(work) = self.queue.wait_for_work() {
            if matches!(work, Work::Checkpoint(_)) && !self.has_room() {
                if self.wait_for_room() {
                    continue;
                }
                return;
            }
            let checkpoint = catch_unwind(AssertUnwindSafe(|| match work {
                Work::Checkpoint(due) => self.checkpoint(due),
                // The age of the retained log may have passed its limit.
                Work::Nothing => self.trim(self.watermarks.progress().checkpointed),
            }));
            if let Err(error) = checkpoint.unwrap_or_else(|_| Err(panicked())) {
                if self.watermarks.fail(&error) {
                    // Notify the writers that wait for room.
                    self.queue.give_back(0, 0);
                }
                return;
            }
        }
    }

    fn checkpoint(&self, due: Due) -> Result<(), StorageError> {
        let Due { last_seq, records } = due;
        let (items, _) = self.queue.load();
        // Live bytes of the rows that the tables hold when the checkpoint is done.
        let live_bytes = self.checkpoints.live_bytes();
        let parts = if items < SHARE_FROM { 1 } else { self.threads.max(1) };
        std::thread::scope(|scope| {
            let mut checkpoints = self.checkpoints.begin(parts);
            let own = checkpoints.pop();
            let share = |checkpoint| scope.spawn(move || self.share(checkpoint));
            let others: Vec<_> = checkpoints.into_iter().map(share).collect();
            let own = own.map_or(Ok(()), |checkpoint| self.share(checkpoint));
            let join =
                others.into_iter().map(|other| other.join().unwrap_or_else(|_| Err(panicked())));
            join.fold(own, Result::and)
        })?;
        let mut facts = self.segments.take_notes();
        facts.push(tables::number_row(meta::CHECKPOINTED, last_seq));
        facts.push(tables::number_row(meta::CLOCK, self.clock.now()));
        facts.push(tables::number_row(meta::ITEMS, self.checkpoints.keys() as u64));
        self.disk.commit(facts, Durability::Buffered)?;
        // The log may be trimmed only when its replacement is on the disk.
        self.disk.sync()?;
        self.watermarks.committed(last_seq, last_seq);
        // A client that waits for the tables must find these records gone from the queue.
        self.queue.done(records);
        self.watermarks.checkpointed(last_seq);
        self.trim(last_seq)?;
        self.compaction.checkpointed(live_bytes);
        Ok(())
    }

    fn trim(&self, last_seq: Seq) -> Result<(), StorageError> {
        // A full disk retains no history.
        let retain = match self.space.is_full() {
            true => RetainConfig { bytes: 0, age_ms: 0, ..self.retain },
            false => self.retain,
        };
        let now = self.clock.now();
        let dropped = self.segments.trim(self.disk.as_ref(), last_seq, retain, now)?;
        if dropped > 0 {
            tracing::debug!(dropped, last_seq, "trimmed the log");
        }
        Ok(())
    }

    /// Writes the current values of the keys of one range to the tables.
    fn share(&self, mut checkpoint: Checkpoint) -> Result<(), StorageError> {
        let mut changes = ChangeBuffer::default();
        let mut rows = Vec::new();
        let mut bytes = 0;
        let mut goes_on = true;
        while goes_on && rows.len() < FEW_ROWS && bytes < FEW_BYTES {
            goes_on = self.next_rows(&mut checkpoint, &mut changes, &mut rows);
            bytes += changes.bytes().len();
        }
        if !goes_on {
            return self.commit(rows);
        }
        self.disk.load(&mut || {
            while goes_on && rows.is_empty() {
                goes_on = self.next_rows(&mut checkpoint, &mut changes, &mut rows);
            }
            if !rows.is_empty() {
                return Ok(std::mem::take(&mut rows));
            }
            self.checkpoints.wait_logged()?;
            Ok(Vec::new())
        })
    }

    /// Appends the next rows of a checkpoint to the batch. Returns false at the end of the
    /// checkpoint.
    fn next_rows(
        &self,
        checkpoint: &mut Checkpoint,
        changes: &mut ChangeBuffer,
        rows: &mut Vec<Row<'static>>,
    ) -> bool {
        changes.clear();
        let goes_on = self.checkpoints.next(checkpoint, changes);
        changes.fill();
        // This process made the bytes.
        let changes = ChangeReader::new(changes.bytes()).map_while(Result::ok);
        rows.extend(changes.map(|change| tables::row(&change)));
        goes_on
    }

    fn commit(&self, mut rows: Vec<Row<'static>>) -> Result<(), StorageError> {
        // The tables must not show a write that the log does not have.
        self.checkpoints.wait_logged()?;
        while !rows.is_empty() {
            let rest = rows.split_off(rows.len().min(BATCH_ROWS));
            self.disk.commit(std::mem::replace(&mut rows, rest), Durability::Buffered)?;
        }
        Ok(())
    }
}

fn panicked() -> StorageError {
    StorageError::new("the checkpointer", "stopped unexpectedly; its items are kept")
}
