//! The write queue as a log: every write is in one record, records are in segments, and what the
//! tables hold can be trimmed.
//!
//! A record is one group commit: everything that was pending, in one atomic batch. Its key in the
//! segment is the first seq in it, big-endian, so that a scan goes in the order of the writes.

pub mod feed;
pub mod queue;
pub mod record;
pub mod tables;
pub mod watermarks;

pub use feed::Feed;
pub use queue::WriteQueue;
pub use record::Record;
pub use watermarks::Watermarks;

use crate::disk::{Disk, DiskError, Row, Space, Sync};
use crate::limits::SEQ_RESERVE;
use crate::wire::Seq;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// A segment is closed, and a new one begun, when it holds so many bytes of records.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// The log's segments, shared by who appends and who trims.
#[derive(Debug, Default)]
pub struct Segments {
    list: Mutex<VecDeque<Segment>>,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    id: u64,
    last_seq: Seq,
    bytes: u64,
}

impl Segments {
    /// Drops the segments whose every write is at or before `seq`, the newest segment excepted.
    ///
    /// The caller has made durable whatever replaces them: nothing here waits for a disk.
    pub fn trim(&self, disk: &dyn Disk, seq: Seq) -> Result<usize, DiskError> {
        let mut dropped = 0;
        loop {
            let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
            let oldest = match list.front() {
                Some(segment) if list.len() > 1 && segment.last_seq <= seq => segment.id,
                _ => return Ok(dropped),
            };
            list.pop_front();
            drop(list);
            disk.drop_segment(oldest)?;
            dropped += 1;
        }
    }

    /// How many bytes of records the segments hold.
    pub fn bytes(&self) -> u64 {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter().map(|segment| segment.bytes).sum()
    }
}

/// The end of the log, at which one thread appends.
#[derive(Debug)]
pub struct Log {
    disk: Arc<dyn Disk>,
    segments: Arc<Segments>,
    /// No seq above this has been promised to be new after a crash.
    ceiling: Seq,
    has_unsynced: bool,
}

impl Log {
    /// Opens the log for appending after `seq`, in a segment of its own.
    pub fn open(disk: Arc<dyn Disk>, kept: Vec<(u64, Seq)>, seq: Seq) -> Result<Self, DiskError> {
        let id = seq + 1;
        let mut list: VecDeque<Segment> =
            kept.into_iter().map(|(id, last_seq)| Segment { id, last_seq, bytes: 0 }).collect();
        if list.back().is_none_or(|last| last.id != id) {
            disk.create_segment(id)?;
            list.push_back(Segment { id, last_seq: seq, bytes: 0 });
        }
        let ceiling = seq.saturating_add(SEQ_RESERVE);
        disk.commit(vec![tables::ceiling_row(ceiling)], Sync::Data)?;
        let segments = Arc::new(Segments { list: Mutex::new(list) });
        Ok(Self { disk, segments, ceiling, has_unsynced: false })
    }

    /// The segments, for who trims them.
    pub fn segments(&self) -> Arc<Segments> {
        Arc::clone(&self.segments)
    }

    /// Whether something was appended that is not synced yet.
    pub fn has_unsynced(&self) -> bool {
        self.has_unsynced
    }

    /// Appends one record. It is with the operating system when this returns, on the medium if
    /// `sync` says so, and all of it or nothing in either case.
    pub fn append(&mut self, record: &Record, sync: Sync) -> Result<(), DiskError> {
        if let Some(encoded) = record.encode() {
            let segment = self.segment_for(record, encoded.len() as u64)?;
            let key = record.first_seq.to_be_bytes().to_vec();
            let value = Some(encoded.into());
            let mut rows = vec![Row { space: Space::Log(segment), key, value }];
            if record.last_seq.saturating_add(SEQ_RESERVE / 2) > self.ceiling {
                self.ceiling = record.last_seq.saturating_add(SEQ_RESERVE);
                rows.push(tables::ceiling_row(self.ceiling));
            }
            self.disk.commit(rows, sync)?;
            self.has_unsynced = sync == Sync::Buffer;
        } else if sync == Sync::Data {
            self.sync()?;
        }
        Ok(())
    }

    /// Makes everything appended so far survive a loss of power.
    pub fn sync(&mut self) -> Result<(), DiskError> {
        if self.has_unsynced {
            self.disk.sync()?;
            self.has_unsynced = false;
        }
        Ok(())
    }

    fn segment_for(&mut self, record: &Record, bytes: u64) -> Result<u64, DiskError> {
        let mut list = self.segments.list.lock().unwrap_or_else(PoisonError::into_inner);
        let needs_new = list.back().is_none_or(|segment| segment.bytes >= SEGMENT_BYTES);
        if needs_new {
            let id = record.first_seq;
            drop(list);
            self.disk.create_segment(id)?;
            list = self.segments.list.lock().unwrap_or_else(PoisonError::into_inner);
            list.push_back(Segment { id, last_seq: record.last_seq, bytes: 0 });
        }
        let Some(segment) = list.back_mut() else {
            return Err(DiskError::new("log", "no segment to append to"));
        };
        segment.last_seq = record.last_seq;
        segment.bytes += bytes;
        Ok(segment.id)
    }
}
