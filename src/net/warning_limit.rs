//! Limits how often a repeated warning is logged.

use std::time::{Duration, Instant};

/// The shortest time between two warnings.
const PERIOD: Duration = Duration::from_secs(60);

/// When the warning was last logged.
#[derive(Debug, Default)]
pub struct WarningLimit {
    logged_at: Option<Instant>,
}

impl WarningLimit {
    /// Whether the warning is to be logged at `now`. If so, it counts as logged.
    pub fn admit(&mut self, now: Instant) -> bool {
        let is_due = self.logged_at.is_none_or(|at| now.saturating_duration_since(at) >= PERIOD);
        if is_due {
            self.logged_at = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_logged_once_in_each_period() {
        let (mut limit, begin) = (WarningLimit::default(), Instant::now());
        let admitted = (0..180).filter(|second| limit.admit(begin + Duration::from_secs(*second)));
        assert_eq!(admitted.collect::<Vec<_>>(), [0, 60, 120]);
    }
}
