//! What a command costs, known before it runs.

use crate::budget::Cost;
use crate::protocol::WriteCost;

/// What an answer about the broker itself costs, in place of entries.
pub(super) const STATUS: Cost = Cost::new(16, 2 << 10);

/// What a command costs, as far as it is known before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommandCost {
    /// Its keys and pairs, and copies of what it brings.
    pub work: Cost,
    /// The room that it may need in the write queue; nothing for a command that only reads.
    pub write: WriteCost,
}

impl CommandCost {
    /// The cost of a command that only reads.
    #[inline]
    pub fn read(entries: usize, bytes: usize) -> Self {
        Self { work: Cost::new(entries, bytes), write: WriteCost::default() }
    }

    /// The cost of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { work: self.work.plus(other.work), write: self.write.plus(other.write) }
    }
}
