//! The write-ahead log: one record holds each group commit, and the log is trimmed of what the
//! tables hold.
//!
//! A record is one group commit: everything that was pending, kept whole or not at all. Its key is
//! the first seq in it, big-endian, so a scan returns the writes in order.

pub mod archive;
pub mod archive_reader;
pub mod check;
pub mod checkpoints;
pub mod compaction;
mod damaged_log;
pub mod disk_space;
pub mod feed;
pub mod history;
pub mod holes;
pub mod queue;
pub mod record;
pub mod repair;
pub mod restore;
mod salvage;
pub mod segments;
pub mod tables;
mod touches;
mod waiters;
pub mod watermarks;

pub use checkpoints::Checkpoints;
pub use compaction::Compaction;
pub use disk_space::DiskSpace;
pub use feed::Feed;
pub use queue::WriteQueue;
pub use record::Record;
pub use segments::{Segment, Segments};
pub use watermarks::Watermarks;

use crate::limits::SEQ_RESERVE;
use crate::protocol::Seq;
use crate::storage::{Durability, Row, Space, Storage, StorageError};
use std::sync::Arc;

/// The end of the log, where one thread appends.
#[derive(Debug)]
pub struct Log {
    disk: Arc<dyn Storage>,
    segments: Arc<Segments>,
    /// A segment is closed, and a new one begun, at this many bytes of records.
    segment_bytes: u64,
    /// No seq above this is guaranteed to be unused after a crash.
    ceiling: Seq,
    has_unsynced: bool,
}

impl Log {
    /// Opens the log for appending after `seq`, in a segment of its own.
    pub fn open(
        disk: Arc<dyn Storage>,
        mut kept: Vec<Segment>,
        seq: Seq,
        segment_bytes: u64,
    ) -> Result<Self, StorageError> {
        let id = seq + 1;
        let ceiling = seq.saturating_add(SEQ_RESERVE);
        let mut rows = vec![tables::ceiling_row(ceiling)];
        if kept.last().is_none_or(|last| last.id != id) {
            // All notes are rewritten: a note may name records that a power failure lost, since a
            // note and its records are not made durable together. The counts here come from the
            // records.
            rows.extend(kept.iter().map(Segment::row));
            rows.push(Segment::new(id).row());
            kept.push(Segment::new(id));
        }
        disk.commit(rows, Durability::Fsynced)?;
        let holes = holes::Hole::read_all(disk.as_ref())?;
        let segments = Arc::new(Segments::new(kept).with_holes(holes));
        segments.sweep(disk.as_ref())?;
        Ok(Self { disk, segments, segment_bytes, ceiling, has_unsynced: false })
    }

    /// The segments, for the thread that trims them.
    pub fn segments(&self) -> Arc<Segments> {
        Arc::clone(&self.segments)
    }

    /// Whether an appended record is not synced yet.
    pub fn has_unsynced(&self) -> bool {
        self.has_unsynced
    }

    /// Appends one record, whole or not at all. When this returns, the operating system has the
    /// record; with `sync` set to `Fsynced`, the disk has it.
    pub fn append(&mut self, record: &Record, sync: Durability) -> Result<(), StorageError> {
        self.append_in_steps(record, sync, &mut || {})
    }

    /// The same; `written` is called when it is with the system, and only the medium is waited for.
    pub fn append_in_steps(
        &mut self,
        record: &Record,
        sync: Durability,
        written: &mut dyn FnMut(),
    ) -> Result<(), StorageError> {
        // Writes that are not persisted use up seqs too. No seq above the ceiling may become
        // visible before the new ceiling is on the disk; half of the reserve is left when it gets
        // there.
        if record.last_seq.saturating_add(SEQ_RESERVE / 2) > self.ceiling {
            let ceiling = record.last_seq.saturating_add(SEQ_RESERVE);
            self.disk.commit(vec![tables::ceiling_row(ceiling)], Durability::Fsynced)?;
            self.ceiling = ceiling;
        }
        if let Some(encoded) = record.encode() {
            self.place(record, encoded.len() as u64);
            let key = record.first_seq.to_be_bytes().to_vec();
            let row = Row { space: Space::Log, key, value: Some(encoded.into()) };
            self.disk.commit_in_steps(vec![row], sync, written)?;
            self.has_unsynced = sync == Durability::Buffered;
        } else if sync == Durability::Fsynced {
            self.sync()?;
        }
        Ok(())
    }

    /// Whether a record up to `last_seq` can be appended now, unsynced, without waiting for the
    /// disk.
    pub fn appends_at_once(&self, last_seq: Seq) -> bool {
        last_seq.saturating_add(SEQ_RESERVE / 2) <= self.ceiling && self.disk.appends_at_once()
    }

    /// Makes all appended records survive a power failure.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        if self.has_unsynced {
            self.disk.sync()?;
            self.has_unsynced = false;
        }
        Ok(())
    }

    /// Counts `record` into the last segment; a full segment is closed, and a new one begun.
    ///
    /// The checkpointer writes the notes of this later: an appender must not wait for their effect
    /// on the tables. If notes are lost and records are not, those records count into the segment
    /// before. If notes stay and records are lost, the records were not in the tables; so a restart
    /// reads the segment and rewrites its note.
    fn place(&self, record: &Record, bytes: u64) {
        let mut list = self.segments.list();
        if let Some(full) = list.back().filter(|last| last.bytes >= self.segment_bytes).copied() {
            let begun = Segment::new(record.first_seq);
            self.segments.note(full, begun);
            list.push_back(begun);
        }
        if let Some(segment) = list.back_mut() {
            segment.last_seq = record.last_seq;
            segment.last_time = record.last_time;
            segment.bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::change::Op;
    use crate::protocol::{ChangeBuffer, Level};
    use crate::storage::MemoryStorage;

    fn record(seq: Seq, level: Level) -> Record {
        let mut pending = ChangeBuffer::default();
        let mark = pending.begin(seq, level, 0);
        pending.push(Op::Set, false, None, b"k", b"\x01");
        pending.end(mark);
        Record::new(pending)
    }

    #[test]
    fn no_seq_is_assigned_twice_whatever_level_used_it() {
        for level in [Level::Memory, Level::Queued] {
            let disk: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
            let mut log = Log::open(Arc::clone(&disk), vec![], 0, 1 << 20).unwrap();
            for seq in (1..SEQ_RESERVE * 3).step_by(SEQ_RESERVE as usize / 4) {
                log.append(&record(seq, level), Durability::Buffered).unwrap();
                let ceiling = tables::number(disk.as_ref(), tables::meta::CEILING).unwrap();
                assert!(ceiling >= Some(seq), "{level}: {seq} is above {ceiling:?}");
            }
        }
    }

    #[test]
    fn the_note_of_a_segment_that_lost_records_is_rewritten() {
        let disk: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
        let noted = Segment { id: 1, last_seq: 9, last_time: 5, bytes: 90 };
        let begun = Segment::new(10);
        disk.commit(vec![noted.row(), begun.row()], Durability::Fsynced).unwrap();
        // The counts of a restart: a power failure lost the last records, and not the note.
        let counted = Segment { last_seq: 7, bytes: 70, ..noted };
        Log::open(Arc::clone(&disk), vec![counted, begun], 99, 1 << 20).unwrap();
        let kept = Segment::read_all(disk.as_ref()).unwrap();
        assert_eq!(kept, [counted, begun, Segment::new(100)]);
    }
}
