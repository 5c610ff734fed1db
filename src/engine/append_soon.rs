//! Appends by a thread that wrote: once for all its connections, when each had its turn.
//!
//! One record for many writers costs less than one for each. So what a call wrote is appended after
//! the thread has looked at its sockets again: by a task of the engine's own on that thread, and
//! there is one at a time. Outside of a runtime it is appended at once.

use super::Engine;
use crate::protocol::Seq;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use tokio::runtime::Handle;
use tokio::task::yield_now;

thread_local! {
    static LEFT: RefCell<(Weak<Engine>, Arc<Left>)> = RefCell::default();
}

/// Up to which seq a thread's task appends, once it has its turn; 0 where there is no task.
#[derive(Debug, Default)]
struct Left(AtomicU64);

/// The task's part. It is over when this is dropped before its turn, too.
struct Duty {
    left: Arc<Left>,
    is_done: bool,
}

impl Duty {
    fn take(&mut self) -> Seq {
        self.is_done = true;
        self.left.0.swap(0, Ordering::AcqRel)
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if !self.is_done {
            self.take();
        }
    }
}

impl Engine {
    /// Has what is written up to `seq` appended, when others of this thread have written too.
    pub(super) fn append_soon(&self, seq: Seq) {
        let Ok(runtime) = Handle::try_current() else { return self.append(seq) };
        let left = LEFT.with_borrow_mut(|(engine, left)| {
            if !Weak::ptr_eq(engine, &self.this) {
                (*engine, *left) = (Weak::clone(&self.this), Arc::default());
            }
            (left.0.fetch_max(seq, Ordering::AcqRel) == 0).then(|| Arc::clone(left))
        });
        let (Some(left), Some(engine)) = (left, self.this.upgrade()) else { return };
        let mut duty = Duty { left, is_done: false };
        runtime.spawn(async move {
            yield_now().await;
            engine.append(duty.take());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::append_lock::tests::{engine, set};
    use super::super::commit::LogAppender;
    use crate::engine::BarrierStatus;
    use crate::protocol::Level;
    use std::sync::Arc;
    use tokio::runtime::Builder;
    use tokio::task::yield_now;

    #[test]
    fn what_a_thread_wrote_is_appended_together_when_all_had_their_turn() {
        let (engine, log) = engine(&Arc::default());
        if !engine.has_cores() {
            return;
        }
        engine.unlock_appender(LogAppender::at(log, &engine.watermarks.progress()));
        let is_ready = |gate| engine.barrier_status(gate) == BarrierStatus::Ready;
        let runtime = || Builder::new_current_thread().build().unwrap();
        // A runtime that ends before the task had its turn leaves nothing behind.
        let lost = runtime().block_on(async { set(&engine, Level::Stored) });
        assert!(!is_ready(lost));
        runtime().block_on(async {
            let gates = [set(&engine, Level::Stored), set(&engine, Level::Stored)];
            yield_now().await;
            assert!(!gates.into_iter().any(is_ready), "others have their turn first");
            for _ in 0..4 {
                yield_now().await;
            }
            assert!(gates.into_iter().all(is_ready) && is_ready(lost));
        });
        assert_eq!(engine.counters.commits.get(), 1, "all in one record");
    }
}
