//! How long each stage of a command took.
//!
//! An edge and the engine leave readings of the clock in [`CallTimes`], one for a step of a call
//! and not for each command; the committer leaves those of its last commits here. Only when a reply
//! turns out to be late they become [`Spans`], and a [`SlowRequest`].

mod commits;
mod slow;
#[cfg(test)]
pub(crate) mod tests;

pub(super) use commits::{Commit, RecentCommits};
pub use slow::{SlowRequest, SlowRequests};

use super::{Engine, Replies};
use crate::clock::Nanos;
use crate::commands::Request;
use crate::net::Caller;
use crate::protocol::DurabilityBarrier;
use std::fmt;
use std::time::Duration;

/// Makes the stages from one table: each with its name, in the order in which they follow.
macro_rules! stages {
    ($($(#[$doc:meta])* $Stage:ident $name:literal,)*) => {
        /// A stage of a command.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Stage {
            $($(#[$doc])* $Stage,)*
        }

        impl Stage {
            /// All of them, in their order.
            pub const ALL: &'static [Self] = &[$(Self::$Stage),*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$Stage => $name,)*
                }
            }
        }

        const STAGES: usize = [$($name),*].len();
    };
}

stages! {
    /// It was read, and waited for its connection's turn, for memory for its reply, or for room in
    /// the write queue.
    Turn "turn",
    /// It was decoded, with those that came together with it.
    Decode "decode",
    /// The engine's lock was waited for.
    Lock "lock",
    /// It was executed, with those that came together with it.
    Apply "apply",
    /// The commit that it is in had not begun.
    CommitWait "commit wait",
    /// The log took the record.
    Append "append",
    /// The medium took it.
    Fsync "fsync",
    /// Its level was reached; its connection had not gone on, or held replies that come before it.
    Barrier "barrier",
    /// It was on its way to the peer's socket.
    Send "send",
}

/// What each stage took, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spans([u32; STAGES]);

impl Spans {
    /// What `stage` took.
    pub fn micros(&self, stage: Stage) -> u32 {
        self.0.get(stage as usize).copied().unwrap_or_default()
    }

    /// All of it.
    pub fn total(&self) -> Duration {
        Duration::from_micros(self.0.iter().map(|micros| u64::from(*micros)).sum())
    }

    /// The stage that took longest.
    pub fn longest(&self) -> Stage {
        let all = Stage::ALL.iter().copied();
        all.max_by_key(|stage| self.micros(*stage)).unwrap_or(Stage::Turn)
    }

    fn set(&mut self, stage: Stage, nanos: Nanos) {
        if let Some(micros) = self.0.get_mut(stage as usize) {
            *micros = u32::try_from(nanos / 1_000).unwrap_or(u32::MAX);
        }
    }
}

impl fmt::Display for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, stage) in Stage::ALL.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{} {}", stage.name(), Millis(self.micros(*stage).into()))?;
        }
        Ok(())
    }
}

/// Microseconds, shown as milliseconds.
struct Millis(u128);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 1_000, self.0 % 1_000 / 100)
    }
}

/// What the clock showed at the steps of a call: times since boot.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallTimes {
    /// Since when its requests wait.
    since: Nanos,
    /// When they began to be decoded.
    decoded_from: Nanos,
    /// When the engine was called; 0 when it was not.
    called: Nanos,
    /// How long its lock was waited for.
    pub(super) lock: Nanos,
    /// When all were executed.
    executed: Nanos,
}

impl CallTimes {
    /// Those of no call.
    pub const NONE: Self = Self { since: 0, decoded_from: 0, called: 0, lock: 0, executed: 0 };

    /// Requests that wait since `since`, and are decoded from `now` on.
    #[inline]
    pub fn begin(since: Nanos, now: Nanos) -> Self {
        Self { since, decoded_from: now, ..Self::default() }
    }

    /// Those of a call that took no time.
    #[cfg(test)]
    pub(crate) fn done_at(now: Nanos) -> Self {
        Self { called: now, executed: now, ..Self::begin(now, now) }
    }

    /// When its requests were executed.
    #[inline]
    pub fn executed(&self) -> Nanos {
        self.executed
    }

    /// The engine is called. It may be called several times for what was decoded together.
    #[inline]
    pub(super) fn call(&mut self, now: Nanos) {
        if self.called == 0 {
            self.called = now;
        }
    }

    #[inline]
    pub(super) fn execute(&mut self, now: Nanos) {
        self.executed = now;
    }

    /// The stages of a reply that was `released` then, and `sent` then.
    fn spans(&self, commit: Option<Commit>, released: Nanos, sent: Nanos) -> Spans {
        let mut spans = Spans::default();
        let mut stage = |stage, from: Nanos, to: Nanos| spans.set(stage, to.saturating_sub(from));
        stage(Stage::Turn, self.since, self.decoded_from);
        stage(Stage::Decode, self.decoded_from, self.called);
        stage(Stage::Lock, 0, self.lock);
        stage(Stage::Apply, self.called.saturating_add(self.lock), self.executed);
        let mut at = self.executed;
        if let Some(Commit { began, written, ended, .. }) = commit {
            let steps =
                [(Stage::CommitWait, began), (Stage::Append, written), (Stage::Fsync, ended)];
            for (step, end) in steps {
                let end = end.min(released);
                stage(step, at, end);
                at = at.max(end);
            }
        }
        stage(Stage::Barrier, at, released);
        stage(Stage::Send, released, sent);
        spans
    }
}

/// What is remembered of a reply until it is sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timed {
    /// Its call.
    pub times: CallTimes,
    /// The method of its request; empty where it could not be read.
    pub method: &'static str,
}

impl Timed {
    /// Of the reply to `requests`, the first of them.
    pub fn new(times: &CallTimes, requests: &[Request<'_>]) -> Self {
        let method = requests.iter().find_map(|one| Some(one.command.as_ref().ok()?.method()));
        Self { times: *times, method: method.unwrap_or_default() }
    }
}

impl Engine {
    /// The time since boot, for [`CallTimes`].
    #[inline]
    pub fn since_boot(&self) -> Nanos {
        self.clock.since_boot()
    }

    /// Begins requests that wait since `since`, or come only now, before they are decoded. What is
    /// `short` to decode is not timed apart: its call shares the reading.
    #[inline]
    pub fn begin(&self, since: &mut Option<Nanos>, short: bool, replies: &mut Replies) {
        let now = if short {
            let (time, now) = self.clock.now_and_since_boot();
            replies.now = Some(time);
            now
        } else {
            self.clock.since_boot()
        };
        replies.times = CallTimes::begin(*since.get_or_insert(now), now);
        if short {
            replies.times.call(now);
        }
    }

    /// Whether a reply is slow that has come so far at `now`.
    #[inline]
    pub fn is_slow(&self, times: &CallTimes, now: Nanos) -> bool {
        now.saturating_sub(times.since) >= self.slow.threshold
    }

    /// Notes a reply that was `released` at that time and is sent at `now`, if it is slow; and
    /// `others` that are slow with it.
    pub fn note_sent(
        &self,
        caller: &Caller,
        timed: &Timed,
        barrier: DurabilityBarrier,
        released: Nanos,
        now: Nanos,
        others: usize,
    ) {
        if !self.is_slow(&timed.times, now) {
            return;
        }
        let commit = self.commits.find(barrier);
        let spans = timed.times.spans(commit, released, now);
        let method = timed.method;
        let peer = (caller.id, caller.peer);
        self.slow.note(SlowRequest { method, barrier, peer, others, spans }, now);
    }

    /// The requests of late that were slow.
    pub fn slow_requests(&self) -> &SlowRequests {
        &self.slow
    }
}
