//! Replies that are made outside of the engine's lock, when they are due: `changes`.
//!
//! First a reply waits, which takes a place and a few bytes ([`limits`]); a commit that has
//! something for it wakes it ([`watch`]), or its time is up. Then its page is made, when whoever
//! sends it says that it can be sent at once: so few pages may be in memory that none may lie there
//! while its sender waits for something else, least of all for another page. A reply goes with its
//! caller: dropping it cancels it.

mod caller;
pub(super) mod limits;
mod prefixes;
mod reply;
pub(super) mod watch;

pub use caller::Caller;
pub use reply::DeferredReply;

use crate::protocol::Seq;

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
