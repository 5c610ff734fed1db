//! The write queue: committed writes that are not in the tables yet, bounded in items and in bytes.

use super::record::Record;
use crate::config::WriteQueueConfig;
use crate::limits::QUEUE_ITEMS_MAX;
use crate::protocol::Seq;
use crate::protocol::WriteCost;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A checkpoint begins at the latest this long after its oldest record came. The longer the delay,
/// the more writes to one key become one row.
const CHECKPOINT_AGE: Duration = Duration::from_secs(5);

/// The write queue.
///
/// A write takes its room when it is applied, and gives the room back when the tables hold it. So
/// the bound covers the writes that wait for the log and those that wait for the checkpointer.
#[derive(Debug)]
pub struct WriteQueue {
    config: WriteQueueConfig,
    items: AtomicUsize,
    bytes: AtomicUsize,
    state: Mutex<State>,
    work: Condvar,
    /// Counts how often room was given back, for writers that wait for room.
    room: watch::Sender<u64>,
}

/// The facts about a record that waits for the tables; the log has the rest.
#[derive(Debug, Clone, Copy)]
pub struct Queued {
    /// The seq of its first write.
    pub first_seq: Seq,
    /// The seq of its last write.
    pub last_seq: Seq,
    /// How many changes the record has.
    pub items: usize,
    /// The bytes of its writes.
    pub bytes: usize,
}

impl From<&Record> for Queued {
    fn from(record: &Record) -> Self {
        let Record { first_seq, last_seq, items, .. } = *record;
        Self { first_seq, last_seq, items, bytes: record.len() }
    }
}

/// The work of a checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    /// The tables are to hold all writes up to this seq.
    pub last_seq: Seq,
    /// How many records hold these writes.
    pub records: usize,
}

/// The next task of the checkpointer.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    /// A checkpoint.
    Checkpoint(Due),
    /// No write has arrived for a while.
    Nothing,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Queued>,
    oldest_at: Option<Instant>,
    /// Everything up to this seq is to be checkpointed without delay.
    flush_to: Seq,
    is_closed: bool,
}

impl WriteQueue {
    /// An empty queue.
    pub fn new(config: WriteQueueConfig) -> Self {
        Self {
            config,
            items: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            state: Mutex::default(),
            work: Condvar::new(),
            room: watch::Sender::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bounds.
    pub fn config(&self) -> &WriteQueueConfig {
        &self.config
    }

    /// The changes and bytes that wait.
    pub fn load(&self) -> (usize, usize) {
        (self.items.load(Ordering::Acquire), self.bytes.load(Ordering::Acquire))
    }

    /// Whether a write of this cost fits, on top of the applied writes that have not taken their
    /// room yet. A write larger than the whole queue fits when the queue is empty.
    pub fn has_room(&self, weight: WriteCost, applied: WriteCost) -> bool {
        let (items, bytes) = self.load();
        let (items, bytes) = (items + applied.items, bytes + applied.bytes);
        items == 0
            || (items + weight.items <= self.config.items
                && bytes + weight.bytes <= self.config.bytes)
    }

    /// How many keys may expire, on top of the applied writes that have not taken their room yet.
    /// Expiries are not limited by the queue's bounds, but by the seqs reserved ahead.
    pub fn spare_expiries(&self, applied: WriteCost) -> usize {
        QUEUE_ITEMS_MAX.saturating_sub(self.load().0 + applied.items)
    }

    /// Takes room for applied writes.
    pub fn take(&self, items: usize, bytes: usize) {
        self.items.fetch_add(items, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Gives back the room of a record that no longer waits.
    pub fn give_back(&self, items: usize, bytes: usize) {
        self.items.fetch_sub(items, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.room.send_modify(|times| *times = times.wrapping_add(1));
    }

    /// A channel that changes whenever room is given back.
    pub fn room(&self) -> watch::Receiver<u64> {
        self.room.subscribe()
    }

    /// Adds a record that the log now holds; its room was taken before.
    pub fn push(&self, queued: Queued) {
        let mut state = self.state();
        state.oldest_at.get_or_insert_with(Instant::now);
        state.waiting.push_back(queued);
        let is_due = self.is_checkpoint_due(&state);
        drop(state);
        if is_due {
            self.work.notify_one();
        }
    }

    /// Requests that everything up to `seq` be checkpointed without delay, including records not
    /// yet pushed.
    pub fn want_flush(&self, seq: Seq) {
        let mut state = self.state();
        state.flush_to = state.flush_to.max(seq);
        drop(state);
        self.work.notify_one();
    }

    /// Closes the queue for new records; those in the queue are still checkpointed.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.work.notify_all();
    }

    /// Whether the queue is closed for new records.
    pub fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    fn is_checkpoint_due(&self, state: &State) -> bool {
        let (items, bytes) = self.load();
        state.waiting.front().is_some_and(|queued| queued.first_seq <= state.flush_to)
            || state.is_closed
            || items > self.config.items / 2
            || bytes > self.config.bytes / 2
    }

    /// Waits for the next work of a checkpoint. The records stay in the queue until
    /// [`WriteQueue::done`], so a checkpointer that fails loses nothing. `None`: closed and empty.
    pub fn wait_for_work(&self) -> Option<Work> {
        let mut state = self.state();
        loop {
            if state.waiting.is_empty() && state.is_closed {
                return None;
            }
            let rest = match state.oldest_at {
                Some(oldest) => CHECKPOINT_AGE.saturating_sub(oldest.elapsed()),
                None => CHECKPOINT_AGE,
            };
            if !state.waiting.is_empty() && (rest.is_zero() || self.is_checkpoint_due(&state)) {
                drop(state);
                return self.due().map(Work::Checkpoint);
            }
            let woken = self.work.wait_timeout(state, rest);
            let (woken, time) = woken.unwrap_or_else(PoisonError::into_inner);
            if time.timed_out() && woken.waiting.is_empty() && !woken.is_closed {
                return Some(Work::Nothing);
            }
            state = woken;
        }
    }

    /// The work that is due now, if there is any.
    pub fn due(&self) -> Option<Due> {
        let state = self.state();
        let last_seq = state.waiting.back()?.last_seq;
        Some(Due { last_seq, records: state.waiting.len() })
    }

    /// The tables hold the first `records`: removes them from the queue and frees their room.
    pub fn done(&self, records: usize) {
        let mut state = self.state();
        let records = records.min(state.waiting.len());
        let (items, bytes) = state
            .waiting
            .drain(..records)
            .fold((0, 0), |(items, bytes), queued| (items + queued.items, bytes + queued.bytes));
        state.oldest_at = (!state.waiting.is_empty()).then(Instant::now);
        drop(state);
        self.give_back(items, bytes);
    }
}
