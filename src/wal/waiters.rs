//! Tasks that wait for a barrier: each is woken when its own barrier opens.
//!
//! A commit wakes only the tasks that it satisfies, and not every waiting task.

use crate::net::wake_queue::WakeQueue;
use crate::protocol::DurabilityBarrier;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// The waiting tasks, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    last_ticket: u64,
    entries: Vec<Entry>,
}

/// The event that a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaits {
    /// All writes of a barrier have reached their levels.
    All(DurabilityBarrier),
    /// The writes have reached one of a barrier's seqs.
    Any(DurabilityBarrier),
}

#[derive(Debug)]
struct Entry {
    ticket: u64,
    awaits: Awaits,
    waker: Waker,
    wake_queue: Option<Arc<WakeQueue>>,
}

impl Entry {
    fn wake(self) {
        match self.wake_queue {
            Some(wake_queue) => wake_queue.wake(self.waker),
            None => self.waker.wake(),
        }
    }
}

impl Waiters {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers `waker` for what it awaits, unless `is_open` returns true. `is_open` is called
    /// under the lock that `wake` takes; so a thread that first opens a barrier and then wakes
    /// misses no task. Returns the ticket to leave with.
    pub(super) fn join(
        &self,
        awaits: Awaits,
        waker: &Waker,
        is_open: impl FnOnce() -> bool,
    ) -> Option<u64> {
        let mut waiting = self.waiting();
        if is_open() {
            return None;
        }
        waiting.last_ticket += 1;
        let ticket = waiting.last_ticket;
        let (waker, wake_queue) = (waker.clone(), WakeQueue::here());
        waiting.entries.push(Entry { ticket, awaits, waker, wake_queue });
        Some(ticket)
    }

    /// Removes the waiter with `ticket`, if it is still registered.
    pub(super) fn leave(&self, ticket: u64) {
        let mut waiting = self.waiting();
        let place = waiting.entries.binary_search_by_key(&ticket, |entry| entry.ticket);
        if let Ok(place) = place {
            waiting.entries.remove(place);
        }
    }

    /// Wakes all waiters to check again; those whose barriers are not open keep waiting.
    pub(super) fn wake_all(&self) {
        let waiting = self.waiting();
        let wakers: Vec<Waker> = waiting.entries.iter().map(|entry| entry.waker.clone()).collect();
        drop(waiting);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Wakes and removes the waiters whose barriers are open.
    pub(super) fn wake(&self, is_open: impl Fn(Awaits) -> bool) {
        let mut waiting = self.waiting();
        let woken = waiting.entries.extract_if(.., |entry| is_open(entry.awaits));
        let woken: Vec<Entry> = woken.collect();
        drop(waiting);
        woken.into_iter().for_each(Entry::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn barrier(synced: u64) -> Awaits {
        Awaits::All(DurabilityBarrier { synced, ..DurabilityBarrier::OPEN })
    }

    fn is_synced(awaits: Awaits, seq: u64) -> bool {
        matches!(awaits, Awaits::All(barrier) if barrier.synced <= seq)
    }

    /// One waiter for each of the barriers 1 to 3, with its ticket.
    fn three(waiters: &Waiters) -> Vec<(Arc<Count>, u64)> {
        let join = |number| {
            let count = Arc::<Count>::default();
            let waker = Waker::from(Arc::clone(&count));
            (count, waiters.join(barrier(number), &waker, || false).unwrap())
        };
        (1..=3).map(join).collect()
    }

    fn woken(all: &[(Arc<Count>, u64)]) -> Vec<usize> {
        all.iter().map(|(count, _)| count.0.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn only_waiters_whose_barrier_opens_are_woken_and_once() {
        let waiters = Waiters::default();
        let all = three(&waiters);
        waiters.wake(|awaits| is_synced(awaits, 2));
        assert_eq!(woken(&all), [1, 1, 0]);
        waiters.wake(|awaits| is_synced(awaits, 3));
        assert_eq!(woken(&all), [1, 1, 1]);
    }

    #[test]
    fn a_waiter_that_left_is_not_woken_and_one_woken_to_check_stays() {
        let waiters = Waiters::default();
        let all = three(&waiters);
        waiters.leave(all[1].1);
        waiters.wake_all();
        assert_eq!(woken(&all), [1, 0, 1]);
        waiters.wake(|_| true);
        assert_eq!(woken(&all), [2, 0, 2]);
        waiters.leave(all[0].1);
    }

    #[test]
    fn a_waiter_does_not_join_an_open_barrier() {
        let waiters = Waiters::default();
        assert_eq!(waiters.join(barrier(1), Waker::noop(), || true), None);
        assert!(waiters.waiting().entries.is_empty());
    }
}
