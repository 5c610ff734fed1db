//! A wait that is polled when it was woken, and not each time its task is.
//!
//! A connection's task waits for much besides its peer: for the stop, for its turn to look at the
//! clock. To poll all of it for each message (to lock a channel's list, to enter oneself, to leave
//! it again) took more instructions than to execute a command.

use futures_util::task::AtomicWaker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// What is waited for, said as the function that polls it. Always to be polled by the same task.
#[derive(Debug)]
pub(super) struct PollOnWake<P> {
    poll: P,
    call: Arc<Call>,
    waker: Waker,
}

/// Whether it was woken, and who is to hear of that.
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
    /// The first poll asks `poll`.
    pub(super) fn new(poll: P) -> Self {
        let call = Arc::new(Call { is_due: AtomicBool::new(true), task: AtomicWaker::new() });
        let waker = Waker::from(Arc::clone(&call));
        Self { poll, call, waker }
    }

    /// Asks again when it was woken since, or was ready the last time.
    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<T> {
        if !self.call.is_due.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.call.task.register(context.waker());
        // Before it is asked: whoever wakes it meanwhile has it asked once more.
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
    fn it_is_asked_when_it_was_woken_and_after_it_was_ready() {
        let (asked, is_ready) = (Cell::new(0), Cell::new(false));
        let inner: RefCell<Option<Waker>> = RefCell::default();
        let mut waited = PollOnWake::new(|cx| {
            asked.set(asked.get() + 1);
            inner.replace(Some(cx.waker().clone()));
            if is_ready.get() { Poll::Ready(()) } else { Poll::Pending }
        });
        let task = Arc::new(Call { is_due: AtomicBool::new(false), task: AtomicWaker::new() });
        let waker = Waker::from(Arc::clone(&task));
        let context = Context::from_waker(&waker);
        for _ in 0..3 {
            assert!(waited.poll(&context).is_pending());
        }
        assert_eq!(asked.get(), 1);
        is_ready.set(true);
        assert!(waited.poll(&context).is_pending(), "nobody has woken it");
        inner.take().unwrap().wake();
        assert!(task.is_due.load(Ordering::Acquire), "its task hears of it");
        assert!(waited.poll(&context).is_ready() && waited.poll(&context).is_ready());
        assert_eq!(asked.get(), 3);
    }

    #[test]
    fn who_wakes_it_while_it_is_asked_is_heard() {
        let asked = Cell::new(0);
        let mut waited = PollOnWake::new(|cx| {
            asked.set(asked.get() + 1);
            if asked.get() == 1 {
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });
        for _ in 0..4 {
            assert!(waited.poll(&Context::from_waker(Waker::noop())).is_pending());
        }
        assert_eq!(asked.get(), 2);
    }
}
