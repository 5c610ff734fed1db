//! A future that is polled only after its waker was called, and not each time its task is polled.
//!
//! A connection's task waits for much besides its peer: the stop signal, the next look at the
//! clock. Polling all of that for each message (lock a channel's list, enter it, leave it again)
//! took more instructions than executing a command.

use futures_util::task::AtomicWaker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// A wait, given as the function that polls it. Must always be polled by the same task.
#[derive(Debug)]
pub(super) struct PollOnWake<P> {
    poll: P,
    call: Arc<Call>,
    waker: Waker,
}

/// Whether the waker was called, and the task to wake.
#[derive(Debug)]
struct Call {
    is_due: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_due.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<T, P: FnMut(&mut Context<'_>) -> Poll<T>> PollOnWake<P> {
    /// The first call of [`Self::poll`] calls `poll`.
    pub(super) fn new(poll: P) -> Self {
        let call = Arc::new(Call { is_due: AtomicBool::new(true), task: AtomicWaker::new() });
        let waker = Waker::from(Arc::clone(&call));
        Self { poll, call, waker }
    }

    /// Calls the function again if its waker was called since, or if it was ready the last time.
    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<T> {
        if !self.call.is_due.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.call.task.register(context.waker());
        // Cleared before the call: a wake during the call causes one more.
        self.call.is_due.store(false, Ordering::Release);
        let polled = (self.poll)(&mut Context::from_waker(&self.waker));
        if polled.is_ready() {
            self.call.is_due.store(true, Ordering::Release);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    #[test]
    fn the_function_is_polled_after_a_wake_and_after_it_was_ready() {
        let (polled_count, is_ready) = (Cell::new(0), Cell::new(false));
        let inner: RefCell<Option<Waker>> = RefCell::default();
        let mut waited = PollOnWake::new(|cx| {
            polled_count.set(polled_count.get() + 1);
            inner.replace(Some(cx.waker().clone()));
            if is_ready.get() { Poll::Ready(()) } else { Poll::Pending }
        });
        let task = Arc::new(Call { is_due: AtomicBool::new(false), task: AtomicWaker::new() });
        let waker = Waker::from(Arc::clone(&task));
        let context = Context::from_waker(&waker);
        for _ in 0..3 {
            assert!(waited.poll(&context).is_pending());
        }
        assert_eq!(polled_count.get(), 1);
        is_ready.set(true);
        assert!(waited.poll(&context).is_pending(), "its waker was not called");
        inner.take().unwrap().wake();
        assert!(task.is_due.load(Ordering::Acquire), "its task is woken");
        assert!(waited.poll(&context).is_ready() && waited.poll(&context).is_ready());
        assert_eq!(polled_count.get(), 3);
    }

    #[test]
    fn a_wake_during_a_poll_causes_another_poll() {
        let polled_count = Cell::new(0);
        let mut waited = PollOnWake::new(|cx| {
            polled_count.set(polled_count.get() + 1);
            if polled_count.get() == 1 {
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });
        for _ in 0..4 {
            assert!(waited.poll(&Context::from_waker(Waker::noop())).is_pending());
        }
        assert_eq!(polled_count.get(), 2);
    }
}
