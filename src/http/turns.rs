//! Turns for rendering: a bounded number of slices at a time, in the order in which they were
//! requested. So a connection's thread renders no more than that between two polls of its other
//! connections, however many of them wait for large answers.

use super::json::Spent;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::available_parallelism;
use tokio::sync::Semaphore;
use tokio::task::yield_now;

/// Grants rendering turns, and counts their work.
#[derive(Debug)]
pub struct Turns {
    free: Semaphore,
    /// The longest slice so far, in bytes read and written.
    longest: AtomicUsize,
    taken: AtomicUsize,
}

impl Default for Turns {
    fn default() -> Self {
        Self::of(available_parallelism().unwrap_or(NonZero::<usize>::MIN))
    }
}

impl Turns {
    /// Turns for this many slices at a time.
    pub fn of(at_a_time: NonZero<usize>) -> Self {
        let free = Semaphore::new(at_a_time.get());
        Self { free, longest: AtomicUsize::new(0), taken: AtomicUsize::new(0) }
    }

    /// Renders a slice when its turn comes. The next turn begins when the thread has polled all its
    /// connections.
    pub async fn take<T>(&self, slice: impl FnOnce(&mut Spent) -> T) -> T {
        let turn = self.free.acquire().await;
        let done = self.render(slice);
        yield_now().await;
        drop(turn);
        done
    }

    /// Renders an answer at once that is known to be short.
    pub fn render<T>(&self, slice: impl FnOnce(&mut Spent) -> T) -> T {
        let mut spent = Spent::default();
        let done = slice(&mut spent);
        self.longest.fetch_max(spent.0, Relaxed);
        self.taken.fetch_add(1, Relaxed);
        done
    }

    /// The longest slice so far, in bytes read and written, and the number of slices.
    pub fn seen(&self) -> (usize, usize) {
        (self.longest.load(Relaxed), self.taken.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::super::json::SLICE_BYTES;
    use super::*;
    use std::sync::Arc;
    use tokio::runtime::Builder;

    #[test]
    fn the_thread_polls_its_other_connections_between_two_rendering_turns() {
        let turns = Arc::new(Turns::of(NonZero::<usize>::MIN));
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let most = runtime.block_on(async {
            for _ in 0..50 {
                let turns = Arc::clone(&turns);
                tokio::spawn(async move {
                    for _ in 0..20 {
                        turns.take(|spent| spent.0 = SLICE_BYTES).await;
                    }
                });
            }
            let (mut most, mut before) = (0, 0);
            while turns.seen().1 < 50 * 20 {
                yield_now().await;
                let (_, taken) = turns.seen();
                most = most.max(taken - before);
                before = taken;
            }
            most
        });
        assert_eq!(most, 1, "slices from one look to the next");
        assert_eq!(turns.seen(), (SLICE_BYTES, 1_000));
    }
}
