//! The rows of a damaged store, copied to a new one: those that can be read, and those that the log
//! has.

use super::archive_reader::is_value;
use super::check::Place;
use super::damaged_log::{BATCH_ROWS, Change, DamagedLog, Repaired};
use super::tables;
use crate::protocol::{Seq, hex};
use crate::storage::{Gap, Row, Space, Storage, StorageError, StoreView};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Batches that may be read ahead of those that are written.
const BATCHES_AHEAD: usize = 4;
/// A batch is sent on at this many bytes.
const BATCH_BYTES: usize = 1 << 20;
/// How many keys are listed one by one.
const KEYS_LISTED: usize = 100;

/// Copies the rows of the old store to the new one.
pub(super) struct OldTables<'l> {
    log: &'l DamagedLog,
    gaps: &'l [Gap],
    done: Repaired,
    /// Keys whose newest value may be lost.
    doubtful: Vec<Vec<u8>>,
    /// Rows that are missing from the tables.
    from_log: u64,
    items: u64,
    last_seq: Seq,
}

/// A row of the old tables.
struct OldRow {
    key: Vec<u8>,
    value: Vec<u8>,
    may_be_old: bool,
}

impl<'l> OldTables<'l> {
    /// A copier of the old rows; those between `gaps` cannot be read.
    pub(super) fn new(log: &'l DamagedLog, gaps: &'l [Gap]) -> Self {
        let (done, doubtful) = (Repaired::default(), Vec::new());
        Self { log, gaps, done, doubtful, from_log: 0, items: 0, last_seq: 0 }
    }

    /// Copies the rows.
    pub(super) fn copy(
        &mut self,
        old: &StoreView,
        new: &dyn Storage,
        report: &mut dyn FnMut(u64),
    ) -> Result<(), StorageError> {
        let (sender, receiver) = sync_channel(BATCHES_AHEAD);
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || send_rows(old, sender));
            let merged = self.merge(&receiver, new, report);
            drop(receiver);
            let read =
                reader.join().unwrap_or_else(|_| Err(StorageError::new("reading", "panicked")));
            read.and(merged)
        })
    }

    fn merge(
        &mut self,
        rows: &Receiver<Vec<OldRow>>,
        new: &dyn Storage,
        report: &mut dyn FnMut(u64),
    ) -> Result<(), StorageError> {
        let mut changes = self.log.changes.iter().peekable();
        let mut is_read = false;
        let mut next = || {
            let mut out = Vec::new();
            while out.is_empty() && !(is_read && changes.peek().is_none()) {
                // None are left when all have been read.
                let batch = rows.recv().unwrap_or_default();
                is_read |= batch.is_empty();
                for row in batch {
                    while let Some((key, change)) = changes.next_if(|(key, _)| **key < row.key) {
                        out.extend(self.absent(key, change));
                    }
                    let change = changes.next_if(|(key, _)| **key == row.key);
                    out.extend(self.present(row, change.map(|(_, change)| change)));
                }
                while is_read && out.len() < BATCH_ROWS {
                    let Some((key, change)) = changes.next() else { break };
                    out.extend(self.absent(key, change));
                }
            }
            report(self.items);
            out
        };
        let first = next();
        if first.is_empty() {
            return Ok(());
        }
        let mut first = Some(first);
        new.load(&mut || Ok(first.take().unwrap_or_else(&mut next)))
    }

    fn keep(&mut self, key: Vec<u8>, seq: Seq, value: Vec<u8>) -> Row<'static> {
        self.items += 1;
        self.last_seq = self.last_seq.max(seq);
        Row { space: Space::Table, key, value: Some(value.into()) }
    }

    /// The row of a key that is in the log and not in the tables.
    fn absent(&mut self, key: &[u8], (seq, value): &Change) -> Option<Row<'static>> {
        self.last_seq = self.last_seq.max(*seq);
        let value = value.clone()?;
        let is_doubtful = self.log.has_hole_after(*seq);
        if *seq <= self.log.checkpointed {
            let is_in_gap = self.gaps.iter().any(|gap| gap.covers(key));
            if is_doubtful && !is_in_gap {
                // A write that the log lost deleted the key.
                return None;
            }
            self.from_log += 1;
            if is_doubtful {
                self.doubtful.push(key.to_vec());
            }
        }
        Some(self.keep(key.to_vec(), *seq, value))
    }

    /// The row of a key that is in the tables, and perhaps in the log.
    fn present(&mut self, row: OldRow, change: Option<&Change>) -> Option<Row<'static>> {
        let place = Place::Row(row.key.clone());
        let read = tables::decode(&row.key, &row.value).ok();
        let seq = read.filter(|read| is_value(read.value)).map(|read| read.seq);
        match (seq, change) {
            (seq, Some((last, value))) if seq.is_none_or(|seq| seq <= *last) => {
                if seq.is_none_or(|seq| seq < *last) && *last <= self.log.checkpointed {
                    let what = format!("{place}: from the log, as of seq {last}");
                    self.done.mended.push(what);
                }
                self.last_seq = self.last_seq.max(*last);
                value.clone().map(|value| self.keep(row.key, *last, value))
            }
            (Some(seq), _) => {
                if row.may_be_old && !self.log.is_complete && !self.is_unbounded() {
                    self.doubtful.push(row.key.clone());
                }
                Some(self.keep(row.key, seq, row.value))
            }
            (None, _) => {
                self.done.lost.push(format!("{place}: its value, and what it was"));
                None
            }
        }
    }

    /// Whether the set of missing rows is unknown.
    fn is_unbounded(&self) -> bool {
        self.gaps.contains(&Gap::default())
    }

    /// The result, the number of rows, and their greatest seq.
    pub(super) fn finish(self) -> (Repaired, u64, Seq) {
        let mut done = self.done;
        if self.from_log > 0 {
            done.mended.push(format!("{} rows of the tables: from the log", self.from_log));
        }
        if self.log.is_complete {
            return (done, self.items, self.last_seq);
        }
        for gap in self.gaps {
            let what = match (&gap.after, &gap.before) {
                (None, None) => {
                    let what = "rows of the tables, it is not known which: where the log does not \
                                have a key's last write, it may be missing or have an older value";
                    done.lost.push(what.to_owned());
                    continue;
                }
                (Some(after), None) => format!("from key {} on", shown(after)),
                (None, Some(before)) => format!("up to key {}", shown(before)),
                (Some(after), Some(before)) => {
                    format!("between the keys {} and {}", shown(after), shown(before))
                }
            };
            done.lost.push(format!("rows of the tables {what}, where the log does not have them"));
        }
        for key in self.doubtful.iter().take(KEYS_LISTED) {
            let place = Place::Row(key.clone());
            done.lost.push(format!("{place}: what it has may be older than what was lost"));
        }
        if let Some(more) = self.doubtful.len().checked_sub(KEYS_LISTED).filter(|more| *more > 0) {
            done.lost.push(format!("{more} more rows may be older than what was lost"));
        }
        (done, self.items, self.last_seq)
    }
}

/// A key on disk, in readable form.
fn shown(key: &[u8]) -> String {
    match key.split_first().map(|(_, key)| std::str::from_utf8(key)) {
        Some(Ok(text)) if !text.contains(char::is_control) => format!("'{text}'"),
        _ => hex(key),
    }
}

fn send_rows(old: &StoreView, rows: SyncSender<Vec<OldRow>>) -> Result<(), StorageError> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    old.rows(&mut |row| {
        bytes += row.key.len() + row.value.len();
        let (key, value) = (row.key.to_vec(), row.value.to_vec());
        batch.push(OldRow { key, value, may_be_old: row.may_be_old });
        if batch.len() < BATCH_ROWS && bytes < BATCH_BYTES {
            return true;
        }
        bytes = 0;
        rows.send(std::mem::take(&mut batch)).is_ok()
    })?;
    if !batch.is_empty() {
        let _ = rows.send(batch);
    }
    Ok(())
}
