//! The write queue: what was committed and is not in the tables yet, bounded in items and in bytes.

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

/// A checkpoint begins at the latest so long after the oldest record came. The longer it
/// waits, the more writes to one key become one row.
const CHECKPOINT_AGE: Duration = Duration::from_secs(5);

/// The write queue.
///
/// Room is taken when a write is applied, and given back when the tables hold it, so the bound
/// covers what waits for the log as well as what waits for the checkpointer.
#[derive(Debug)]
pub struct WriteQueue {
    config: WriteQueueConfig,
    items: AtomicUsize,
    bytes: AtomicUsize,
    state: Mutex<State>,
    work: Condvar,
    /// Counts the times that room was given back, for writers that wait for it.
    room: watch::Sender<u64>,
}

/// What is known of a record that waits for the tables; the log has the rest.
#[derive(Debug, Clone, Copy)]
pub struct Queued {
    /// The seq of its first write.
    pub first_seq: Seq,
    /// The seq of its last write.
    pub last_seq: Seq,
    /// How many changes are in it.
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

/// A checkpoint's work.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    /// All writes up to this seq are to be in the tables.
    pub last_seq: Seq,
    /// How many records they are in.
    pub records: usize,
}

/// What the checkpointer is to do.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    /// A checkpoint.
    Checkpoint(Due),
    /// No write has come for a while.
    Nothing,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Queued>,
    oldest_at: Option<Instant>,
    /// Everything up to this seq is to be worked off without delay.
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

    /// Changes and bytes that wait.
    pub fn load(&self) -> (usize, usize) {
        (self.items.load(Ordering::Acquire), self.bytes.load(Ordering::Acquire))
    }

    /// Whether a write of this weight fits, above what is applied already and has not taken its
    /// room yet. One that is larger than the whole queue fits when it is empty.
    pub fn has_room(&self, weight: WriteCost, applied: WriteCost) -> bool {
        let (items, bytes) = self.load();
        let (items, bytes) = (items + applied.items, bytes + applied.bytes);
        items == 0
            || (items + weight.items <= self.config.items
                && bytes + weight.bytes <= self.config.bytes)
    }

    /// How many keys may expire, above what is applied already and has not taken its room yet: they
    /// do so beyond the queue's own bounds, but not beyond the seqs that are promised ahead.
    pub fn spare_expiries(&self, applied: WriteCost) -> usize {
        QUEUE_ITEMS_MAX.saturating_sub(self.load().0 + applied.items)
    }

    /// Takes room for what was applied.
    pub fn take(&self, items: usize, bytes: usize) {
        self.items.fetch_add(items, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Gives back the room of a record that waits no more.
    pub fn give_back(&self, items: usize, bytes: usize) {
        self.items.fetch_sub(items, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.room.send_modify(|times| *times = times.wrapping_add(1));
    }

    /// Changes whenever room was given back.
    pub fn room(&self) -> watch::Receiver<u64> {
        self.room.subscribe()
    }

    /// Adds a record that is in the log now; its room was taken before.
    pub fn push(&self, queued: Queued) {
        let mut state = self.state();
        state.oldest_at.get_or_insert_with(Instant::now);
        state.waiting.push_back(queued);
        let is_due = self.is_round_due(&state);
        drop(state);
        if is_due {
            self.work.notify_one();
        }
    }

    /// Asks for everything up to `seq` to be worked off without delay, also what is still on its
    /// way here.
    pub fn want_flush(&self, seq: Seq) {
        let mut state = self.state();
        state.flush_to = state.flush_to.max(seq);
        drop(state);
        self.work.notify_one();
    }

    /// No record will come any more; what is there is still to be worked off.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.work.notify_all();
    }

    /// Whether no record will come any more.
    pub fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    fn is_round_due(&self, state: &State) -> bool {
        let (items, bytes) = self.load();
        state.waiting.front().is_some_and(|queued| queued.first_seq <= state.flush_to)
            || state.is_closed
            || items > self.config.items / 2
            || bytes > self.config.bytes / 2
    }

    /// Waits for a checkpoint's work. The records stay in the queue until [`WriteQueue::done`]: a
    /// checkpointer that fails loses nothing. `None`: closed and empty.
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
            if !state.waiting.is_empty() && (rest.is_zero() || self.is_round_due(&state)) {
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

    /// What there is to do now, if anything is.
    pub fn due(&self) -> Option<Due> {
        let state = self.state();
        let last_seq = state.waiting.back()?.last_seq;
        Some(Due { last_seq, records: state.waiting.len() })
    }

    /// The first `records` are in the tables: they leave the queue, and their room is free.
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
