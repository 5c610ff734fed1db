//! The cost of a write in the write queue.

/// How much room in the write queue a write may need: an upper bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteCost {
    /// Changes.
    pub items: usize,
    /// Bytes of keys and values, with the overhead of their log entries.
    pub bytes: usize,
}

/// The overhead of a log entry in bytes, besides its key and value; an upper bound.
pub const ENTRY_OVERHEAD: usize = 48;

/// Allowance of a change where a write is measured against a limit: a request that fits into one
/// message is never refused for the overhead of the log.
const CHANGE_ALLOWANCE: usize = 2 * ENTRY_OVERHEAD;

impl WriteCost {
    /// The cost of one change.
    pub fn of(key_bytes: usize, value_bytes: usize) -> Self {
        Self { items: 1, bytes: key_bytes + value_bytes + ENTRY_OVERHEAD }
    }

    /// Whether keys and values take more than `bytes_max`.
    pub fn is_over(self, bytes_max: usize) -> bool {
        self.bytes > bytes_max.saturating_add(self.items.saturating_mul(CHANGE_ALLOWANCE))
    }

    /// The sum of two costs.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { items: self.items + other.items, bytes: self.bytes + other.bytes }
    }
}
