//! The threads that serve connections. Each has an event loop of its own, as nginx and memcached
//! have, and a connection stays on the one that it was given to.
//!
//! A runtime whose threads take each other's work wakes another thread whenever two sockets have
//! something: where a request takes a microsecond, that costs more than the request.

use crate::relay::Relay;
use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The event loops of a broker. They end when this is dropped, and the last connection has ended.
#[derive(Debug)]
pub struct Loops {
    first: Arc<EventLoop>,
    others: Vec<Arc<EventLoop>>,
}

#[derive(Debug)]
struct EventLoop {
    handle: Handle,
    connections: AtomicUsize,
    /// The thread ends when this goes.
    _running: oneshot::Sender<()>,
}

impl Loops {
    /// Starts `count` threads.
    pub fn start(count: NonZero<usize>) -> io::Result<Self> {
        let first = EventLoop::start()?;
        let others = (1..count.get()).map(|_| EventLoop::start()).collect::<io::Result<_>>()?;
        Ok(Self { first, others })
    }

    /// A thread for each core that the process may use.
    pub fn for_all_cores() -> io::Result<Self> {
        Self::start(thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN))
    }

    /// A place for a connection, where there are the fewest.
    pub fn place(&self) -> Place {
        let count = |event_loop: &EventLoop| event_loop.connections.load(Ordering::Relaxed);
        let fewest = self.others.iter().fold(&self.first, |fewest, other| {
            if count(other) < count(fewest) { other } else { fewest }
        });
        fewest.connections.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(fewest))
    }
}

impl EventLoop {
    fn start() -> io::Result<Arc<Self>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        runtime.spawn(Arc::<Relay>::default().run());
        let (running, ended) = oneshot::channel();
        // That the sender is gone is what it waits for.
        let run = move || drop(runtime.block_on(ended));
        thread::Builder::new().name("vatn-edge".to_owned()).spawn(run)?;
        Ok(Arc::new(Self { handle, connections: AtomicUsize::new(0), _running: running }))
    }
}

/// A connection's place on one of the threads; free again when dropped.
#[derive(Debug)]
pub struct Place(Arc<EventLoop>);

impl Place {
    /// Where to spawn what serves the connection. A socket belongs to the loop on which it was made
    /// a tokio socket.
    pub fn handle(&self) -> &Handle {
        &self.0.handle
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(loops: &Loops, count: usize) -> Vec<(Place, thread::ThreadId)> {
        let places = (0..count).map(|_| loops.place());
        let with_id = |place: Place| {
            let (tell, told) = std::sync::mpsc::channel();
            place.handle().spawn(async move { tell.send(thread::current().id()) });
            let id = told.recv().unwrap();
            (place, id)
        };
        places.map(with_id).collect()
    }

    #[test]
    fn a_connection_goes_where_there_are_the_fewest() {
        let loops = Loops::start(NonZero::new(3).unwrap()).unwrap();
        let mut places = ids(&loops, 6);
        let threads: Vec<_> = places.iter().map(|(_, id)| *id).collect();
        assert_eq!(threads[..3], threads[3..]);
        assert!(threads[0] != threads[1] && threads[1] != threads[2] && threads[0] != threads[2]);
        drop((places.remove(4), places.remove(1)));
        let [(_, third), (_, fourth)] = &ids(&loops, 2)[..] else { panic!() };
        assert_eq!([*third, *fourth], [threads[1], threads[1]]);
    }

    #[test]
    fn a_loop_goes_on_while_it_has_a_connection() {
        let loops = Loops::start(NonZero::<usize>::MIN).unwrap();
        let place = loops.place();
        drop(loops);
        let (tell, told) = std::sync::mpsc::channel();
        let task = place.handle().spawn(async move {
            tokio::task::yield_now().await;
            tell.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        told.recv().unwrap();
        assert!(!task.is_finished());
        drop(place);
        let ended = Builder::new_current_thread().build().unwrap().block_on(task);
        assert!(ended.unwrap_err().is_cancelled());
    }
}
