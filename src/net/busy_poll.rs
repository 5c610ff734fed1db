//! Busy polling before a thread sleeps: where a single busy connection comes back soon, the thread
//! polls for a while whether its next request is there.
//!
//! Sleeping and waking takes a thread longer than all the work for a request, most of all where it
//! lets its core halt: a client that sends one request at a time spends most of its time on it. The
//! kernel polls before it halts a virtual processor in the same way (`halt_poll_ns`), and so does
//! Seastar before its reactor sleeps (`--idle-poll-time-us`). Where several connections are busy,
//! other threads need the core, and more requests can be executed together later.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// After this many turns in a row a connection counts as the only busy one.
const ALONE_FROM: u32 = 4;
/// After a poll in vain this many are skipped, after the next one twice as many, up to the maximum.
const SKIPPED_MIN: u32 = 2;
const SKIPPED_MAX: u32 = 256;

thread_local! {
    static IDLE: RefCell<Idle> = RefCell::default();
}

/// Records a turn of the connection with that number on this thread.
pub fn turn(connection: usize) {
    IDLE.with_borrow_mut(|idle| idle.turn(connection));
}

/// Records that the connection in turn waits for an answer, and so sends nothing soon.
pub fn none_is_due() {
    IDLE.with_borrow_mut(Idle::none_is_due);
}

/// Whether this idle thread polls once more before it sleeps: for at most `patience` after the last
/// turn.
pub fn should_spin(patience: Duration) -> bool {
    !patience.is_zero() && IDLE.with_borrow_mut(|idle| idle.should_spin(Instant::now(), patience))
}

/// The state of one thread. Time is an argument.
#[derive(Debug, Default)]
struct Idle {
    /// The connection of the last turn, and its turns in a row.
    connection: usize,
    in_a_row: u32,
    /// There was a turn since the thread was last idle.
    has_turned: bool,
    /// When polling began.
    since: Option<Instant>,
    /// How many polls are skipped from now on, and how many after the next poll in vain.
    skips: u32,
    next_skips: u32,
}

impl Idle {
    fn turn(&mut self, connection: usize) {
        let is_same = connection == self.connection;
        self.in_a_row = if is_same { self.in_a_row.saturating_add(1) } else { 1 };
        (self.connection, self.has_turned) = (connection, true);
    }

    fn none_is_due(&mut self) {
        (self.has_turned, self.since) = (false, None);
    }

    fn should_spin(&mut self, now: Instant, patience: Duration) -> bool {
        if std::mem::take(&mut self.has_turned) {
            if self.since.take().is_some() {
                self.next_skips = SKIPPED_MIN;
            }
            if self.in_a_row >= ALONE_FROM {
                match self.skips.checked_sub(1) {
                    Some(skips) => self.skips = skips,
                    None => self.since = Some(now),
                }
            }
            return self.since.is_some();
        }
        let Some(since) = self.since else { return false };
        if now.saturating_duration_since(since) < patience {
            return true;
        }
        self.since = None;
        self.skips = self.next_skips.clamp(SKIPPED_MIN, SKIPPED_MAX);
        self.next_skips = (self.skips * 2).min(SKIPPED_MAX);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_micros(50);

    /// Polls every microsecond until it is time to sleep, or until a request comes `pause_us` after
    /// the thread became idle; returns how long it polled.
    fn looks_us(idle: &mut Idle, now: &mut Instant, pause_us: u64) -> u64 {
        let mut looked_us = 0;
        while looked_us < pause_us && idle.should_spin(*now, PATIENCE) {
            *now += Duration::from_micros(1);
            looked_us += 1;
        }
        *now += Duration::from_micros(pause_us - looked_us);
        looked_us
    }

    #[test]
    fn a_single_connection_that_comes_back_soon_is_polled_for() {
        let (mut idle, mut now) = (Idle::default(), Instant::now());
        for request in 1..100 {
            idle.turn(7);
            let looked_us = looks_us(&mut idle, &mut now, 30);
            assert_eq!(looked_us, if request < ALONE_FROM { 0 } else { 30 }, "{request}");
        }
        idle.turn(8);
        assert_eq!(looks_us(&mut idle, &mut now, 30), 0, "another was busy just now");
    }

    #[test]
    fn several_busy_connections_are_not_polled_for() {
        let (mut idle, mut now) = (Idle::default(), Instant::now());
        for request in 0..1_000 {
            idle.turn(request % 2);
            assert_eq!(looks_us(&mut idle, &mut now, 10), 0);
        }
    }

    #[test]
    fn a_connection_that_waits_for_an_answer_is_not_polled_for() {
        let (mut idle, mut now) = (Idle::default(), Instant::now());
        for request in 1..100 {
            idle.turn(7);
            idle.none_is_due();
            assert_eq!(looks_us(&mut idle, &mut now, 200), 0);
            idle.turn(7);
            let looked_us = looks_us(&mut idle, &mut now, 30);
            assert_eq!(looked_us, if request < ALONE_FROM / 2 { 0 } else { 30 }, "{request}");
        }
    }

    #[test]
    fn a_connection_that_comes_back_late_is_polled_for_less_and_less_often() {
        let (mut idle, mut now) = (Idle::default(), Instant::now());
        let mut looked_us = 0;
        for _ in 0..1_000 {
            idle.turn(7);
            looked_us += looks_us(&mut idle, &mut now, 400);
        }
        assert!((1..=10 * 50).contains(&looked_us), "{looked_us} us of a thousand pauses");
        let begins = (0..SKIPPED_MAX * 2).position(|_| {
            idle.turn(7);
            looks_us(&mut idle, &mut now, 30) == 30
        });
        assert!(begins.is_some(), "it is tried again");
        idle.turn(7);
        assert_eq!(looks_us(&mut idle, &mut now, 30), 30, "and kept where it was not in vain");
    }
}
