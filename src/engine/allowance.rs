//! The limits of one call of the engine, and its progress.

use crate::budget::{Cost, WorkBudget};
use crate::net::turns::LIGHT_BYTES;

/// The limits of a call of the engine. The work done is subtracted, so the next call of the same
/// turn has the rest.
#[derive(Debug, Clone)]
pub struct Allowance {
    /// Execution stops when the replies reach this many bytes.
    pub bytes: usize,
    /// A read whose own reply would be longer is not executed.
    pub reply_bytes: usize,
    /// The work left in this turn. A request that is known to exceed it is not begun.
    pub work: WorkBudget,
    /// One request of any cost may be executed.
    pub is_heavy: bool,
    /// How many more replies may be deferred for an event that may take long.
    pub deferred: usize,
    /// Whether a write waits for room in the write queue, or is refused where there is none.
    pub may_wait_for_room: bool,
}

impl Default for Allowance {
    /// Everything, at once.
    fn default() -> Self {
        Self {
            bytes: usize::MAX,
            reply_bytes: usize::MAX,
            work: WorkBudget::default(),
            is_heavy: true,
            deferred: usize::MAX,
            may_wait_for_room: false,
        }
    }
}

impl Allowance {
    /// Light requests that together cost no more than this.
    pub fn light(work: Cost) -> Self {
        Self { work: WorkBudget::of(work), is_heavy: false, ..Self::default() }
    }

    /// The same, but writes wait for room in the write queue.
    #[must_use]
    pub fn waiting_for_room(self) -> Self {
        Self { may_wait_for_room: true, ..self }
    }

    /// The longest reply that is made now.
    pub(super) fn reply_limit(&self) -> usize {
        if self.is_heavy { self.reply_bytes } else { self.reply_bytes.min(LIGHT_BYTES) }
    }

    /// The end of a call at a request whose reply is longer; it has `bytes`, where that is known.
    pub(super) fn long_reply(&self, bytes: usize) -> End {
        if !self.is_heavy && LIGHT_BYTES < self.reply_bytes {
            return End::NeedsHeavyTurn;
        }
        End::NeedsMemory { bytes: bytes.max(self.reply_bytes.saturating_mul(2)) }
    }

    /// The end of a call at a request of this known cost; `None` where the request may begin.
    #[inline]
    pub(super) fn refuses(&self, cost: Cost) -> Option<End> {
        if self.is_heavy || self.work.has_room(cost) {
            return None;
        }
        Some(if cost.fits(self.work.max()) { End::OutOfTurn } else { End::NeedsHeavyTurn })
    }
}

/// The progress of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Progress {
    /// The number of requests executed, from the first on.
    pub done: usize,
    /// Why it ended there.
    pub end: End,
}

/// Why a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All requests were executed.
    Done,
    /// The replies are as many as were allowed, or one is made later and the next would be another.
    Full,
    /// The next request needs about this much memory for its reply.
    NeedsMemory {
        /// What it takes.
        bytes: usize,
    },
    /// The next one costs more than a light turn has.
    NeedsHeavyTurn,
    /// The turn's budget is used up.
    OutOfTurn,
    /// The next one waits for room in the write queue: see [`Engine::room`](super::Engine::room).
    WriteQueueFull,
}
