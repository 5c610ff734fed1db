//! The threads that serve connections. Each has its own event loop, as in nginx and memcached, and
//! a connection stays on the thread that it was given to.
//!
//! A work-stealing runtime wakes another thread whenever two sockets are ready: where a request
//! takes a microsecond, that costs more than the request.

use crate::net::busy_poll;
use crate::net::turns::{self, bulk};
use crate::net::wake_queue::WakeQueue;
use std::future::poll_fn;
use std::io;
use std::num::NonZero;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, oneshot};

/// The event loops of a broker. They end when this is dropped and the last connection has ended.
#[derive(Debug)]
pub struct IoThreads {
    first: Arc<EventLoop>,
    others: Vec<Arc<EventLoop>>,
    /// The number of connections so far.
    placed: AtomicUsize,
}

#[derive(Debug)]
struct EventLoop {
    handle: Handle,
    connections: AtomicUsize,
    /// The thread ends when this sender is dropped.
    _running: oneshot::Sender<()>,
}

impl IoThreads {
    /// Starts `count` threads, or one for each core that the process may use. Each polls for this
    /// long before it sleeps (see `busy_poll`).
    pub fn start(count: Option<NonZero<usize>>, look: Duration) -> io::Result<Self> {
        let cores = || thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        let count = count.unwrap_or_else(cores).get();
        let first = EventLoop::start(look)?;
        let others = (1..count).map(|_| EventLoop::start(look)).collect::<io::Result<_>>()?;
        Ok(Self { first, others, placed: AtomicUsize::new(0) })
    }

    /// Assigns the connection that `work` serves to the thread with the fewest: returns where to
    /// spawn it, and the task; its place is free again when the task ends. A socket belongs to the
    /// loop on which it became a tokio socket, so `work` has to do that.
    pub fn place<W: Future>(&self, work: W) -> (Handle, impl Future<Output = W::Output> + use<W>) {
        let place = self.find();
        let handle = place.0.handle.clone();
        let number = self.placed.fetch_add(1, Ordering::Relaxed);
        let placed = async move {
            let mut work = pin!(work);
            let done = poll_fn(|cx| {
                busy_poll::turn(number);
                work.as_mut().poll(cx)
            });
            let done = done.await;
            drop(place);
            done
        };
        (handle, placed)
    }

    fn find(&self) -> Place {
        let count = |event_loop: &EventLoop| event_loop.connections.load(Ordering::Relaxed);
        let fewest = self.others.iter().fold(&self.first, |fewest, other| {
            if count(other) < count(fewest) { other } else { fewest }
        });
        fewest.connections.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(fewest))
    }
}

impl EventLoop {
    fn start(look: Duration) -> io::Result<Arc<Self>> {
        let once_more = Arc::new(Notify::new());
        let looks = Arc::clone(&once_more);
        let mut builder = Builder::new_current_thread();
        builder.on_thread_park(move || {
            turns::idle();
            // With a runnable task, the loop polls the system for events without waiting.
            if busy_poll::should_spin(look) {
                looks.notify_one();
            }
        });
        let runtime = builder.enable_all().build()?;
        let handle = runtime.handle().clone();
        runtime.spawn(async move {
            loop {
                once_more.notified().await;
            }
        });
        runtime.spawn(bulk::run());
        runtime.spawn(Arc::<WakeQueue>::default().run());
        let (running, ended) = oneshot::channel();
        // Waits until the sender is dropped.
        let run = move || drop(runtime.block_on(ended));
        thread::Builder::new().name("vatn-edge".to_owned()).spawn(run)?;
        Ok(Arc::new(Self { handle, connections: AtomicUsize::new(0), _running: running }))
    }
}

/// A connection's place on one of the threads; freed when dropped.
#[derive(Debug)]
struct Place(Arc<EventLoop>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::sync::mpsc;
    use tokio::task::JoinHandle;

    const LOOK: Duration = Duration::from_micros(50);

    /// A connection that lasts until it is released.
    struct Connection {
        leave: oneshot::Sender<()>,
        task: JoinHandle<()>,
        thread: thread::ThreadId,
    }

    impl Connection {
        fn on(io_threads: &IoThreads) -> Self {
            let (sender, receiver) = mpsc::channel();
            let (leave, left) = oneshot::channel();
            let (handle, served) = io_threads.place(async move {
                sender.send(thread::current().id()).unwrap();
                let _ = left.await;
            });
            let task = handle.spawn(served);
            Self { leave, task, thread: receiver.recv().unwrap() }
        }

        fn end(self) {
            drop(self.leave);
            wait(self.task).unwrap();
        }
    }

    fn wait<T>(task: JoinHandle<T>) -> Result<T, tokio::task::JoinError> {
        Builder::new_current_thread().build().unwrap().block_on(task)
    }

    #[test]
    fn a_connection_goes_to_the_thread_with_the_fewest() {
        let io_threads = IoThreads::start(NonZero::new(3), LOOK).unwrap();
        let mut all: Vec<_> = (0..6).map(|_| Connection::on(&io_threads)).collect();
        let threads: Vec<_> = all.iter().map(|connection| connection.thread).collect();
        assert_eq!(threads[..3], threads[3..]);
        assert!(threads[0] != threads[1] && threads[1] != threads[2] && threads[0] != threads[2]);
        all.remove(4).end();
        all.remove(1).end();
        let next = [Connection::on(&io_threads), Connection::on(&io_threads)];
        assert_eq!(next.map(|connection| connection.thread), [threads[1], threads[1]]);
    }

    #[test]
    fn a_loop_goes_on_while_it_has_a_connection() {
        let io_threads = IoThreads::start(NonZero::new(1), LOOK).unwrap();
        let connection = Connection::on(&io_threads);
        let (handle, _) = io_threads.place(async {});
        drop(io_threads);
        let later = handle.spawn(async { tokio::task::yield_now().await });
        wait(later).unwrap();
        let endless = handle.spawn(pending::<()>());
        connection.end();
        assert!(wait(endless).unwrap_err().is_cancelled());
    }
}
