//! What a connection is doing and since when, so that one without progress can be cut.
//!
//! The stream writes the phase, the connection's task reads it on a slow tick: a request touches no
//! timer.

use crate::net::ConnectionTimeouts;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Between requests.
    Idle,
    /// A head is unfinished.
    Head,
    /// A request is being served, or its body read.
    Serving,
    /// The last answer is written; the peer should close.
    Closing,
}

/// A peer that takes fewer bytes within [`ConnectionTimeouts::write`] counts as not reading.
pub const PROGRESS_BYTES: usize = 16 * 1024;

/// A connection's phase, shared by its stream and its task.
#[derive(Debug)]
pub struct ConnectionPhase {
    start: Instant,
    phase: AtomicU8,
    /// When the phase began, in milliseconds after `start`.
    since: AtomicU64,
    /// When the peer last made progress with a waiting answer; [`FLOWING`] when none waits.
    stalled_since: AtomicU64,
}

const FLOWING: u64 = u64::MAX;

impl Default for ConnectionPhase {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            phase: AtomicU8::new(Phase::Idle as u8),
            since: AtomicU64::new(0),
            stalled_since: AtomicU64::new(FLOWING),
        }
    }
}

impl ConnectionPhase {
    /// Enters `phase`; returns whether the connection was in another one.
    pub fn enter(&self, phase: Phase) -> bool {
        let is_new = self.phase.swap(phase as u8, Relaxed) != phase as u8;
        if is_new {
            self.since.store(self.now(), Relaxed);
        }
        is_new
    }

    /// Whether the connection is in `phase`.
    pub fn is(&self, phase: Phase) -> bool {
        self.phase.load(Relaxed) == phase as u8
    }

    /// An answer waits for the peer to read: from now on if `is_progress`, else since it began to
    /// wait.
    pub fn waits(&self, is_progress: bool) {
        if is_progress || self.stalled_since.load(Relaxed) == FLOWING {
            self.stalled_since.store(self.now(), Relaxed);
        }
    }

    /// No answer waits for the peer.
    pub fn flows(&self) {
        self.stalled_since.store(FLOWING, Relaxed);
    }

    /// Whether the peer made no progress with an answer for this long.
    pub fn is_slow(&self, limit: Duration) -> bool {
        let since = self.stalled_since.load(Relaxed);
        u128::from(self.now().saturating_sub(since)) >= limit.as_millis()
    }

    /// Why the connection should be cut, if it should.
    pub fn overdue(&self, timeouts: &ConnectionTimeouts) -> Option<&'static str> {
        let now = self.now();
        let is_over =
            |since: u64, limit: Duration| u128::from(now.saturating_sub(since)) > limit.as_millis();
        if is_over(self.stalled_since.load(Relaxed), timeouts.write) {
            return Some("the peer does not read its answer");
        }
        let since = self.since.load(Relaxed);
        let late = |limit, why| is_over(since, limit).then_some(why);
        match self.phase.load(Relaxed) {
            phase if phase == Phase::Idle as u8 => late(timeouts.idle, "no request came"),
            phase if phase == Phase::Head as u8 => {
                late(timeouts.handshake, "the request's head did not end")
            }
            phase if phase == Phase::Closing as u8 => {
                late(timeouts.handshake, "the peer did not close")
            }
            _ => None,
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(FLOWING)
    }
}
