//! Turns at rendering: so many slices at a time, whoever wants them, in the order in which they
//! were asked for. So a connection's thread renders no more than that between two looks at its
//! other connections, however many of them wait for large answers.

use super::json::Spent;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::available_parallelism;
use tokio::sync::Semaphore;
use tokio::task::yield_now;

/// Who may render, and how much that came to.
#[derive(Debug)]
pub struct Turns {
    free: Semaphore,
    /// The longest slice there was, in bytes read and written.
    longest: AtomicUsize,
    taken: AtomicUsize,
}

impl Default for Turns {
    fn default() -> Self {
        Self::of(available_parallelism().unwrap_or(NonZero::<usize>::MIN))
    }
}

impl Turns {
    /// So many at a time.
    pub fn of(at_a_time: NonZero<usize>) -> Self {
        let free = Semaphore::new(at_a_time.get());
        Self { free, longest: AtomicUsize::new(0), taken: AtomicUsize::new(0) }
    }

    /// Renders a slice when it is this one's turn. The next one's turn comes when the thread has
    /// looked at all its connections.
    pub async fn take<T>(&self, slice: impl FnOnce(&mut Spent) -> T) -> T {
        let turn = self.free.acquire().await;
        let done = self.render(slice);
        yield_now().await;
        drop(turn);
        done
    }

    /// Renders at once what is known to be short.
    pub fn render<T>(&self, slice: impl FnOnce(&mut Spent) -> T) -> T {
        let mut spent = Spent::default();
        let done = slice(&mut spent);
        self.longest.fetch_max(spent.0, Relaxed);
        self.taken.fetch_add(1, Relaxed);
        done
    }

    /// The longest slice there was, in bytes read and written, and how many there were.
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
    fn however_many_render_the_thread_looks_at_its_others_between_two_turns() {
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
