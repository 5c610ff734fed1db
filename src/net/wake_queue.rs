//! Wakers on their way to a thread: many are handed over with one system call.
//!
//! Waking a task of another thread's event loop writes to that loop's descriptor each time. The
//! committer, which wakes a dozen tasks after each sync, would do it a dozen times.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use tokio::sync::Notify;

thread_local! {
    static HERE: RefCell<Option<Arc<WakeQueue>>> = const { RefCell::new(None) };
}

/// Wakers left by other threads for the tasks of one thread.
#[derive(Debug, Default)]
pub struct WakeQueue {
    left: Mutex<Vec<Waker>>,
    come: Notify,
}

impl WakeQueue {
    /// The queue of this thread; `None` where there is none.
    pub fn here() -> Option<Arc<Self>> {
        HERE.with_borrow(Clone::clone)
    }

    /// Queues `waker`, of a task on this queue's thread, to be woken there.
    pub fn wake(self: &Arc<Self>, waker: Waker) {
        let is_here =
            HERE.with_borrow(|here| here.as_ref().is_some_and(|here| Arc::ptr_eq(here, self)));
        if is_here {
            return waker.wake();
        }
        self.left.lock().unwrap_or_else(PoisonError::into_inner).push(waker);
        self.come.notify_one();
    }

    /// Makes this the queue of the calling thread, and wakes queued tasks there.
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
    fn a_task_woken_by_another_thread_stays_on_its_own() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (sender, receiver) = mpsc::channel();
        let other = std::thread::spawn(move || {
            let waiting: Vec<(Arc<WakeQueue>, Waker)> = receiver.iter().collect();
            waiting.into_iter().for_each(|(wake_queue, waker)| wake_queue.wake(waker));
        });
        runtime.block_on(async {
            tokio::spawn(Arc::<WakeQueue>::default().run());
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..10 {
                let mut sender = Some(sender.clone());
                tasks.spawn(poll_fn(move |cx| match sender.take() {
                    // The queue's own task came first, so it is there.
                    Some(sender) => {
                        sender.send((WakeQueue::here().unwrap(), cx.waker().clone())).unwrap();
                        Poll::Pending
                    }
                    None => Poll::Ready(()),
                }));
            }
            drop(sender);
            tasks.join_all().await;
        });
        other.join().unwrap();
    }
}
