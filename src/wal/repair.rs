//! A damaged store made anew: everything of it that can be read goes into a new one, and each loss
//! is said.
//!
//! Every row and every change has its seq, and the greater one holds. So rows that cannot be read
//! are made of the log as far as it reaches, and writes that the log lost are in the tables if they
//! got there. What is in neither is lost: the state after a repair is everything that was found,
//! and no longer a prefix of the writes. Holes in the history are noted, and shown to who reads it.

use super::check::{Checked, Place, check, seq_of};
use super::holes::Hole;
use super::record::Record;
use super::salvage::OldTables;
use super::segments::Segment;
use super::tables::{self, FORMAT_VERSION, meta};
use super::touches::Touches;
use crate::limits::SEQ_RESERVE;
use crate::protocol::Seq;
use crate::storage::files;
use crate::storage::{Durability, FjallStorage, Row, Space, Storage, StorageError, StoreView};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Rows in one batch, and their bytes.
pub(super) const BATCH_ROWS: usize = 1024;
const BATCH_BYTES: usize = 4 << 20;
/// A segment of the new log is closed when it has so many bytes of records.
const SEGMENT_BYTES: u64 = 4 << 20;

/// What was done about the faults.
#[derive(Debug, Default)]
pub struct Repaired {
    /// What was put right without a loss.
    pub mended: Vec<String>,
    /// What is gone.
    pub lost: Vec<String>,
}

/// A repair that came to its end.
#[derive(Debug)]
pub struct Ended {
    /// What was done.
    pub done: Repaired,
    /// What the new store holds.
    pub checked: Checked,
    /// Where the damaged store is now.
    pub kept: PathBuf,
}

/// Makes the store at `path` anew of what can be read of it, which `old` shows, and in which a
/// check found `checked`. The new one is checked before it takes the place of the old one, which is
/// kept. The caller holds `old` until this returns, and so its lock.
pub fn repair(
    path: &Path,
    old: &StoreView,
    checked: &Checked,
    report: &mut dyn FnMut(u64),
) -> Result<Ended, StorageError> {
    let failed = |error: std::io::Error| {
        StorageError::new(&format!("the database {} cannot be repaired", path.display()), error)
    };
    let folder = files::begin_repair(path).map_err(failed)?;
    let made = make(&folder, old, checked, report);
    let (done, checked) = made.inspect_err(|_| drop(files::undo_repair(path)))?;
    let kept = files::end_repair(path).map_err(failed)?;
    Ok(Ended { done, checked, kept })
}

fn make(
    folder: &Path,
    old: &StoreView,
    checked: &Checked,
    report: &mut dyn FnMut(u64),
) -> Result<(Repaired, Checked), StorageError> {
    let disk = FjallStorage::open(folder)?;
    let done = rebuild(old, checked, &disk, report)?;
    disk.settle()?;
    drop(disk);
    let (made, faults) = StoreView::open(folder, &mut |_| {})?;
    let checked = check(&made, report)?;
    let rows = checked.faults.iter().map(|fault| format!("{}: {}", fault.place, fault.what));
    match faults.iter().map(ToString::to_string).chain(rows).next() {
        Some(fault) => Err(StorageError::new("the repaired store is not whole either", fault)),
        None => Ok((done, checked)),
    }
}

/// The last change of a key that the log has: its seq, and the row that it makes.
pub(super) type Change = (Seq, Option<Vec<u8>>);

/// Fills `new`, an empty disk, with what can be read of `old`, in which a check found `checked`.
/// `report` hears how many rows and records have been read.
fn rebuild(
    old: &StoreView,
    checked: &Checked,
    new: &dyn Storage,
    report: &mut dyn FnMut(u64),
) -> Result<Repaired, StorageError> {
    let mut log = OldLog::new(old, checked)?;
    log.copy(old, new, report)?;
    // They show themselves when all is read.
    let gaps = old.rows(&mut |_| true)?;
    log.is_table_whole = gaps.is_empty() && !old.lacks_facts();
    let mut tables = OldTables::new(&log, &gaps);
    tables.copy(old, new, report)?;
    let (mut done, items, last_seq) = tables.finish();
    log.touches.apply(new)?;
    log.say_holes(&mut done);
    log.write_facts(old, checked, new, (items, last_seq), &mut done)?;
    Ok(done)
}

/// What the log of the old store comes to.
pub(super) struct OldLog {
    /// No seq below this was shown in the history.
    begins: Seq,
    pub(super) checkpointed: Seq,
    /// No seq above this was used, as far as is known.
    ceiling: Seq,
    /// The last change of each key.
    pub(super) changes: BTreeMap<Vec<u8>, Change>,
    /// What came after them, and changes the times of expiry alone.
    touches: Touches,
    holes: Vec<Hole>,
    segments: Vec<Segment>,
    last_seq: Seq,
    last_time: u64,
    /// Whether it has every write that there ever was.
    pub(super) is_complete: bool,
    /// Whether the tables hold what they say.
    is_table_whole: bool,
}

impl OldLog {
    fn new(old: &StoreView, checked: &Checked) -> Result<Self, StorageError> {
        let noted = Segment::read_all(old)?;
        let ceiling = tables::number(old, meta::CEILING).ok().flatten().unwrap_or(0);
        Ok(Self {
            begins: noted.first().map_or(0, |segment| segment.id),
            checkpointed: checked.checkpointed,
            ceiling: ceiling.max(checked.last_seq),
            changes: BTreeMap::new(),
            touches: Touches::default(),
            holes: Hole::read_all(old)?,
            segments: Vec::new(),
            last_seq: 0,
            last_time: 0,
            is_complete: false,
            is_table_whole: true,
        })
    }

    /// Copies every record that can be read.
    fn copy(
        &mut self,
        old: &StoreView,
        new: &dyn Storage,
        report: &mut dyn FnMut(u64),
    ) -> Result<(), StorageError> {
        let (mut hole, mut first, mut count, mut done) = (None, None, 0_u64, Ok(()));
        let (mut batch, mut bytes) = (Vec::new(), 0);
        old.scan(Space::Log, &[], &mut |key, value| {
            count += 1;
            if count.is_multiple_of(4096) {
                report(count);
            }
            let begins = seq_of(key).unwrap_or(0);
            let read = Record::decode(value).ok();
            let Some(record) = read.filter(|record| record.first_seq > self.last_seq) else {
                hole.get_or_insert(self.last_seq + 1);
                return true;
            };
            first.get_or_insert(begins);
            if let Some(first) = hole.take() {
                self.add_hole(first, begins.saturating_sub(1));
            }
            self.count(&record, value.len() as u64);
            if record.last_seq >= self.begins {
                bytes += value.len();
                let value = Some(value.to_vec().into());
                batch.push(Row { space: Space::Log, key: key.to_vec(), value });
            }
            if batch.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
                bytes = 0;
                done = new.commit(std::mem::take(&mut batch), Durability::Buffered);
            }
            done.is_ok()
        })?;
        done?;
        if !batch.is_empty() {
            new.commit(batch, Durability::Buffered)?;
        }
        if let Some(first) = hole {
            self.add_hole(first, self.ceiling.max(first));
        }
        self.is_complete = self.holes.is_empty() && first == Some(1) && old.has_log_from_start();
        Ok(())
    }

    fn add_hole(&mut self, first: Seq, last: Seq) {
        if first <= last {
            self.holes.push(Hole { first, last });
            self.holes.sort_by_key(|hole| hole.first);
        }
    }

    fn count(&mut self, record: &Record, bytes: u64) {
        for change in record.changes() {
            if self.touches.note(&change) {
                continue;
            }
            let row = tables::row(&change);
            self.changes.insert(row.key, (change.seq, row.value.map(|value| value.into_owned())));
        }
        (self.last_seq, self.last_time) = (record.last_seq, self.last_time.max(record.last_time));
        if record.last_seq < self.begins {
            return;
        }
        if self.segments.last().is_none_or(|last| last.bytes >= SEGMENT_BYTES) {
            let id =
                if self.segments.is_empty() { self.first_id(record) } else { record.first_seq };
            self.segments.push(Segment::new(id));
        }
        if let Some(segment) = self.segments.last_mut() {
            segment.last_seq = record.last_seq;
            segment.last_time = record.last_time;
            segment.bytes += bytes;
        }
    }

    /// Where the history begins that `record` is the first of: earlier writes may have left no
    /// trace, unless something is missing there.
    fn first_id(&self, record: &Record) -> Seq {
        match self.holes.iter().any(|hole| hole.last + 1 >= self.begins) {
            false if self.begins > 0 && self.begins <= record.first_seq => self.begins,
            _ => record.first_seq,
        }
    }

    /// Whether a change of a key that came after `seq` may be missing.
    pub(super) fn has_hole_after(&self, seq: Seq) -> bool {
        self.holes.iter().any(|hole| hole.last > seq)
    }

    fn say_holes(&self, done: &mut Repaired) {
        for Hole { first, last } in &self.holes {
            let what = match *last <= self.checkpointed && self.is_table_whole {
                true => "from the history; the tables have their writes",
                false => "; keys that they wrote may be missing, or have older values",
            };
            let comma = if what.starts_with(';') { "" } else { " " };
            done.lost.push(format!("the records of seq {first} to {last}{comma}{what}"));
        }
    }

    fn write_facts(
        &self,
        old: &StoreView,
        checked: &Checked,
        new: &dyn Storage,
        (items, last_row): (u64, Seq),
        done: &mut Repaired,
    ) -> Result<(), StorageError> {
        let last_seq = self.last_seq.max(last_row).max(checked.last_seq);
        let id = old.get(Space::Meta, meta::STORE_ID.as_bytes())?;
        let id = id.and_then(|id| <[u8; 16]>::try_from(id).ok());
        if id.is_none() {
            done.lost.push("the store's id: it has a new one".to_owned());
        }
        // Without the note of it, seqs may have been used that left no trace.
        let unknown = if old.lacks_facts() || !self.is_table_whole { 2 * SEQ_RESERVE } else { 0 };
        let ceiling = self.ceiling.max(last_seq).saturating_add(unknown);
        let clock = tables::number(old, meta::CLOCK).ok().flatten().unwrap_or(0);
        let mut rows = vec![
            tables::number_row(meta::FORMAT, FORMAT_VERSION),
            tables::store_id_row(id.unwrap_or_else(tables::new_store_id)),
            tables::number_row(meta::CHECKPOINTED, last_seq),
            tables::number_row(meta::ITEMS, items),
            tables::number_row(meta::CLOCK, clock.max(self.last_time)),
            tables::ceiling_row(ceiling),
        ];
        rows.extend(self.segments.iter().map(Segment::row));
        let begins = self.segments.first().map_or(Seq::MAX, |segment| segment.id);
        let is_shown = |hole: &&Hole| hole.last >= begins;
        rows.extend(self.holes.iter().filter(is_shown).map(Hole::row));
        for fault in &checked.faults {
            if let Place::Fact(_) = fault.place {
                done.mended.push(format!("{}: set anew", fault.place));
            }
        }
        new.commit(rows, Durability::Fsynced)?;
        new.sync()
    }
}
