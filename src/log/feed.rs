//! What was committed, in order, for whoever tells others of it.
//!
//! A ring of records, bounded in bytes. Readers pull, each at its own place, so a slow one costs
//! nothing but what the ring holds anyway; one that falls off its end is told what it missed.

use super::record::Record;
use crate::wire::Seq;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The records committed last.
#[derive(Debug)]
pub struct Feed {
    ring: Mutex<Ring>,
    /// The number of the next record, for who waits for it.
    next: watch::Sender<u64>,
}

#[derive(Debug)]
struct Ring {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
    bytes_max: usize,
    /// The number of the oldest record in the ring; numbers grow by one and never repeat.
    oldest: u64,
    last_seq: Seq,
    /// The last seq that is no longer in the ring.
    dropped_seq: Seq,
}

/// What a reader finds at its place.
#[derive(Debug, Clone)]
pub struct FeedRead {
    /// The records from that place on, those that fit.
    pub records: Vec<Arc<Record>>,
    /// The place after them.
    pub next: u64,
    /// The last seq that was in the ring and is not any more, when the reader fell behind.
    pub lost: Option<Seq>,
}

impl Feed {
    /// A feed that keeps `bytes_max` of records, and goes on after `seq`.
    pub fn new(bytes_max: usize, seq: Seq) -> Self {
        let ring = Ring {
            records: VecDeque::new(),
            bytes: 0,
            bytes_max,
            oldest: 0,
            last_seq: seq,
            dropped_seq: seq,
        };
        Self { ring: Mutex::new(ring), next: watch::Sender::new(0) }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record that has been committed.
    pub fn push(&self, record: Arc<Record>) {
        let mut ring = self.ring();
        ring.last_seq = record.last_seq;
        ring.bytes += record.len();
        ring.records.push_back(record);
        // The newest record stays, however large it is.
        while ring.bytes > ring.bytes_max && ring.records.len() > 1 {
            if let Some(oldest) = ring.records.pop_front() {
                ring.bytes -= oldest.len();
                ring.oldest += 1;
                ring.dropped_seq = oldest.last_seq;
            }
        }
        let next = ring.oldest + ring.records.len() as u64;
        drop(ring);
        self.next.send_replace(next);
    }

    /// The place after the newest record, and the seq of that.
    pub fn end(&self) -> (u64, Seq) {
        let ring = self.ring();
        (ring.oldest + ring.records.len() as u64, ring.last_seq)
    }

    /// Reads from `place` on, about `bytes_max` at the most, one record at the least when there is
    /// one.
    pub fn read(&self, place: u64, bytes_max: usize) -> FeedRead {
        let ring = self.ring();
        let lost = (place < ring.oldest).then_some(ring.dropped_seq);
        let start = place.max(ring.oldest);
        let skip = usize::try_from(start - ring.oldest).unwrap_or(usize::MAX);
        let mut records = Vec::new();
        let mut bytes = 0;
        for record in ring.records.iter().skip(skip) {
            if bytes > 0 && bytes + record.len() > bytes_max {
                break;
            }
            bytes += record.len();
            records.push(Arc::clone(record));
        }
        let next = start + records.len() as u64;
        FeedRead { records, next, lost }
    }

    /// The records with writes later than `after`, about `bytes_max` at the most; `None` when the
    /// ring does not reach back so far.
    pub fn later_than(&self, after: Seq, bytes_max: usize) -> Option<Vec<Arc<Record>>> {
        let ring = self.ring();
        if after < ring.dropped_seq {
            return None;
        }
        let first = ring.records.partition_point(|record| record.last_seq <= after);
        let mut bytes = 0;
        let fitting = ring.records.iter().skip(first).take_while(|record| {
            let fits = bytes == 0 || bytes + record.len() <= bytes_max;
            bytes += record.len();
            fits
        });
        Some(fitting.cloned().collect())
    }

    /// Changes whenever a record is added; its value is the place after it.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::change::Op;
    use crate::wire::{ChangeBuffer, Level};

    fn record(seq: Seq) -> Arc<Record> {
        let mut pending = ChangeBuffer::default();
        let mark = pending.begin(seq, Level::Queued, 0);
        pending.push(Op::Set, false, None, b"k", &[0; 100]);
        pending.end(mark);
        Arc::new(Record::new(pending))
    }

    #[test]
    fn a_reader_that_fell_off_is_told_what_it_missed() {
        let feed = Feed::new(3 * record(1).len(), 0);
        let (place, _) = feed.end();
        for seq in 1..=5 {
            feed.push(record(seq));
        }
        let read = feed.read(place, usize::MAX);
        assert_eq!(read.lost, Some(2));
        assert_eq!(read.records.iter().map(|r| r.first_seq).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(read.next, feed.end().0);
        assert_eq!(feed.read(read.next, usize::MAX).lost, None);
        assert_eq!(feed.read(read.next - 2, 1).records.len(), 1, "one record always fits");
    }
}
