//! Watermarks: how far the writes have come at each level, and the tasks that wait for them.

use super::waiters::{Awaits, Waiters};
use crate::protocol::{DurabilityBarrier, Seq};
use crate::storage::StorageError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::sync::watch;

/// The progress of the writes. All writes up to a seq have reached the level of that name.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// The operating system has them.
    pub stored: Seq,
    /// The disk has them.
    pub synced: Seq,
    /// The tables have them, and the disk.
    pub checkpointed: Seq,
    /// The failure of the disk, after which no write proceeds.
    pub failure: Option<StorageError>,
    /// The committer has ended: a write that has not reached its level now never will.
    pub is_settled: bool,
    /// The broker is stopping: accepted requests will be answered, and no more are accepted.
    pub is_stopping: bool,
}

/// The status of a barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarrierStatus {
    /// The reply may be sent.
    Ready,
    /// Not yet.
    Waiting,
    /// Never: the disk failed before it got there.
    Failed,
}

/// The watermarks of a broker: cheap to read, and possible to wait for.
#[derive(Debug)]
pub struct Watermarks {
    stored: AtomicU64,
    synced: AtomicU64,
    checkpointed: AtomicU64,
    has_failed: AtomicBool,
    progress: watch::Sender<Progress>,
    waiters: Waiters,
}

impl Watermarks {
    /// The watermarks of a store just opened: the disk has all writes up to `seq`, the tables those
    /// up to `checkpointed`.
    pub fn at(seq: Seq, checkpointed: Seq) -> Self {
        let start = Progress { stored: seq, synced: seq, checkpointed, ..Progress::default() };
        Self {
            stored: AtomicU64::new(seq),
            synced: AtomicU64::new(seq),
            checkpointed: AtomicU64::new(checkpointed),
            has_failed: AtomicBool::new(false),
            progress: watch::Sender::new(start),
            waiters: Waiters::default(),
        }
    }

    /// A channel that changes with every step, with a failure and with the stop.
    pub fn subscribe(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// The current progress.
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Whether a reply that waits for `barrier` may be sent.
    pub fn barrier_status(&self, barrier: DurabilityBarrier) -> BarrierStatus {
        match self.is_open(barrier) {
            true => BarrierStatus::Ready,
            // Reads the reason and not the flag: a task that subscribes after the failure was
            // announced must find it here. A write in progress when the checkpointer fails may
            // still reach its level.
            false if self.is_lost() => BarrierStatus::Failed,
            false => BarrierStatus::Waiting,
        }
    }

    /// Whether writes that have not reached their level never will.
    fn is_lost(&self) -> bool {
        let progress = self.progress.borrow();
        progress.failure.is_some() && progress.is_settled
    }

    fn is_open(&self, barrier: DurabilityBarrier) -> bool {
        self.stored.load(Ordering::Acquire) >= barrier.stored
            && self.synced.load(Ordering::Acquire) >= barrier.synced
            && self.checkpointed.load(Ordering::Acquire) >= barrier.checkpointed
    }

    fn has_come(&self, awaits: Awaits) -> bool {
        match awaits {
            Awaits::All(barrier) => self.is_open(barrier),
            Awaits::Any(barrier) => {
                self.stored.load(Ordering::Acquire) >= barrier.stored
                    || self.synced.load(Ordering::Acquire) >= barrier.synced
                    || self.checkpointed.load(Ordering::Acquire) >= barrier.checkpointed
            }
        }
    }

    /// The first seq that `barrier` still waits for; the other seqs are set to the maximum.
    pub fn next_step(&self, barrier: DurabilityBarrier) -> DurabilityBarrier {
        let mut step =
            DurabilityBarrier { stored: Seq::MAX, synced: Seq::MAX, checkpointed: Seq::MAX };
        if self.stored.load(Ordering::Acquire) < barrier.stored {
            step.stored = barrier.stored;
        } else if self.synced.load(Ordering::Acquire) < barrier.synced {
            step.synced = barrier.synced;
        } else {
            step.checkpointed = barrier.checkpointed;
        }
        step
    }

    /// A waiter for one barrier after another.
    pub fn waiter(&self) -> Waiter<'_> {
        Waiter { watermarks: self, joined: None, saw_stop: false }
    }

    /// The operating system has all writes up to `stored`, the disk those up to `synced`.
    pub fn committed(&self, stored: Seq, synced: Seq) {
        self.stored.fetch_max(stored, Ordering::AcqRel);
        self.synced.fetch_max(synced, Ordering::AcqRel);
        self.progress.send_modify(|progress| {
            progress.stored = progress.stored.max(stored);
            progress.synced = progress.synced.max(synced);
        });
        self.waiters.wake(|awaits| self.has_come(awaits));
    }

    /// Waits until the operating system has all writes up to `seq`; fails when it never will.
    /// Blocks the thread.
    pub fn wait_stored(&self, seq: Seq) -> Result<(), StorageError> {
        let has_come = |progress: &Progress| progress.stored >= seq || progress.failure.is_some();
        if !has_come(&self.progress.borrow()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let runtime =
                runtime.map_err(|error| StorageError::new("waiting for the log", error))?;
            let mut progress = self.subscribe();
            // The sender lives as long as `self`, so no other error is possible.
            let _ = runtime.block_on(progress.wait_for(has_come)).is_ok();
        }
        match self.failure() {
            Some(reason) => Err(StorageError::new("the log", reason)),
            None => Ok(()),
        }
    }

    /// The tables hold all writes up to `seq`.
    pub fn checkpointed(&self, seq: Seq) {
        self.checkpointed.fetch_max(seq, Ordering::AcqRel);
        self.progress
            .send_modify(|progress| progress.checkpointed = progress.checkpointed.max(seq));
        self.waiters.wake(|awaits| self.has_come(awaits));
    }

    /// Records the failure that stops all writes. The first reason stays; returns whether this is
    /// the first.
    pub fn fail(&self, reason: &StorageError) -> bool {
        // Waiting tasks are notified first: where the disk is full, the log may be full too. The
        // flag is set before they wake, or they would sleep again; the reason is set before the
        // flag.
        let is_first = self.progress.send_if_modified(|progress| {
            let is_first = progress.failure.is_none();
            if is_first {
                progress.failure = Some(reason.clone());
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

    /// Records that the committer has ended.
    pub fn settle(&self) {
        self.progress.send_modify(|progress| progress.is_settled = true);
        self.waiters.wake_all();
    }

    /// Records that the broker is stopping.
    pub fn stopping(&self) {
        self.progress.send_modify(|progress| progress.is_stopping = true);
        self.waiters.wake_all();
    }

    /// Whether the broker is stopping.
    pub fn is_stopping(&self) -> bool {
        self.progress.borrow().is_stopping
    }

    /// The operating system has all writes up to this seq.
    pub fn stored(&self) -> Seq {
        self.stored.load(Ordering::Acquire)
    }

    /// Whether the disk has failed.
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// Why the disk failed, if it has.
    pub fn failure(&self) -> Option<StorageError> {
        self.progress.borrow().failure.clone()
    }
}

/// A waiter for one barrier after another, notified of its own barrier only.
#[derive(Debug)]
pub struct Waiter<'w> {
    watermarks: &'w Watermarks,
    joined: Option<(u64, Awaits)>,
    /// Whether it has already reported that the broker stops.
    saw_stop: bool,
}

impl Waiter<'_> {
    /// Ready when `barrier` is open or can no longer open. Only one task polls it.
    pub fn poll_released(&mut self, context: &Context<'_>, barrier: DurabilityBarrier) -> Poll<()> {
        let watermarks = self.watermarks;
        let is_released = || watermarks.barrier_status(barrier) != BarrierStatus::Waiting;
        self.poll(context, Awaits::All(barrier), is_released)
    }

    /// Ready when the writes reach one of the seqs of `step`, when they never will, and once when
    /// the broker stops. Always polled by the same task.
    pub fn poll_step(&mut self, context: &Context<'_>, step: DurabilityBarrier) -> Poll<()> {
        let watermarks = self.watermarks;
        if !self.saw_stop && watermarks.is_stopping() {
            self.saw_stop = true;
            return Poll::Ready(());
        }
        let saw_stop = self.saw_stop;
        let has_come = || {
            watermarks.has_come(Awaits::Any(step))
                || !saw_stop && watermarks.is_stopping()
                || watermarks.is_lost()
        };
        self.poll(context, Awaits::Any(step), has_come)
    }

    fn poll(
        &mut self,
        context: &Context<'_>,
        awaits: Awaits,
        has_come: impl Fn() -> bool,
    ) -> Poll<()> {
        if has_come() {
            return Poll::Ready(());
        }
        if self.joined.is_none_or(|(_, joined)| joined != awaits) {
            self.leave();
            let waiters = &self.watermarks.waiters;
            let ticket = waiters.join(awaits, context.waker(), has_come);
            self.joined = ticket.map(|ticket| (ticket, awaits));
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
    use std::sync::Arc;

    fn failure(text: &str) -> StorageError {
        StorageError::new("the log", text)
    }

    #[test]
    fn the_first_failure_is_kept_and_a_second_is_not_announced() {
        let watermarks = Watermarks::at(3, 3);
        let mut progress = watermarks.subscribe();
        assert!(watermarks.fail(&failure("the first")));
        let seen = progress.borrow_and_update().failure.clone();
        assert!(seen.unwrap().to_string().ends_with("the first"));
        assert!(!watermarks.fail(&failure("the second")));
        assert!(!progress.has_changed().unwrap());
        assert!(watermarks.failure().unwrap().to_string().ends_with("the first"));
        assert!(watermarks.has_failed());
    }
    /// Whether `waiter` may go on; the waker does nothing.
    fn is_released(waiter: &mut Waiter<'_>, synced: Seq) -> bool {
        let barrier = DurabilityBarrier { synced, ..DurabilityBarrier::OPEN };
        waiter.poll_released(&Context::from_waker(std::task::Waker::noop()), barrier).is_ready()
    }

    #[test]
    fn a_distant_step_does_not_wake_and_the_stop_wakes_once() {
        #[derive(Default)]
        struct Count(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let watermarks = Watermarks::at(3, 3);
        let count = Arc::<Count>::default();
        let waker = std::task::Waker::from(Arc::clone(&count));
        let context = Context::from_waker(&waker);
        let step = watermarks.next_step(DurabilityBarrier {
            stored: 9,
            synced: 5,
            ..DurabilityBarrier::OPEN
        });
        assert_eq!(step, DurabilityBarrier { stored: 9, synced: Seq::MAX, checkpointed: Seq::MAX });
        let mut waiter = watermarks.waiter();
        assert!(waiter.poll_step(&context, step).is_pending());
        (4..9).for_each(|seq| watermarks.committed(seq, seq));
        assert_eq!(count.0.load(Ordering::Relaxed), 0, "nothing for it yet");
        watermarks.committed(9, 4);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(waiter.poll_step(&context, step).is_ready());
        let step = DurabilityBarrier { stored: Seq::MAX, ..step };
        assert!(waiter.poll_step(&context, step).is_pending());
        watermarks.stopping();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert!(waiter.poll_step(&context, step).is_ready());
        assert!(waiter.poll_step(&context, step).is_pending(), "it knows");
    }

    #[test]
    fn a_waiter_wakes_when_its_barrier_opens_or_can_no_longer_open() {
        let watermarks = Watermarks::at(3, 3);
        let (mut first, mut second) = (watermarks.waiter(), watermarks.waiter());
        assert!(is_released(&mut first, 3));
        assert!(!is_released(&mut first, 4) && !is_released(&mut second, 9));
        watermarks.committed(5, 5);
        assert!(is_released(&mut first, 4) && !is_released(&mut first, 6));
        watermarks.fail(&failure("the disk"));
        assert!(!is_released(&mut second, 9), "a write in progress may still reach its level");
        watermarks.settle();
        assert!(is_released(&mut first, 6) && is_released(&mut second, 9));
    }
}
