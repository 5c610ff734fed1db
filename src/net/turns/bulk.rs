//! Bulk turns: a few connections of a thread at a time do work that no request waits for.
//!
//! A thread polls its tasks in the order in which they were woken, so a request waits for all tasks
//! woken before it. One commit wakes each subscriber of the thread, and one process that ends
//! closes thousands of connections. Such tasks first wait here for their turn. At most [`AT_ONCE`]
//! of them are in the thread's queue at a time, first come, first served.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::{Notify, Semaphore};
use tokio::task::yield_now;

/// How many tasks of a thread get a bulk turn at once. After the thread was idle, the same number
/// begin theirs without a wait.
pub const AT_ONCE: usize = 16;

thread_local! {
    static LINE: RefCell<Option<Arc<Line>>> = const { RefCell::new(None) };
    /// The turns that began at once since the thread was idle.
    static IMMEDIATE: Cell<usize> = const { Cell::new(0) };
}

/// The tasks of one thread that wait for a bulk turn.
#[derive(Debug)]
struct Line {
    /// A permit for each turn that is granted.
    turns: Semaphore,
    come: Notify,
    waiting: AtomicUsize,
}

/// The thread has nothing to do: the next tasks delay no request.
pub(super) fn idle() {
    IMMEDIATE.set(0);
}

/// Grants the turns of the thread that runs it: a few, then all other tasks go on, then the next
/// few.
pub async fn run() {
    let (turns, come) = (Semaphore::new(0), Notify::new());
    let line = Arc::new(Line { turns, come, waiting: AtomicUsize::new(0) });
    LINE.set(Some(Arc::clone(&line)));
    loop {
        // Permits of tasks that were dropped before their turns.
        line.turns.forget_permits(AT_ONCE);
        match line.waiting.load(Relaxed).min(AT_ONCE) {
            0 => line.come.notified().await,
            few => {
                line.turns.add_permits(few);
                yield_now().await;
            }
        }
    }
}

/// Counts a waiting task, for as long as it waits.
struct Waiting<'l>(&'l Line);

impl<'l> Waiting<'l> {
    fn begin(line: &'l Line) -> Self {
        line.waiting.fetch_add(1, Relaxed);
        line.come.notify_one();
        Self(line)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// Waits for a bulk turn, which lasts until the task waits for anything. Returns at once on a
/// thread that grants no turns.
pub async fn turn() {
    let immediate = IMMEDIATE.get();
    match LINE.with_borrow(Clone::clone) {
        Some(line) if immediate >= AT_ONCE => {
            let _waiting = Waiting::begin(&line);
            // The semaphore is never closed.
            if let Ok(turn) = line.turns.acquire().await {
                turn.forget();
            }
        }
        _ => IMMEDIATE.set(immediate.saturating_add(1)),
    }
    #[cfg(test)]
    tests::TURNS.set(tests::TURNS.get() + 1);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::future::Future;
    use std::sync::Mutex;
    use tokio::sync::Barrier;

    thread_local! {
        /// How many bulk turns this thread has had.
        pub(super) static TURNS: Cell<usize> = const { Cell::new(0) };
    }

    /// Runs a test on a thread that polls its sockets after each task.
    pub(crate) fn run(test: impl Future<Output = ()>) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.event_interval(1).enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::spawn(super::run());
            yield_now().await;
            test.await;
        });
    }

    /// How many bulk turns this thread has between two turns of a task that runs again and again:
    /// the most, and all, until `done` is true.
    pub(crate) async fn between_requests(
        mut done: impl FnMut() -> bool + Send + 'static,
    ) -> (usize, usize) {
        let requests = async move {
            let first = TURNS.get();
            let (mut most, mut last) = (0, first);
            while !done() {
                yield_now().await;
                let now = TURNS.get();
                (most, last) = (most.max(now - last), now);
            }
            (most, last - first)
        };
        tokio::spawn(requests).await.unwrap()
    }

    #[test]
    fn a_request_waits_for_a_few_of_all_that_one_event_wakes() {
        run(async {
            const ALL: usize = 1_000;
            let (event, order) = (Arc::new(Notify::new()), Arc::new(Mutex::new(Vec::new())));
            let all_wait = Arc::new(Barrier::new(ALL + 1));
            for number in 0..ALL {
                let (event, order) = (Arc::clone(&event), Arc::clone(&order));
                let all_wait = Arc::clone(&all_wait);
                tokio::spawn(async move {
                    all_wait.wait().await;
                    event.notified().await;
                    turn().await;
                    order.lock().unwrap().push(number);
                });
            }
            all_wait.wait().await;
            yield_now().await;
            for _ in 0..ALL {
                yield_now().await;
            }
            event.notify_waiters();
            let (most, all) = between_requests(move || order.lock().unwrap().len() == ALL).await;
            // Turns that begin at once do so before the first request.
            assert_eq!(all, ALL - AT_ONCE);
            assert!(most <= 2 * AT_ONCE, "{most} at once");
        });
    }
}
