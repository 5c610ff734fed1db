//! What a call may do and take, and how far it came.

use crate::budget::{Cost, WorkBudget};
use crate::net::turns::LIGHT_BYTES;

/// What a call of the engine may do and take. What it did is taken off, so the next call of the
/// same turn has what is left.
#[derive(Debug, Clone)]
pub struct Allowance {
    /// No further request is executed when the replies have so many bytes.
    pub bytes: usize,
    /// A request whose own reply would have more is left, if that changes nothing.
    pub reply_bytes: usize,
    /// What may be done in this turn. No request is begun that would be over it, as far as that is
    /// known before.
    pub work: WorkBudget,
    /// One request of whatever cost may be executed.
    pub is_heavy: bool,
    /// So many more replies may be deferred that wait for what may take long.
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

    /// Why a request is left whose reply is longer than that; it is `bytes` long, where that is
    /// known.
    pub(super) fn long_reply(&self, bytes: usize) -> End {
        if !self.is_heavy && LIGHT_BYTES < self.reply_bytes {
            return End::NeedsHeavyTurn;
        }
        End::NeedsMemory { bytes: bytes.max(self.reply_bytes.saturating_mul(2)) }
    }

    /// Why a request that is known to cost so much is not begun in this turn, if it is not.
    #[inline]
    pub(super) fn refuses(&self, cost: Cost) -> Option<End> {
        if self.is_heavy || self.work.has_room(cost) {
            return None;
        }
        Some(if cost.fits(self.work.max()) { End::OutOfTurn } else { End::NeedsHeavyTurn })
    }
}

/// How far a call came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Progress {
    /// How many requests were executed, from the first on.
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
    /// There is no memory for the next one's reply, which takes so many bytes, about.
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
