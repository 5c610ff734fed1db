//! The slow requests of late: kept for who asks, and told in the log, some in a second.

use super::{Millis, Spans};
use crate::clock::Nanos;
use crate::protocol::DurabilityBarrier;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many are kept.
const KEPT: usize = 128;
/// So many lines are logged in a period.
const LINES: usize = 10;
const PERIOD: Nanos = 1_000_000_000;
const NANOS_PER_MILLI: Nanos = 1_000_000;

/// A request whose reply came late.
#[derive(Debug, Clone, Copy)]
pub struct SlowRequest {
    /// Its method.
    pub method: &'static str,
    /// What its reply waited for.
    pub barrier: DurabilityBarrier,
    /// The connection that it came by: its number, and its address where it has one.
    pub peer: (u64, Option<SocketAddr>),
    /// How many of the same connection were late together with it.
    pub others: usize,
    /// Where the time went.
    pub spans: Spans,
}

impl fmt::Display for SlowRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms {}", Millis(self.spans.total().as_micros()), self.method)?;
        let DurabilityBarrier { stored, synced, .. } = self.barrier;
        for (seq, level) in [(stored, "stored"), (synced, "synced")] {
            if seq > 0 {
                write!(f, " seq {seq} {level}")?;
            }
        }
        match self.peer {
            (_, Some(address)) => write!(f, " from {address}")?,
            (connection, None) => write!(f, " from local connection {connection}")?,
        }
        if self.others > 0 {
            write!(f, " and {} more", self.others)?;
        }
        write!(f, ": {}", self.spans)
    }
}

/// The slow requests of late.
#[derive(Debug)]
pub struct SlowRequests {
    pub(super) threshold: Nanos,
    list: Mutex<(VecDeque<SlowRequest>, Lines)>,
}

impl SlowRequests {
    /// A request is slow from so many milliseconds on.
    pub(in crate::engine) fn new(threshold_ms: u64) -> Self {
        let threshold = threshold_ms.saturating_mul(NANOS_PER_MILLI);
        Self { threshold, list: Mutex::default() }
    }

    fn list(&self) -> MutexGuard<'_, (VecDeque<SlowRequest>, Lines)> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, request: SlowRequest, now: Nanos) {
        let mut guard = self.list();
        let (list, lines) = &mut *guard;
        if list.len() == KEPT {
            list.pop_front();
        }
        list.push_back(request);
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let left_out = lines.end(now);
        let is_logged = lines.admit(now);
        // Who reads the log may be slow.
        drop(guard);
        tell(left_out);
        if is_logged {
            tracing::debug!("slow request: {request}");
        }
    }

    /// Says how many lines were left out, when that period is over. Called now and then.
    pub(in crate::engine) fn tell_left_out(&self, now: Nanos) {
        let left_out = self.list().1.end(now);
        tell(left_out);
    }

    /// Those that are kept, the oldest first.
    pub fn recent(&self) -> Vec<SlowRequest> {
        self.list().0.iter().copied().collect()
    }
}

fn tell(left_out: usize) {
    if left_out > 0 {
        tracing::debug!("slow requests: {left_out} more in a second, not logged");
    }
}

/// How many lines there were in this period. Time is an argument.
#[derive(Debug, Default)]
struct Lines {
    began: Nanos,
    logged: usize,
    left_out: usize,
}

impl Lines {
    /// How many were left out, if the period is over at `now`.
    fn end(&mut self, now: Nanos) -> usize {
        if now.saturating_sub(self.began) < PERIOD {
            return 0;
        }
        self.logged = 0;
        std::mem::take(&mut self.left_out)
    }

    /// Whether another line is logged.
    fn admit(&mut self, now: Nanos) -> bool {
        if self.logged == 0 {
            self.began = now;
        }
        let is_logged = self.logged < LINES;
        self.logged += usize::from(is_logged);
        self.left_out += usize::from(!is_logged);
        is_logged
    }
}

#[cfg(test)]
mod tests {
    use super::super::Stage;
    use super::*;

    fn request() -> SlowRequest {
        let mut spans = Spans::default();
        spans.set(Stage::CommitWait, 3_140_000);
        spans.set(Stage::Fsync, 178_850_000);
        let barrier = DurabilityBarrier { synced: 17, ..DurabilityBarrier::OPEN };
        let peer = (7, Some(([127, 0, 0, 1], 5123).into()));
        SlowRequest { method: "set", barrier, peer, others: 0, spans }
    }

    #[test]
    fn a_line_has_the_stages_in_their_order() {
        assert_eq!(
            request().to_string(),
            "181.9 ms set seq 17 synced from 127.0.0.1:5123: turn 0.0, decode 0.0, lock 0.0, \
             apply 0.0, commit wait 3.1, append 0.0, fsync 178.8, barrier 0.0, send 0.0"
        );
        let barrier = DurabilityBarrier { stored: 9, ..DurabilityBarrier::OPEN };
        let local = SlowRequest { barrier, peer: (7, None), others: 15, ..request() };
        let expected = "181.9 ms set seq 9 stored from local connection 7 and 15 more: turn";
        assert!(local.to_string().starts_with(expected), "{local}");
    }

    #[test]
    fn a_flood_is_not_logged_and_what_is_left_out_is_counted() {
        let (mut lines, second) = (Lines::default(), PERIOD);
        let mut logged = 0;
        for now in (5 * second..6 * second).step_by(1_000_000) {
            assert_eq!(lines.end(now), 0);
            logged += usize::from(lines.admit(now));
        }
        assert_eq!(logged, LINES);
        assert_eq!((lines.end(6 * second), lines.end(6 * second)), (1_000 - LINES, 0));
        assert!(lines.admit(6 * second), "the next period");
    }

    #[test]
    fn as_many_are_kept_as_there_is_room_for() {
        let slow = SlowRequests::new(100);
        for others in 0..KEPT + 3 {
            slow.note(SlowRequest { others, ..request() }, 0);
        }
        let kept: Vec<_> = slow.recent().iter().map(|one| one.others).collect();
        assert_eq!(kept, (3..KEPT + 3).collect::<Vec<_>>());
    }
}
