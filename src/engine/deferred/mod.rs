//! Replies that wait for something: `wait`, `flush` and `changes` use the same one.
//!
//! A command returns [`Deferred`](crate::commands::Deferred), and the engine begins the wait under
//! its lock. What a wait needs to know is an [`Awaited`]; an edge sees a [`DeferredReply`] only: is
//! it due, when must it be looked at again, what is its result. It belongs to its caller, whose
//! signal is raised when it may be due, and dropping it cancels it.
//!
//! A `changes` takes a place and a few bytes while it waits ([`limits`]); a commit that has
//! something for it wakes it ([`watch`]), or its time is up. Then its page is made, when whoever
//! sends it says that it can be sent at once: so few pages may be in memory that none may lie there
//! while its sender waits for something else, least of all for another page.

pub(super) mod changes;
pub(super) mod levels;
pub(super) mod limits;
mod prefixes;
pub(super) mod watch;

use super::Engine;
use crate::protocol::{DurabilityBarrier, Refusal, Seq};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use tokio::time::Instant;

/// What a deferred reply waits for. Dropping it ends the wait.
pub(super) trait Awaited: fmt::Debug + Send + Sync {
    /// Whether there is something to say at `now`.
    fn is_due(&self, engine: &Engine, now: Instant) -> bool;

    /// How far the writes must come before it may be due; `None` where its caller's signal tells.
    fn barrier(&self) -> Option<DurabilityBarrier>;

    /// When its time is up; `None` where something else tells more.
    fn until(&self) -> Option<Instant> {
        None
    }

    /// Whether it may be sent before earlier replies: it waits for what may take long.
    fn may_overtake(&self) -> bool {
        true
    }

    /// Whether its result is a page, which is made when it is due, one at a time for a caller.
    fn is_page(&self) -> bool {
        false
    }

    /// Has the page made; the caller's signal is raised when it is there.
    fn make(&self) {}

    /// Whether the result is there.
    fn is_made(&self) -> bool {
        true
    }

    /// The result, one MessagePack value, when it is due and made.
    fn result(&self, engine: &Engine) -> Result<Bytes, Refusal>;
}

/// A reply that waits for something. Dropping the last copy cancels it.
#[derive(Debug, Clone)]
pub struct DeferredReply(Arc<dyn Awaited>);

impl DeferredReply {
    pub(super) fn new(awaited: impl Awaited + 'static) -> Self {
        Self(Arc::new(awaited))
    }

    /// Whether there is something to say at `now`, so that the result can be made and sent.
    pub fn is_due(&self, engine: &Engine, now: Instant) -> bool {
        self.0.is_due(engine, now)
    }

    /// How far the writes must come before it may be due; `None` where its caller's signal tells.
    pub fn barrier(&self) -> Option<DurabilityBarrier> {
        self.0.barrier()
    }

    /// When its time is up; `None` where something else tells more.
    pub fn until(&self) -> Option<Instant> {
        self.0.until()
    }

    /// Whether it may be sent before earlier replies.
    pub fn may_overtake(&self) -> bool {
        self.0.may_overtake()
    }

    /// Whether its result is a page, which is made one at a time for a caller.
    pub fn is_page(&self) -> bool {
        self.0.is_page()
    }

    /// Has the page made. To be called when it is due and nothing else keeps it from being sent
    /// then; the caller's signal is raised when it is there.
    pub fn make(&self) {
        self.0.make();
    }

    /// Whether the result is there.
    pub fn is_made(&self) -> bool {
        self.0.is_made()
    }

    /// The result, when it is due and made.
    pub fn result(&self, engine: &Engine) -> Result<Bytes, Refusal> {
        self.0.result(engine)
    }
}

/// What a wait for changes came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitOutcome {
    /// There are some, or a part of the history that is no longer in memory.
    Changes {
        /// There are none before this seq.
        from: Seq,
    },
    /// There is none up to `next`.
    Nothing {
        /// The seq up to which that is known.
        next: Seq,
    },
}
