//! The cost of a command, known before it runs.

use crate::budget::Cost;
use crate::protocol::WriteCost;

/// The cost of an answer about the broker itself, in entries.
pub(super) const STATUS: Cost = Cost::new(16, 2 << 10);

/// The cost of a command, as far as it is known before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommandCost {
    /// Its keys and pairs, and copies of its data.
    pub work: Cost,
    /// The room that it may need in the write queue; zero for a reading command.
    pub write: WriteCost,
}

impl CommandCost {
    /// The cost of a reading command.
    #[inline]
    pub fn read(entries: usize, bytes: usize) -> Self {
        Self { work: Cost::new(entries, bytes), write: WriteCost::default() }
    }

    /// The sum of two costs.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { work: self.work.plus(other.work), write: self.write.plus(other.write) }
    }
}
