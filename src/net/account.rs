//! One connection's share of the memory quota.

use super::memory_quota::{Category, Part, UNIT_BYTES};
use super::reservation::Reservation;
use futures_util::task::AtomicWaker;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A peer's rate is known only after it was observed for this long.
const RATE_WINDOW: Duration = Duration::from_millis(500);

/// Since when the peer is to act, and the bytes it had moved at the last rate check.
#[derive(Debug, Clone, Copy)]
struct Observed {
    since: Instant,
    marked: Instant,
    before: u64,
}

/// Since when the peer is to act, and how many bytes a second it moves.
pub(super) struct Pace {
    pub(super) since: Instant,
    /// `None` where the peer was observed for too short a time.
    pub(super) rate: Option<u64>,
}

/// The memory that one connection holds in one category, and how quickly its peer reduces it.
#[derive(Debug)]
pub struct Account {
    pub(super) part: Arc<Part>,
    id: u64,
    pub(super) free: usize,
    /// The peer reduces it by reading, and not by sending on.
    is_read_to: bool,
    /// Units.
    reserved: AtomicUsize,
    moved: AtomicU64,
    /// Set while the peer is to act.
    observed: Mutex<Option<Observed>>,
    /// The account itself is in line for memory.
    is_in_line: AtomicBool,
    is_cut: AtomicBool,
    waker: AtomicWaker,
}

impl Account {
    pub(super) fn new(part: Arc<Part>, id: u64, category: Category) -> Self {
        Self {
            part,
            id,
            free: category.free_bytes(),
            is_read_to: category == Category::Outgoing,
            reserved: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
            observed: Mutex::new(None),
            is_in_line: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// An empty reservation.
    pub fn reservation(self: &Arc<Self>) -> Reservation {
        Reservation::empty(Arc::clone(self))
    }

    pub(super) fn units(&self) -> usize {
        self.reserved.load(Relaxed)
    }

    pub(super) fn is_in_line(&self) -> bool {
        self.is_in_line.load(Relaxed)
    }

    /// Sets whether the account is in line; what the peer could not do meanwhile does not count.
    pub(super) fn stand_in_line(&self, is_in_line: bool) {
        if self.is_read_to {
            // Unread replies are the peer's own fault, whatever else it waits for.
            return;
        }
        self.is_in_line.store(is_in_line, Relaxed);
        if let Some(observed) = self.observed().as_mut() {
            (observed.marked, observed.before) = (Instant::now(), self.moved.load(Relaxed));
        }
    }

    /// Records that the peer has read, or sent, this many bytes more.
    pub fn moved(&self, bytes: usize) {
        if self.reserved.load(Relaxed) > 0 {
            self.moved.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// Sets whether the peer is to act: only then does its rate count.
    pub fn observe(&self, waits_for_peer: bool) {
        let mut observed = self.observed();
        if waits_for_peer != observed.is_some() {
            let moved = self.moved.load(Relaxed);
            let now = Instant::now();
            *observed =
                waits_for_peer.then_some(Observed { since: now, marked: now, before: moved });
        }
    }

    /// Whether the connection is to be closed because others wait for its memory.
    pub fn is_cut(&self) -> bool {
        self.is_cut.load(Relaxed)
    }

    /// Ready when the connection is to be closed.
    pub fn poll_cut(&self, context: &Context<'_>) -> Poll<()> {
        if !self.is_cut() {
            self.waker.register(context.waker());
        }
        if self.is_cut() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The bytes that are reserved.
    pub fn reserved(&self) -> usize {
        self.reserved.load(Relaxed) * UNIT_BYTES
    }

    pub(super) fn cut(&self) {
        self.is_cut.store(true, Relaxed);
        self.waker.wake();
    }

    fn observed(&self) -> MutexGuard<'_, Option<Observed>> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How quickly the peer reduced the memory since the last check; `None` while it is not the
    /// peer's turn to act.
    pub(super) fn pace(&self, now: Instant) -> Option<Pace> {
        let mut observed = self.observed();
        let Observed { since, marked, before } = (*observed).filter(|_| !self.is_cut())?;
        let time = now.saturating_duration_since(marked);
        if time < RATE_WINDOW {
            return Some(Pace { since, rate: None });
        }
        let moved = self.moved.load(Relaxed);
        *observed = Some(Observed { since, marked: now, before: moved });
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = moved.saturating_sub(before).saturating_mul(1_000) / millis;
        Some(Pace { since, rate: Some(rate) })
    }

    pub(super) fn add(self: &Arc<Self>, units: u32) {
        if units > 0 && self.reserved.fetch_add(units as usize, Relaxed) == 0 {
            self.part.holders().insert(self.id, Arc::clone(self));
        }
    }

    pub(super) fn sub(&self, units: u32) {
        if units > 0 && self.reserved.fetch_sub(units as usize, Relaxed) == units as usize {
            self.part.holders().remove(&self.id);
        }
    }
}
