//! The write queue: what was committed and is not in the tables yet, bounded in items and in bytes.

use super::record::Record;
use crate::config::QueueConfig;
use crate::wire::Seq;
use crate::wire::command::Weight;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A round of the workers begins when the queue holds so many bytes, however small its bounds are
/// not.
const ROUND_BYTES: usize = 64 << 20;
/// The same, in items.
const ROUND_ITEMS: usize = 500_000;
/// A round begins at the latest so long after the oldest record came.
const ROUND_AGE: Duration = Duration::from_secs(1);

/// The write queue.
///
/// Room is taken when a write is applied, and given back when the tables hold it, so the bound
/// covers what waits for the log as well as what waits for the workers.
#[derive(Debug)]
pub struct WriteQueue {
    config: QueueConfig,
    items: AtomicUsize,
    bytes: AtomicUsize,
    state: Mutex<State>,
    work: Condvar,
    /// Counts the times that room was given back, for writers that wait for it.
    room: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    records: VecDeque<Arc<Record>>,
    oldest_at: Option<Instant>,
    /// Everything up to this seq is to be worked off without delay.
    flush_to: Seq,
    is_closed: bool,
}

impl WriteQueue {
    /// An empty queue.
    pub fn new(config: QueueConfig) -> Self {
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
    pub fn config(&self) -> &QueueConfig {
        &self.config
    }

    /// Changes and bytes that wait.
    pub fn load(&self) -> (usize, usize) {
        (self.items.load(Ordering::Acquire), self.bytes.load(Ordering::Acquire))
    }

    /// Whether a write of this weight fits, above what is applied already and has not taken its
    /// room yet. One that is larger than the whole queue fits when it is empty.
    pub fn has_room(&self, weight: Weight, applied: Weight) -> bool {
        let (items, bytes) = self.load();
        let (items, bytes) = (items + applied.items, bytes + applied.bytes);
        items == 0
            || (items + weight.items <= self.config.items
                && bytes + weight.bytes <= self.config.bytes)
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
    pub fn push(&self, record: Arc<Record>) {
        let mut state = self.state();
        state.oldest_at.get_or_insert_with(Instant::now);
        state.records.push_back(record);
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

    fn is_round_due(&self, state: &State) -> bool {
        let (items, bytes) = self.load();
        state.records.front().is_some_and(|record| record.first_seq <= state.flush_to)
            || state.is_closed
            || items >= ROUND_ITEMS.min(self.config.items)
            || bytes >= ROUND_BYTES.min(self.config.bytes / 2)
    }

    /// Waits for a round's work: the records there are, oldest first. They stay in the queue until
    /// [`WriteQueue::done`], so a worker that fails loses nothing. `None`: closed and empty.
    pub fn wait_for_round(&self) -> Option<Vec<Arc<Record>>> {
        let mut state = self.state();
        loop {
            if state.records.is_empty() {
                if state.is_closed {
                    return None;
                }
                state = self
                    .work
                    .wait_timeout(state, ROUND_AGE)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                continue;
            }
            let age = state.oldest_at.map_or(ROUND_AGE, |oldest| oldest.elapsed());
            if self.is_round_due(&state) || age >= ROUND_AGE {
                drop(state);
                return Some(self.snapshot());
            }
            let rest = ROUND_AGE - age;
            state = self.work.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The records there are, oldest first.
    pub fn snapshot(&self) -> Vec<Arc<Record>> {
        self.state().records.iter().cloned().collect()
    }

    /// The first `count` records are in the tables: they leave the queue, and their room is free.
    pub fn done(&self, count: usize) {
        let mut state = self.state();
        let count = count.min(state.records.len());
        let (items, bytes) = state
            .records
            .drain(..count)
            .fold((0, 0), |(items, bytes), record| (items + record.items, bytes + record.len()));
        state.oldest_at = (!state.records.is_empty()).then(Instant::now);
        drop(state);
        self.give_back(items, bytes);
    }
}
