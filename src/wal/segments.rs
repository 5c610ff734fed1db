//! The log's segments: ranges of records, their contents, and which may be trimmed.
//!
//! A segment is bookkeeping alone: all records are in one space, ordered by their seqs. The disk
//! divides them into files independently of segments.

use super::holes::{self, Hole};
use super::tables;
use crate::clock::Millis;
use crate::config::RetainConfig;
use crate::protocol::Seq;
use crate::storage::{Durability, Row, Space, Storage, StorageError};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The facts about a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its name: no seq in it is smaller.
    pub id: u64,
    /// The last seq in it.
    pub last_seq: Seq,
    /// The time of its last record.
    pub last_time: Millis,
    /// Bytes of records.
    pub bytes: u64,
}

impl Segment {
    /// A new, empty segment.
    pub fn new(id: u64) -> Self {
        Self { id, last_seq: id.saturating_sub(1), last_time: 0, bytes: 0 }
    }

    pub(super) fn key(id: u64) -> Vec<u8> {
        [tables::meta::SEGMENT.as_bytes(), &id.to_be_bytes()].concat()
    }

    /// The row that keeps these facts, so that a restart need not read the records.
    pub fn row(&self) -> Row<'static> {
        let facts = [self.last_seq, self.last_time, self.bytes];
        let value = facts.iter().flat_map(|fact| fact.to_le_bytes()).collect::<Vec<u8>>();
        Row { space: Space::Meta, key: Self::key(self.id), value: Some(value.into()) }
    }

    /// Reads the rows of all segments, oldest first. The row of the newest one says only that the
    /// segment began.
    pub fn read_all(disk: &dyn Storage) -> Result<Vec<Self>, StorageError> {
        let (prefix, mut found) = (tables::meta::SEGMENT.as_bytes(), Vec::new());
        disk.scan(Space::Meta, prefix, &mut |key, value| {
            let id = key.strip_prefix(prefix).and_then(|id| id.try_into().ok());
            let Some(id) = id.map(u64::from_be_bytes) else { return false };
            let mut facts = value.chunks_exact(8).filter_map(|chunk| chunk.try_into().ok());
            let mut fact = || facts.next().map_or(0, u64::from_le_bytes);
            found.push(Self { id, last_seq: fact(), last_time: fact(), bytes: fact() });
            true
        })?;
        Ok(found)
    }
}

/// The segments, oldest first; shared by the appender, the readers and the trimming thread.
#[derive(Debug, Default)]
pub struct Segments {
    list: Mutex<VecDeque<Segment>>,
    /// Notes to be written about segments that were closed and begun.
    notes: Mutex<Vec<Row<'static>>>,
    /// The holes in them.
    holes: Vec<Hole>,
}

impl Segments {
    /// The segments that a restart found.
    pub fn new(found: Vec<Segment>) -> Self {
        Self { list: Mutex::new(found.into()), ..Self::default() }
    }

    /// The same segments, with `holes` in them.
    pub fn with_holes(self, holes: Vec<Hole>) -> Self {
        Self { holes, ..self }
    }

    /// The next hole after `after`.
    pub fn next_hole(&self, after: Seq) -> Option<Hole> {
        holes::next(&self.holes, after)
    }

    pub(super) fn list(&self) -> MutexGuard<'_, VecDeque<Segment>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notes(&self) -> MutexGuard<'_, Vec<Row<'static>>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues the note that one segment was closed and another begun.
    pub(super) fn note(&self, closed: Segment, begun: Segment) {
        self.notes().extend([closed.row(), begun.row()]);
    }

    /// Takes the notes queued since the last call.
    pub fn take_notes(&self) -> Vec<Row<'static>> {
        std::mem::take(&mut *self.notes())
    }

    /// How many bytes of records the segments hold.
    pub fn bytes(&self) -> u64 {
        self.list().iter().map(|segment| segment.bytes).sum()
    }

    /// The first seq of the held history.
    pub fn first_seq(&self) -> Seq {
        self.list().front().map_or(1, |segment| segment.id)
    }

    /// Drops the oldest segments, as long as the segments after them hold what is to be retained
    /// and `checkpointed` has reached the next segment. Then the tables hold every write of the
    /// dropped ones, and the next segment is noted on the disk. If no segment were noted, or only
    /// one that begins after the end of the tables, a restart could not distinguish trimmed records
    /// from records to replay.
    ///
    /// The caller has made the replacement durable.
    pub fn trim(
        &self,
        disk: &dyn Storage,
        checkpointed: Seq,
        retain: RetainConfig,
        now: Millis,
    ) -> Result<usize, StorageError> {
        let mut dropped = 0;
        loop {
            let mut list = self.list();
            let total: u64 = list.iter().map(|segment| segment.bytes).sum();
            let (Some(oldest), Some(next)) = (list.front().copied(), list.get(1)) else {
                return Ok(dropped);
            };
            if next.id > checkpointed {
                return Ok(dropped);
            }
            let is_over = total - oldest.bytes >= retain.bytes;
            let is_old = retain.age_ms > 0 && oldest.last_time.saturating_add(retain.age_ms) < now;
            if !is_over && !is_old {
                return Ok(dropped);
            }
            list.pop_front();
            drop(list);
            let key = Segment::key(oldest.id);
            // A note still to be written would outlive its segment.
            self.notes().retain(|note| note.key != key);
            let forget = Row { space: Space::Meta, key, value: None };
            disk.commit(vec![forget], Durability::Buffered)?;
            // A reader of the history checks afterwards whether the beginning of its range is still
            // held.
            self.sweep(disk)?;
            dropped += 1;
        }
    }

    /// Removes the records before the first segment.
    pub fn sweep(&self, disk: &dyn Storage) -> Result<(), StorageError> {
        disk.trim_log(self.first_seq())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    fn held(ids: &[u64]) -> (MemoryStorage, Segments) {
        let disk = MemoryStorage::default();
        let record = |id: &u64| Row {
            space: Space::Log,
            key: id.to_be_bytes().to_vec(),
            value: Some(vec![1].into()),
        };
        disk.commit(ids.iter().map(record).collect(), Durability::Fsynced).unwrap();
        let full = |id: &u64| Segment { id: *id, last_seq: id + 9, last_time: id * 100, bytes: 10 };
        (disk, Segments::new(ids.iter().map(full).collect()))
    }

    fn records(disk: &MemoryStorage) -> Vec<u64> {
        let mut found = Vec::new();
        let mut each = |key: &[u8], _: &[u8]| {
            found.push(u64::from_be_bytes(key.try_into().unwrap()));
            true
        };
        disk.scan(Space::Log, &[], &mut each).unwrap();
        found
    }

    #[test]
    fn records_missing_from_the_tables_are_never_trimmed() {
        let (disk, segments) = held(&[1, 11, 21]);
        let nothing = RetainConfig { bytes: 0, age_ms: 0, segment_bytes: 1 };
        assert_eq!(segments.trim(&disk, 15, nothing, 0).unwrap(), 1);
        assert_eq!(records(&disk), [11, 21]);
        assert_eq!(segments.trim(&disk, 99, nothing, 0).unwrap(), 1);
        assert_eq!((segments.first_seq(), records(&disk)), (21, vec![21]));
    }

    #[test]
    fn a_segment_is_kept_until_the_tables_reach_the_next_one() {
        let (disk, segments) = held(&[1, 11, 21]);
        let nothing = RetainConfig { bytes: 0, age_ms: 0, segment_bytes: 1 };
        assert_eq!(segments.trim(&disk, 20, nothing, 0).unwrap(), 1, "21 may not be noted yet");
        assert_eq!(records(&disk), [11, 21]);
        assert_eq!(segments.trim(&disk, 21, nothing, 0).unwrap(), 1);
    }

    #[test]
    fn no_note_of_a_trimmed_segment_is_written() {
        let (disk, segments) = held(&[1, 11]);
        let both: Vec<Segment> = segments.list().iter().copied().collect();
        let (closed, begun) = (both[0], both[1]);
        segments.note(closed, begun);
        let nothing = RetainConfig { bytes: 0, age_ms: 0, segment_bytes: 1 };
        assert_eq!(segments.trim(&disk, 99, nothing, 0).unwrap(), 1);
        disk.commit(segments.take_notes(), Durability::Buffered).unwrap();
        assert_eq!(Segment::read_all(&disk).unwrap(), [begun]);
        assert!(segments.take_notes().is_empty());
    }

    #[test]
    fn history_is_retained_by_bytes_and_by_age() {
        let (disk, segments) = held(&[1, 11, 21]);
        let by_bytes = |bytes| RetainConfig { bytes, age_ms: 0, segment_bytes: 1 };
        assert_eq!(segments.trim(&disk, 99, by_bytes(21), 0).unwrap(), 0, "20 would be left");
        assert_eq!(segments.trim(&disk, 99, by_bytes(20), 0).unwrap(), 1);
        let by_age = RetainConfig { bytes: 1_000, age_ms: 50, segment_bytes: 1 };
        assert_eq!(segments.trim(&disk, 99, by_age, 1_150).unwrap(), 0);
        assert_eq!(segments.trim(&disk, 99, by_age, 1_151).unwrap(), 1);
    }

    #[test]
    fn the_facts_of_a_segment_are_read_back() {
        let disk = MemoryStorage::default();
        let segment = Segment { id: 7, last_seq: 9, last_time: 1_000, bytes: 12 };
        let begun = Segment::new(10);
        disk.commit(vec![segment.row(), begun.row()], Durability::Fsynced).unwrap();
        assert_eq!(Segment::read_all(&disk).unwrap(), [segment, begun]);
    }
}
