//! Time as an argument: code that needs the time is given a [`Clock`], so a test can set it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

pub use crate::protocol::Millis;

/// Nanoseconds; `u64` holds them until the year 2554.
pub type Nanos = u64;

const NANOS_PER_MILLI: Nanos = 1_000_000;

/// The broker's time: it never runs backwards, and it never stands still.
///
/// It starts at the greatest time that the store or the system's wall clock has shown, and advances
/// with the time since the machine was booted. Where the wall clock is ahead of that, the broker's
/// time moves forward to the wall clock; where the wall clock is behind, it has no effect. So a
/// wall clock that was wrong once, or is set back, neither delays an expiry nor brings a value
/// back.
#[derive(Debug, Clone)]
pub struct Clock {
    hands: Hands,
    /// The greatest offset seen between the time since boot and the broker's time.
    offset: Arc<AtomicU64>,
}

/// The source of a clock's readings.
#[derive(Debug, Clone)]
enum Hands {
    System,
    Manual(Arc<ManualHands>),
}

/// The readings of a clock in a test.
#[derive(Debug, Default)]
pub struct ManualHands {
    wall: AtomicU64,
    since_boot: AtomicU64,
    looks: AtomicU64,
}

impl ManualHands {
    /// How often the time since boot was read.
    pub fn looks(&self) -> u64 {
        self.looks.load(Ordering::Acquire)
    }

    /// Sets the wall clock.
    pub fn set_wall(&self, time: Millis) {
        self.wall.store(time.saturating_mul(NANOS_PER_MILLI), Ordering::Release);
    }

    /// Advances the time since boot. The wall clock stays as it is.
    pub fn pass(&self, time: Millis) {
        self.since_boot.fetch_add(time.saturating_mul(NANOS_PER_MILLI), Ordering::AcqRel);
    }
}

impl Hands {
    /// The wall clock, and the time since boot. In this order: a thread interrupted between the two
    /// reads must not take the pause for a step of the wall clock.
    fn read(&self) -> (Nanos, Nanos) {
        match self {
            Self::System => (wall(), since_boot()),
            Self::Manual(hands) => (hands.wall.load(Ordering::Acquire), self.since_boot()),
        }
    }

    fn since_boot(&self) -> Nanos {
        match self {
            Self::System => since_boot(),
            Self::Manual(hands) => {
                hands.looks.fetch_add(1, Ordering::AcqRel);
                hands.since_boot.load(Ordering::Acquire)
            }
        }
    }
}

fn wall() -> Nanos {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Nanos::try_from(since_epoch.as_nanos()).unwrap_or(Nanos::MAX)
}

/// Continues while the machine is suspended, where the system has such a clock.
fn since_boot() -> Nanos {
    use rustix::time::{ClockId, clock_gettime};
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = ClockId::Monotonic;
    let time = clock_gettime(clock);
    let seconds = Nanos::try_from(time.tv_sec).unwrap_or_default();
    let rest = Nanos::try_from(time.tv_nsec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self { hands: Hands::System, offset: Arc::default() }
    }

    /// A clock that stands still until [`Clock::advance_to`] moves it.
    pub fn manual(start: Millis) -> Self {
        let clock = Self { hands: Hands::Manual(Arc::default()), offset: Arc::default() };
        clock.advance_to(start);
        clock
    }

    /// A clock that reads the times set by a test.
    pub fn reading(hands: &Arc<ManualHands>) -> Self {
        Self { hands: Hands::Manual(Arc::clone(hands)), offset: Arc::default() }
    }

    /// The current time, never less than an earlier result.
    pub fn now(&self) -> Millis {
        self.now_and_since_boot().0
    }

    /// The same, and the time since boot that it was made of: one reading for both.
    pub fn now_and_since_boot(&self) -> (Millis, Nanos) {
        let (wall, since_boot) = self.hands.read();
        let offset = self.offset_of(wall.saturating_sub(since_boot));
        (since_boot.saturating_add(offset) / NANOS_PER_MILLI, since_boot)
    }

    /// The time since the machine was booted, by which spans of time are measured.
    pub fn since_boot(&self) -> Nanos {
        self.hands.since_boot()
    }

    /// Moves time forward to `time`, and continues from there; a time already past is ignored.
    pub fn advance_to(&self, time: Millis) {
        let (_, since_boot) = self.hands.read();
        let time = time.saturating_mul(NANOS_PER_MILLI);
        self.offset_of(time.saturating_sub(since_boot));
    }

    /// The greatest offset seen, including `offset`.
    fn offset_of(&self, offset: Nanos) -> Nanos {
        let greatest = self.offset.load(Ordering::Acquire);
        if offset <= greatest {
            return greatest;
        }
        self.offset.fetch_max(offset, Ordering::AcqRel).max(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Millis = 86_400_000;

    #[test]
    fn time_never_runs_backwards() {
        let clock = Clock::manual(1_000);
        clock.advance_to(2_000);
        clock.advance_to(1_500);
        assert_eq!(clock.now(), 2_000);
        let system = Clock::system();
        let far = system.now() + 1_000_000;
        system.advance_to(far);
        assert!((far..far + 100_000).contains(&system.now()));
    }

    #[test]
    fn time_advances_although_the_wall_clock_was_ahead_or_is_set_back() {
        let hands = Arc::<ManualHands>::default();
        let clock = Clock::reading(&hands);
        hands.set_wall(10 * DAY);
        assert_eq!(clock.now(), 10 * DAY);
        // Set back by an hour: it has no effect.
        hands.set_wall(10 * DAY - 3_600_000);
        hands.pass(700);
        assert_eq!(clock.now(), 10 * DAY + 700);
        // Ahead by a day: accepted, as after a suspension.
        hands.set_wall(11 * DAY);
        assert_eq!(clock.now(), 11 * DAY);
        hands.set_wall(10 * DAY);
        hands.pass(1_000);
        assert_eq!(clock.now(), 11 * DAY + 1_000);
        // Both clocks advance together: no step.
        hands.set_wall(11 * DAY + 1_000);
        hands.pass(5);
        hands.set_wall(11 * DAY + 1_005);
        assert_eq!(clock.now(), 11 * DAY + 1_005);
    }

    #[test]
    fn time_continues_from_the_greatest_time_that_the_store_has_seen() {
        let hands = Arc::<ManualHands>::default();
        hands.pass(77);
        hands.set_wall(DAY);
        let clock = Clock::reading(&hands);
        clock.advance_to(3 * DAY);
        hands.pass(1_000);
        assert_eq!((clock.now(), clock.clone().now()), (3 * DAY + 1_000, 3 * DAY + 1_000));
        let far = Clock::reading(&hands);
        far.advance_to(Millis::MAX);
        assert!(far.now() >= Millis::MAX / NANOS_PER_MILLI, "no overflow");
    }
}
