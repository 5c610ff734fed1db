//! Wakers on their way to a thread: many are handed over with one call of the system.
//!
//! To wake a task of another thread's event loop writes to that loop's descriptor, each time. Who
//! has a dozen to wake, as the committer has after each sync, would do it a dozen times.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use tokio::sync::Notify;

thread_local! {
    static HERE: RefCell<Option<Arc<WakeQueue>>> = const { RefCell::new(None) };
}

/// The wakers that other threads leave for the tasks of one thread.
#[derive(Debug, Default)]
pub struct WakeQueue {
    left: Mutex<Vec<Waker>>,
    come: Notify,
}

impl WakeQueue {
    /// That of this thread; `None` where there is none.
    pub fn here() -> Option<Arc<Self>> {
        HERE.with_borrow(Clone::clone)
    }

    /// Has `waker`, of a task on this relay's thread, woken there.
    pub fn wake(self: &Arc<Self>, waker: Waker) {
        let is_here =
            HERE.with_borrow(|here| here.as_ref().is_some_and(|here| Arc::ptr_eq(here, self)));
        if is_here {
            return waker.wake();
        }
        self.left.lock().unwrap_or_else(PoisonError::into_inner).push(waker);
        self.come.notify_one();
    }

    /// Makes this the relay of the thread that it is called on, and wakes there who was left.
    pub async fn run(self: Arc<Self>) {
        HERE.set(Some(Arc::clone(&self)));
        let mut wakers = Vec::new();
        loop {
            self.come.notified().await;
            std::mem::swap(
                &mut wakers,
                &mut self.left.lock().unwrap_or_else(PoisonError::into_inner),
            );
            wakers.drain(..).for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::mpsc;
    use std::task::Poll;

    #[test]
    fn whom_another_thread_wakes_goes_on_where_it_is() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (tell, told) = mpsc::channel();
        let other = std::thread::spawn(move || {
            let waiting: Vec<(Arc<WakeQueue>, Waker)> = told.iter().collect();
            waiting.into_iter().for_each(|(wake_queue, waker)| wake_queue.wake(waker));
        });
        runtime.block_on(async {
            tokio::spawn(Arc::<WakeQueue>::default().run());
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..10 {
                let mut tell = Some(tell.clone());
                tasks.spawn(poll_fn(move |cx| match tell.take() {
                    // The relay's own task came first, so it is there.
                    Some(tell) => {
                        tell.send((WakeQueue::here().unwrap(), cx.waker().clone())).unwrap();
                        Poll::Pending
                    }
                    None => Poll::Ready(()),
                }));
            }
            drop(tell);
            tasks.join_all().await;
        });
        other.join().unwrap();
    }
}
