//! Memory for what is on its way to subscribers, taken in turn: who finds none stands in line.
//!
//! What every subscriber may hold without asking covers records of the usual size, so only those
//! that are larger touch what all share.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// What every subscriber may hold without asking.
pub const FREE_BYTES: usize = 256 * 1024;
/// The unit of account.
const UNIT_BYTES: usize = 64 * 1024;

type Line = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// The memory that all subscribers share.
#[derive(Debug, Clone)]
pub struct Rations {
    units: Arc<Semaphore>,
    total: u32,
}

impl Rations {
    /// `bytes` for all together.
    pub fn new(bytes: usize) -> Self {
        let total = units(bytes).max(1);
        Self { units: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Nothing yet, for one subscriber.
    pub fn none(&self) -> Ration {
        Ration { all: self.clone(), held: None, line: None }
    }
}

/// One subscriber's part of it; given back when dropped.
pub struct Ration {
    all: Rations,
    held: Option<OwnedSemaphorePermit>,
    /// Its place in the line for more.
    line: Option<Line>,
}

impl fmt::Debug for Ration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ration").field("held", &self.held).finish_non_exhaustive()
    }
}

impl Ration {
    /// Whether the subscriber may come to hold `bytes`; if not, it stands in line for them. More
    /// than there is for all passes when nobody else holds anything.
    pub fn hold(&mut self, bytes: usize) -> bool {
        let wanted = units(bytes.saturating_sub(FREE_BYTES)).min(self.all.total);
        let missing = wanted.saturating_sub(self.held());
        if missing > 0 {
            let units = Arc::clone(&self.all.units);
            let Ok(more) = Arc::clone(&units).try_acquire_many_owned(missing) else {
                self.line = Some(Box::pin(units.acquire_many_owned(missing)));
                return false;
            };
            self.take(more);
        }
        self.line = None;
        true
    }

    /// The subscriber holds `bytes` now, and asks for no more: gives back what that does not need.
    pub fn settle(&mut self, bytes: usize) {
        let needed = units(bytes.saturating_sub(FREE_BYTES));
        let spare = self.held().saturating_sub(needed);
        if spare > 0
            && let Some(held) = &mut self.held
        {
            drop(held.split(spare as usize));
        }
    }

    /// Whether it stands in line.
    pub fn is_in_line(&self) -> bool {
        self.line.is_some()
    }

    /// Leaves the line.
    pub fn leave_line(&mut self) {
        self.line = None;
    }

    /// Ready when its turn has come: then it is to [`hold`](Self::hold) or to
    /// [`settle`](Self::settle).
    pub fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(line) = &mut self.line else { return Poll::Pending };
        let Poll::Ready(turn) = line.as_mut().poll(cx) else { return Poll::Pending };
        self.line = None;
        // It is never closed.
        if let Ok(more) = turn {
            self.take(more);
        }
        Poll::Ready(())
    }

    fn held(&self) -> u32 {
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        u32::try_from(held).unwrap_or(u32::MAX)
    }

    fn take(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX >> 4).min(u32::MAX >> 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    const UNIT: usize = UNIT_BYTES;

    fn has_its_turn(ration: &mut Ration) -> bool {
        ration.poll_turn(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn usual_records_are_free_and_large_ones_share() {
        let rations = Rations::new(10 * UNIT);
        let [mut one, mut two] = [rations.none(), rations.none()];
        assert!(one.hold(FREE_BYTES) && one.held() == 0);
        assert!(one.hold(FREE_BYTES + 6 * UNIT) && !two.hold(FREE_BYTES + 5 * UNIT));
        assert!(two.is_in_line() && !has_its_turn(&mut two));
        assert!(two.hold(FREE_BYTES), "what is free is so at any time");
        one.settle(FREE_BYTES + 5 * UNIT);
        assert!(two.hold(FREE_BYTES + 5 * UNIT));
        drop(one);
        assert_eq!(rations.units.available_permits(), 5);
        two.settle(0);
        assert_eq!(rations.units.available_permits(), 10);
    }

    #[test]
    fn who_stands_in_line_is_served_in_turn_and_who_leaves_takes_nothing_along() {
        let rations = Rations::new(10 * UNIT);
        let [mut one, mut two, mut three, mut four] = [(); 4].map(|()| rations.none());
        assert!(one.hold(FREE_BYTES + 10 * UNIT));
        assert!(!two.hold(FREE_BYTES + 8 * UNIT) && !has_its_turn(&mut two));
        assert!(!three.hold(FREE_BYTES + UNIT) && !has_its_turn(&mut three));
        assert!(!four.hold(FREE_BYTES + 10 * UNIT) && !has_its_turn(&mut four));
        one.settle(FREE_BYTES + 5 * UNIT);
        assert!(!has_its_turn(&mut three), "the second comes first");
        two.leave_line();
        assert!(has_its_turn(&mut three) && three.hold(FREE_BYTES + UNIT));
        drop((one, three));
        assert!(has_its_turn(&mut four) && four.hold(FREE_BYTES + 10 * UNIT));
    }

    #[test]
    fn more_than_there_is_passes_alone() {
        let rations = Rations::new(10 * UNIT);
        let [mut one, mut two] = [rations.none(), rations.none()];
        assert!(one.hold(FREE_BYTES + UNIT));
        assert!(!two.hold(usize::MAX) && !has_its_turn(&mut two));
        one.settle(FREE_BYTES);
        assert!(has_its_turn(&mut two) && two.hold(usize::MAX));
    }
}
