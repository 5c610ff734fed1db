//! How far the writes have come, level by level, and who waits to hear of it.

use super::waiters::Waiters;
use crate::disk::DiskError;
use crate::wire::{Gate, Seq};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::sync::watch;

/// How far the writes have come. All writes up to a seq have reached the level of that name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// With the operating system.
    pub stored: Seq,
    /// On the medium.
    pub synced: Seq,
    /// In the tables, and those on the medium.
    pub in_tables: Seq,
    /// Why no write will come any further, when the disk has failed.
    pub failure: Option<Arc<str>>,
    /// The committer has ended: what has not reached its level now never will.
    pub is_settled: bool,
    /// The broker is stopping: what was taken will be answered, nothing more will be taken.
    pub is_stopping: bool,
}

/// What became of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// The reply may be sent.
    Ready,
    /// Not yet.
    Waiting,
    /// Never: the disk failed before it got there.
    Failed,
}

/// The watermarks of a broker, cheap to read and possible to wait for.
#[derive(Debug)]
pub struct Watermarks {
    stored: AtomicU64,
    synced: AtomicU64,
    in_tables: AtomicU64,
    has_failed: AtomicBool,
    progress: watch::Sender<Progress>,
    waiters: Waiters,
}

impl Watermarks {
    /// Watermarks of a store just opened: all up to `seq` is on the medium, up to `in_tables` in
    /// the tables.
    pub fn at(seq: Seq, in_tables: Seq) -> Self {
        let start = Progress { stored: seq, synced: seq, in_tables, ..Progress::default() };
        Self {
            stored: AtomicU64::new(seq),
            synced: AtomicU64::new(seq),
            in_tables: AtomicU64::new(in_tables),
            has_failed: AtomicBool::new(false),
            progress: watch::Sender::new(start),
            waiters: Waiters::default(),
        }
    }

    /// Tells whoever waits; the receiver changes with every step, a failure and the stop.
    pub fn subscribe(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// How far the writes have come.
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Whether a reply that waits for `gate` may be sent.
    pub fn release(&self, gate: Gate) -> Release {
        match self.is_open(gate) {
            true => Release::Ready,
            // Not the flag: who subscribes after the failure was told must find it here. What is on
            // its way when a worker fails may still get there.
            false => match &*self.progress.borrow() {
                Progress { failure: Some(_), is_settled: true, .. } => Release::Failed,
                _ => Release::Waiting,
            },
        }
    }

    fn is_open(&self, gate: Gate) -> bool {
        self.stored.load(Ordering::Acquire) >= gate.stored
            && self.synced.load(Ordering::Acquire) >= gate.synced
            && self.in_tables.load(Ordering::Acquire) >= gate.in_tables
    }

    /// Someone who waits for one gate after another.
    pub fn waiter(&self) -> Waiter<'_> {
        Waiter { watermarks: self, joined: None }
    }

    /// All writes up to `stored` are with the system, all up to `synced` on the medium.
    pub fn committed(&self, stored: Seq, synced: Seq) {
        self.stored.fetch_max(stored, Ordering::AcqRel);
        self.synced.fetch_max(synced, Ordering::AcqRel);
        self.progress.send_modify(|progress| {
            progress.stored = progress.stored.max(stored);
            progress.synced = progress.synced.max(synced);
        });
        self.waiters.wake(|gate| self.is_open(gate));
    }

    /// Waits until all writes up to `seq` are with the operating system; fails when they will not
    /// be. Blocks the thread.
    pub fn wait_stored(&self, seq: Seq) -> Result<(), DiskError> {
        let has_come = |progress: &Progress| progress.stored >= seq || progress.failure.is_some();
        if !has_come(&self.progress.borrow()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let runtime = runtime.map_err(|error| DiskError::new("waiting for the log", error))?;
            let mut progress = self.subscribe();
            // The sender lives as long as `self`, so there is no other error.
            let _ = runtime.block_on(progress.wait_for(has_come)).is_ok();
        }
        match self.failure() {
            Some(reason) => Err(DiskError::new("the log", reason)),
            None => Ok(()),
        }
    }

    /// All writes up to `seq` are in the tables.
    pub fn tabled(&self, seq: Seq) {
        self.in_tables.fetch_max(seq, Ordering::AcqRel);
        self.progress.send_modify(|progress| progress.in_tables = progress.in_tables.max(seq));
        self.waiters.wake(|gate| self.is_open(gate));
    }

    /// No write will come any further. The first reason stays; returns whether it is this one.
    pub fn fail(&self, reason: &Arc<str>) -> bool {
        // Whoever waits is told first: where the disk is full, the log may be too. The flag is up
        // before they wake, or they would go to sleep again; the reason is there before the flag.
        let is_first = self.progress.send_if_modified(|progress| {
            let is_first = progress.failure.is_none();
            if is_first {
                progress.failure = Some(Arc::clone(reason));
                self.has_failed.store(true, Ordering::Release);
            }
            is_first
        });
        if is_first {
            self.waiters.wake_all();
            tracing::error!("the disk failed, writes are refused from now on: {reason}");
        }
        is_first
    }

    /// The committer has ended.
    pub fn settle(&self) {
        self.progress.send_modify(|progress| progress.is_settled = true);
        self.waiters.wake_all();
    }

    /// Wakes whoever hears of every step, to look again.
    pub fn nudge(&self) {
        self.progress.send_modify(|_| {});
    }

    /// The broker is stopping.
    pub fn stopping(&self) {
        self.progress.send_modify(|progress| progress.is_stopping = true);
    }

    /// Whether the broker is stopping.
    pub fn is_stopping(&self) -> bool {
        self.progress.borrow().is_stopping
    }

    /// All writes up to this are with the operating system.
    pub fn stored(&self) -> Seq {
        self.stored.load(Ordering::Acquire)
    }

    /// Whether the disk has failed.
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// Why the disk failed, if it has.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.progress.borrow().failure.clone()
    }
}

/// Someone who waits for one gate after another, and hears of no other.
#[derive(Debug)]
pub struct Waiter<'w> {
    watermarks: &'w Watermarks,
    joined: Option<(u64, Gate)>,
}

impl Waiter<'_> {
    /// Ready when `gate` is open, and when it never will be. Always to be polled by the same task.
    pub fn poll_released(&mut self, context: &Context<'_>, gate: Gate) -> Poll<()> {
        let Watermarks { waiters, .. } = self.watermarks;
        let is_released = || self.watermarks.release(gate) != Release::Waiting;
        if is_released() {
            return Poll::Ready(());
        }
        if self.joined.is_none_or(|(_, joined)| joined != gate) {
            self.leave();
            let ticket = waiters.join(gate, context.waker(), is_released);
            self.joined = ticket.map(|ticket| (ticket, gate));
        }
        if self.joined.is_some() { Poll::Pending } else { Poll::Ready(()) }
    }

    fn leave(&mut self) {
        if let Some((ticket, _)) = self.joined.take() {
            self.watermarks.waiters.leave(ticket);
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_stays_and_nobody_hears_of_the_next() {
        let watermarks = Watermarks::at(3, 3);
        let mut progress = watermarks.subscribe();
        assert!(watermarks.fail(&"the first".into()));
        assert_eq!(progress.borrow_and_update().failure.as_deref(), Some("the first"));
        assert!(!watermarks.fail(&"the second".into()));
        assert!(!progress.has_changed().unwrap());
        assert_eq!(watermarks.failure().as_deref(), Some("the first"));
        assert!(watermarks.has_failed());
    }
    /// Whether `waiter` may go on; nothing is really woken.
    fn is_released(waiter: &mut Waiter<'_>, synced: Seq) -> bool {
        let gate = Gate { synced, ..Gate::OPEN };
        waiter.poll_released(&Context::from_waker(std::task::Waker::noop()), gate).is_ready()
    }

    #[test]
    fn who_waits_hears_of_its_gate_and_of_the_end_of_hope() {
        let watermarks = Watermarks::at(3, 3);
        let (mut first, mut second) = (watermarks.waiter(), watermarks.waiter());
        assert!(is_released(&mut first, 3));
        assert!(!is_released(&mut first, 4) && !is_released(&mut second, 9));
        watermarks.committed(5, 5);
        assert!(is_released(&mut first, 4) && !is_released(&mut first, 6));
        watermarks.fail(&"the disk".into());
        assert!(!is_released(&mut second, 9), "what is on its way may still get there");
        watermarks.settle();
        assert!(is_released(&mut first, 6) && is_released(&mut second, 9));
    }
}
