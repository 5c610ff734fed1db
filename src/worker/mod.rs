//! The workers: they bring the tables up to date behind the log, with the last value of each key
//! only.
//!
//! A round takes every record in the queue, shares the keys among the workers by their hash, and
//! makes the tables hold the round's last value of each. Only then do the records leave the queue
//! and may the log be trimmed, so a worker that fails loses nothing (LeakDB's requeue): a restart
//! has the log.

use crate::clock::Clock;
use crate::config::RetainConfig;
use crate::disk::{Disk, DiskError, Row, Sync};
use crate::log::tables::{self, meta};
use crate::log::{Record, Segments, Watermarks, WriteQueue};
use crate::wire::{Change, Seq};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Rows in one batch: the disk is locked for other writers no longer than one takes.
const BATCH_ROWS: usize = 1024;
/// Below so many changes a round is not worth sharing.
const SHARE_FROM: usize = 2_000;

/// What a worker needs.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Where the tables are.
    pub disk: Arc<dyn Disk>,
    /// What there is to do.
    pub queue: Arc<WriteQueue>,
    /// Whom to tell.
    pub watermarks: Arc<Watermarks>,
    /// What can be trimmed afterwards.
    pub segments: Arc<Segments>,
    /// How much of the log stays all the same.
    pub retain: RetainConfig,
    /// What the age of the log is measured with.
    pub clock: Clock,
    /// How many threads share a round.
    pub threads: usize,
}

impl Worker {
    /// Works off what the queue holds now, before anything else does.
    pub fn catch_up(&self) -> Result<(), DiskError> {
        let records = self.queue.snapshot();
        self.round(&records)
    }

    /// Works until the queue is closed and empty, or the disk fails.
    pub fn run(&self) {
        while let Some(records) = self.queue.wait_for_round() {
            let panicked =
                || DiskError::new("a worker", "stopped unexpectedly; its items are kept");
            let round = catch_unwind(AssertUnwindSafe(|| self.round(&records)));
            if let Err(error) = round.unwrap_or_else(|_| Err(panicked())) {
                self.watermarks.fail(error.text());
                // Writers that wait for room are to hear of it.
                self.queue.give_back(0, 0);
                return;
            }
        }
    }

    fn round(&self, records: &[Arc<Record>]) -> Result<(), DiskError> {
        let Some(last_seq) = records.iter().map(|record| record.last_seq).max() else {
            return Ok(());
        };
        let changes: usize = records.iter().map(|record| record.items).sum();
        let shares = if changes < SHARE_FROM { 1 } else { self.threads.max(1) };
        if shares == 1 {
            self.share(records, 0, 1, &RandomState::new())?;
        } else {
            self.share_out(records, shares)?;
        }
        self.disk.commit(vec![tables::number_row(meta::IN_TABLES, last_seq)], Sync::Buffer)?;
        // The log may be trimmed only when what replaces it is on the medium.
        self.disk.sync()?;
        self.watermarks.committed(last_seq, last_seq);
        // Who waits for the tables is to find the queue without what is in them.
        self.queue.done(records.len());
        self.watermarks.tabled(last_seq);
        self.trim(last_seq)
    }

    fn trim(&self, last_seq: Seq) -> Result<(), DiskError> {
        let dropped =
            self.segments.trim(self.disk.as_ref(), last_seq, self.retain, self.clock.now())?;
        if dropped > 0 {
            tracing::debug!(dropped, last_seq, "trimmed the log");
        }
        Ok(())
    }

    fn share_out(&self, records: &[Arc<Record>], shares: usize) -> Result<(), DiskError> {
        let hasher = RandomState::new();
        std::thread::scope(|scope| {
            let hasher = &hasher;
            let workers: Vec<_> = (0..shares)
                .map(|share| scope.spawn(move || self.share(records, share, shares, hasher)))
                .collect();
            let panicked =
                || DiskError::new("a worker", "stopped unexpectedly; its items are kept");
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(panicked())))
        })
    }

    /// Brings the keys of one share up to date.
    fn share(
        &self,
        records: &[Arc<Record>],
        share: usize,
        shares: usize,
        hasher: &RandomState,
    ) -> Result<(), DiskError> {
        let mut last: HashMap<&[u8], Change<'_>> = HashMap::new();
        for change in records.iter().flat_map(|record| record.persisted()) {
            if shares == 1 || hasher.hash_one(change.key) % shares as u64 == share as u64 {
                last.insert(change.key, change);
            }
        }
        let mut changes: Vec<Change<'_>> = last.into_values().collect();
        changes.sort_unstable_by_key(|change| change.key);
        for batch in changes.chunks(BATCH_ROWS) {
            let rows: Vec<Row<'_>> = batch.iter().map(tables::row).collect();
            self.disk.commit(rows, Sync::Buffer)?;
        }
        Ok(())
    }
}
