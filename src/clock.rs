//! Wall-clock time as an argument: whoever needs it is given a [`Clock`], so a test can turn it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
pub type Millis = u64;

/// A source of wall-clock time that never runs backwards within one broker.
///
/// The system's clock may be set back; a value that has expired must not return for it, so the
/// clock answers the greatest time it has ever seen.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    greatest: Arc<AtomicU64>,
    manual: bool,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands still until [`Clock::advance_to`] moves it.
    pub fn manual(start: Millis) -> Self {
        Self { greatest: Arc::new(AtomicU64::new(start)), manual: true }
    }

    /// The time now, never less than an earlier answer.
    pub fn now(&self) -> Millis {
        if self.manual {
            return self.greatest.load(Ordering::Acquire);
        }
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let system = Millis::try_from(since_epoch.as_millis()).unwrap_or(Millis::MAX);
        self.greatest.fetch_max(system, Ordering::AcqRel).max(system)
    }

    /// Moves time forward to `time`; a time already past is ignored.
    pub fn advance_to(&self, time: Millis) {
        self.greatest.fetch_max(time, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_backwards() {
        let clock = Clock::manual(1_000);
        clock.advance_to(2_000);
        clock.advance_to(1_500);
        assert_eq!(clock.now(), 2_000);
        let system = Clock::system();
        let far = system.now() + 1_000_000;
        system.advance_to(far);
        assert_eq!(system.now(), far);
    }
}
