//! The log of a damaged store, copied to a new one: every readable record is copied, and the last
//! change of each key is kept for its row.

use super::check::{Checked, Place, seq_of};
use super::holes::Hole;
use super::record::Record;
use super::segments::Segment;
use super::tables::{self, FORMAT_VERSION, meta};
use super::touches::Touches;
use crate::limits::SEQ_RESERVE;
use crate::protocol::Seq;
use crate::storage::{Durability, Row, Space, Storage, StorageError, StoreView};
use std::collections::BTreeMap;

/// Rows in one batch, and their bytes.
pub(super) const BATCH_ROWS: usize = 1024;
const BATCH_BYTES: usize = 4 << 20;
/// A segment of the new log is closed when it holds this many bytes of records.
const SEGMENT_BYTES: u64 = 4 << 20;

/// What the repair did about the faults.
#[derive(Debug, Default)]
pub struct Repaired {
    /// Faults repaired without a loss.
    pub mended: Vec<String>,
    /// Losses.
    pub lost: Vec<String>,
}

/// The last change of a key in the log: its seq, and the row that it makes.
pub(super) type Change = (Seq, Option<Vec<u8>>);

/// The readable part of a damaged store's log.
pub(super) struct DamagedLog {
    /// The history shows no seq below this.
    begins: Seq,
    pub(super) checkpointed: Seq,
    /// No seq above this was used, as far as is known.
    ceiling: Seq,
    /// The last change of each key.
    pub(super) changes: BTreeMap<Vec<u8>, Change>,
    /// Later changes that only move the times of expiry.
    pub(super) touches: Touches,
    holes: Vec<Hole>,
    segments: Vec<Segment>,
    last_seq: Seq,
    last_time: u64,
    /// Whether the log has every write that was ever made.
    pub(super) is_complete: bool,
    /// Whether the tables hold every write that they claim to hold.
    pub(super) is_table_whole: bool,
}

impl DamagedLog {
    pub(super) fn new(old: &StoreView, checked: &Checked) -> Result<Self, StorageError> {
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

    /// Copies every readable record.
    pub(super) fn copy(
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

    /// The seq at which the history of `record`, its first record, begins. Earlier writes may have
    /// left no trace, unless something is missing there.
    fn first_id(&self, record: &Record) -> Seq {
        match self.holes.iter().any(|hole| hole.last + 1 >= self.begins) {
            false if self.begins > 0 && self.begins <= record.first_seq => self.begins,
            _ => record.first_seq,
        }
    }

    /// Whether a change of a key after `seq` may be missing.
    pub(super) fn has_hole_after(&self, seq: Seq) -> bool {
        self.holes.iter().any(|hole| hole.last > seq)
    }

    pub(super) fn say_holes(&self, done: &mut Repaired) {
        for Hole { first, last } in &self.holes {
            let what = match *last <= self.checkpointed && self.is_table_whole {
                true => "from the history; the tables have their writes",
                false => "; keys that they wrote may be missing, or have older values",
            };
            let comma = if what.starts_with(';') { "" } else { " " };
            done.lost.push(format!("the records of seq {first} to {last}{comma}{what}"));
        }
    }

    pub(super) fn write_facts(
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
        // Without the ceiling's note, seqs may have been used without a trace.
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
