//! Committed records, in order, for the publisher and for `changes`.
//!
//! The feed is a ring of records. Each reader pulls at its own position, so a slow reader delays no
//! other. A record that all readers have read is dropped, except for a small tail kept for new
//! readers. Unread records stay, up to a bound in bytes; a reader that falls behind the bound
//! learns which seqs it missed.

use super::record::Record;
use crate::protocol::Seq;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Bytes that stay although no reader needs them: a `changes` request that follows the end of the
/// history is answered from here and not from the disk.
const KEPT_BYTES: usize = 4 << 20;

/// The most recent records.
#[derive(Debug)]
pub struct Feed {
    ring: Mutex<Ring>,
    /// The number of the next record, for tasks that wait for it.
    next: watch::Sender<u64>,
}

#[derive(Debug)]
struct Ring {
    slots: VecDeque<Slot>,
    bytes: usize,
    bytes_max: usize,
    /// The number of the oldest record in the ring; numbers grow by one and are never reused.
    oldest: u64,
    /// How many readers have read everything.
    readers_at_end: usize,
    last_seq: Seq,
    /// The last seq that is no longer in the ring.
    dropped_seq: Seq,
}

#[derive(Debug)]
struct Slot {
    record: Arc<Record>,
    /// How many readers read this record next.
    readers: usize,
}

/// The function that gives the bytes a reader counts for a record.
pub type Size = fn(&Record) -> usize;

/// The bytes that a record takes in the ring.
fn cost(record: &Record) -> usize {
    record.len() + size_of::<Record>() + size_of::<Slot>()
}

impl Ring {
    /// The number of the next record.
    fn end(&self) -> u64 {
        self.oldest + self.slots.len() as u64
    }

    /// The number of readers at `place`; `None` when the ring has dropped that record.
    fn readers_at(&mut self, place: u64) -> Option<&mut usize> {
        if place == self.end() {
            return Some(&mut self.readers_at_end);
        }
        let index = usize::try_from(place.checked_sub(self.oldest)?).ok()?;
        self.slots.get_mut(index).map(|slot| &mut slot.readers)
    }

    fn enter(&mut self, place: u64) {
        if let Some(readers) = self.readers_at(place) {
            *readers += 1;
        }
    }

    fn leave(&mut self, place: u64) {
        if let Some(readers) = self.readers_at(place) {
            *readers -= 1;
        }
    }

    /// The records from index `skip` on: at least one, and about `bytes_max` bytes at most.
    fn fitting(&self, skip: usize, bytes_max: usize, size: Size) -> Vec<Arc<Record>> {
        let mut bytes = 0;
        let fitting = self.slots.iter().skip(skip).take_while(|slot| {
            let fits = bytes == 0 || bytes + size(&slot.record) <= bytes_max;
            bytes += size(&slot.record);
            fits
        });
        fitting.map(|slot| Arc::clone(&slot.record)).collect()
    }

    /// Drops the records that no reader needs, and those above the bound. The newest record stays,
    /// however large.
    fn trim(&mut self) {
        let kept = KEPT_BYTES.min(self.bytes_max);
        while let Some(oldest) = self.slots.front()
            && self.slots.len() > 1
            && (self.bytes > self.bytes_max || self.bytes > kept && oldest.readers == 0)
        {
            self.bytes -= cost(&oldest.record);
            self.dropped_seq = oldest.record.last_seq;
            self.oldest += 1;
            self.slots.pop_front();
        }
    }
}

/// A reader's position in the feed. The feed keeps the records after it, as far as its bound
/// allows.
#[derive(Debug)]
pub struct FeedReader {
    feed: Arc<Feed>,
    place: u64,
    seq: Seq,
}

/// The result of a read.
#[derive(Debug, Clone)]
pub struct FeedRead {
    /// The next records that fit.
    pub records: Vec<Arc<Record>>,
    /// The last seq that was dropped from the ring unread, when the reader fell behind.
    pub lost: Option<Seq>,
    /// The next record, when that record alone exceeds the limit: it was not read.
    pub large: Option<Arc<Record>>,
}

impl FeedReader {
    /// Everything up to this seq was read.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Reads the next records: at least one if there is one, and about `bytes_max` bytes at most.
    pub fn read(&mut self, bytes_max: usize) -> FeedRead {
        self.read_up_to(bytes_max, usize::MAX, Record::len)
    }

    /// Like `read`, with bytes counted by `size`; a record that alone exceeds the limit is only
    /// shown, because there may be no memory for it.
    pub fn read_small(&mut self, bytes_max: usize, size: Size) -> FeedRead {
        self.read_up_to(bytes_max, bytes_max, size)
    }

    fn read_up_to(&mut self, bytes_max: usize, record_bytes_max: usize, size: Size) -> FeedRead {
        let mut ring = self.feed.ring();
        let lost = (self.place < ring.oldest).then_some(ring.dropped_seq);
        let start = self.place.max(ring.oldest);
        let skip = usize::try_from(start - ring.oldest).unwrap_or(usize::MAX);
        let first = ring.slots.get(skip).map(|slot| &slot.record);
        let large = first.filter(|record| size(record) > record_bytes_max).map(Arc::clone);
        let records =
            if large.is_none() { ring.fitting(skip, bytes_max, size) } else { Vec::new() };
        ring.leave(self.place);
        self.place = start + records.len() as u64;
        ring.enter(self.place);
        ring.trim();
        self.seq = records.last().map_or(lost.unwrap_or(self.seq), |record| record.last_seq);
        FeedRead { records, lost, large }
    }

    /// Skips a record that was shown.
    pub fn pass(&mut self, shown: &Record) {
        let mut ring = self.feed.ring();
        ring.leave(self.place);
        self.place += 1;
        ring.enter(self.place);
        ring.trim();
        self.seq = shown.last_seq;
    }
}

impl Drop for FeedReader {
    fn drop(&mut self) {
        let mut ring = self.feed.ring();
        ring.leave(self.place);
        ring.trim();
    }
}

impl Feed {
    /// A feed that keeps `bytes_max` bytes of records for readers that lag, and continues after
    /// `seq`.
    pub fn new(bytes_max: usize, seq: Seq) -> Self {
        let ring = Ring {
            slots: VecDeque::new(),
            bytes: 0,
            bytes_max,
            oldest: 0,
            readers_at_end: 0,
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
        ring.bytes += cost(&record);
        let readers = std::mem::take(&mut ring.readers_at_end);
        ring.slots.push_back(Slot { record, readers });
        ring.trim();
        let next = ring.end();
        drop(ring);
        self.next.send_replace(next);
    }

    /// The seq of the newest record.
    pub fn last_seq(&self) -> Seq {
        self.ring().last_seq
    }

    /// The bytes that the records in the ring take.
    pub fn bytes(&self) -> usize {
        self.ring().bytes
    }

    /// A reader of all records committed from now on.
    pub fn reader(self: Arc<Self>) -> FeedReader {
        let mut ring = self.ring();
        ring.readers_at_end += 1;
        let (place, seq) = (ring.end(), ring.last_seq);
        drop(ring);
        FeedReader { feed: self, place, seq }
    }

    /// The records with writes later than `after`, about `bytes_max` bytes at most; `None` when the
    /// ring does not reach back that far.
    pub fn later_than(&self, after: Seq, bytes_max: usize) -> Option<Vec<Arc<Record>>> {
        let ring = self.ring();
        if after < ring.dropped_seq {
            return None;
        }
        let skip = ring.slots.partition_point(|slot| slot.record.last_seq <= after);
        Some(ring.fitting(skip, bytes_max, Record::len))
    }

    /// Whether the records with writes later than `after` have at most `bytes_max` bytes; `None`
    /// when the ring does not reach back that far.
    pub fn has_little_after(&self, after: Seq, bytes_max: usize) -> Option<bool> {
        let ring = self.ring();
        if after < ring.dropped_seq {
            return None;
        }
        let skip = ring.slots.partition_point(|slot| slot.record.last_seq <= after);
        let mut bytes = 0;
        let fits = |slot: &Slot| {
            bytes += cost(&slot.record);
            bytes <= bytes_max
        };
        Some(ring.slots.iter().skip(skip).all(fits))
    }

    /// The last seq that is no longer in the ring.
    pub fn dropped_seq(&self) -> Seq {
        self.ring().dropped_seq
    }

    /// A channel that changes whenever a record is added; its value is the position after that
    /// record.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::change::Op;
    use crate::protocol::{ChangeBuffer, Level};

    fn record(seq: Seq, len: usize) -> Arc<Record> {
        let mut pending = ChangeBuffer::default();
        let mark = pending.begin(seq, Level::Queued, 0);
        pending.push(Op::Set, false, None, b"k", &vec![0; len]);
        pending.end(mark);
        Arc::new(Record::new(pending))
    }

    fn push(feed: &Feed, seqs: std::ops::RangeInclusive<Seq>, len: usize) {
        seqs.for_each(|seq| feed.push(record(seq, len)));
    }

    fn seqs(read: &FeedRead) -> Vec<Seq> {
        read.records.iter().map(|record| record.last_seq).collect()
    }

    #[test]
    fn a_reader_that_falls_behind_learns_the_last_seq_it_missed() {
        let feed = Arc::new(Feed::new(3 * cost(&record(1, 100)), 0));
        let mut reader = Arc::clone(&feed).reader();
        push(&feed, 1..=5, 100);
        let read = reader.read(usize::MAX);
        assert_eq!((read.lost, seqs(&read)), (Some(2), vec![3, 4, 5]));
        push(&feed, 6..=7, 100);
        let read = reader.read(1);
        assert_eq!((read.lost, seqs(&read)), (None, vec![6]), "one record always fits");
        assert_eq!(reader.seq(), 6);
    }

    #[test]
    fn a_large_record_is_shown_and_stays_until_it_is_skipped() {
        let feed = Arc::new(Feed::new(2 * cost(&record(1, 1_000)), 0));
        let mut reader = Arc::clone(&feed).reader();
        push(&feed, 1..=1, 100);
        push(&feed, 2..=2, 1_000);
        push(&feed, 3..=3, 100);
        assert_eq!(seqs(&reader.read_small(500, Record::len)), [1]);
        for _ in 0..2 {
            let read = reader.read_small(500, Record::len);
            assert_eq!((read.lost, seqs(&read), reader.seq()), (None, vec![], 1));
            assert_eq!(read.large.unwrap().last_seq, 2);
        }
        reader.pass(&record(2, 1_000));
        assert_eq!((reader.seq(), seqs(&reader.read_small(500, Record::len))), (2, vec![3]));
        // The record was dropped while shown: the reader still learns of it, and of the loss after
        // it.
        push(&feed, 4..=4, 1_000);
        assert_eq!(reader.read_small(500, Record::len).large.unwrap().last_seq, 4);
        push(&feed, 5..=7, 1_000);
        reader.pass(&record(4, 1_000));
        let read = reader.read_small(500, Record::len);
        assert_eq!((read.lost, reader.seq()), (Some(5), 5));
        assert_eq!(read.large.unwrap().last_seq, 6);
    }

    #[test]
    fn the_feed_drops_what_all_readers_have_read_and_keeps_the_rest() {
        const MIB: usize = 1 << 20;
        let small = KEPT_BYTES + MIB;
        let feed = Arc::new(Feed::new(64 * MIB, 0));
        push(&feed, 1..=40, MIB);
        assert!(feed.bytes() <= small, "there is no reader");
        let (mut quick, mut slow) = (Arc::clone(&feed).reader(), Arc::clone(&feed).reader());
        let mut gone = Arc::clone(&feed).reader();
        for seq in 41..=70 {
            push(&feed, seq..=seq, MIB);
            assert_eq!(seqs(&quick.read(usize::MAX)), [seq]);
        }
        assert!(feed.bytes() > 30 * MIB, "one lags");
        for seq in 41..=60 {
            let read = slow.read(1);
            assert_eq!((read.lost, seqs(&read)), (None, vec![seq]), "nothing is lost");
        }
        assert_eq!(gone.read(1).lost, None);
        drop(gone);
        assert!(feed.bytes() < 12 * MIB, "{} given up while it catches up", feed.bytes());
        assert_eq!(seqs(&slow.read(usize::MAX)).len(), 10);
        assert!(feed.bytes() <= small, "no reader lags any more");
        drop((quick, slow));
        push(&feed, 71..=140, MIB);
        assert!(feed.bytes() <= small);
        assert_eq!(Arc::clone(&feed).reader().seq(), 140);
    }

    #[test]
    fn a_dropped_reader_that_fell_behind_holds_no_records() {
        let feed = Arc::new(Feed::new(10 * cost(&record(1, 1 << 20)), 0));
        let (fallen, mut slow) = (Arc::clone(&feed).reader(), Arc::clone(&feed).reader());
        push(&feed, 1..=5, 1 << 20);
        assert_eq!(slow.read(1).records.len(), 1);
        push(&feed, 6..=11, 1 << 20);
        drop(fallen);
        assert_eq!(seqs(&slow.read(usize::MAX)), (2..=11).collect::<Vec<_>>());
        assert!(feed.bytes() <= KEPT_BYTES + (1 << 20));
    }
}
