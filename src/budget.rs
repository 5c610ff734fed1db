//! Counts the work of commands, and bounds what is done before other connections get a turn.
//!
//! Under the engine's lock, and in a turn of an I/O thread, other requests wait. So work there is
//! counted as it is done, even if it is refused in the end or its reply is not wanted: entries of
//! the map that are passed, and bytes that are copied.

/// The cost of some work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Entries of the map that are looked up, passed over, written or taken out; and requests.
    pub entries: usize,
    /// Bytes that are copied.
    pub bytes: usize,
}

impl Cost {
    /// The largest cost.
    pub const MAX: Self = Self { entries: usize::MAX, bytes: usize::MAX };

    /// A cost of this many entries and bytes.
    pub const fn new(entries: usize, bytes: usize) -> Self {
        Self { entries, bytes }
    }

    /// The sum of two costs.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let entries = self.entries.saturating_add(other.entries);
        Self { entries, bytes: self.bytes.saturating_add(other.bytes) }
    }

    /// Whether neither part exceeds that of another cost.
    pub fn fits(self, max: Self) -> bool {
        self.entries <= max.entries && self.bytes <= max.bytes
    }
}

/// How much work may be done before other connections get a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkBudget {
    max: Cost,
    used: Cost,
}

impl Default for WorkBudget {
    fn default() -> Self {
        Self::of(Cost::MAX)
    }
}

impl WorkBudget {
    /// A budget of which nothing is used.
    pub fn of(max: Cost) -> Self {
        Self { max, used: Cost::default() }
    }

    /// Counts work that was done.
    #[inline]
    pub fn charge(&mut self, cost: Cost) {
        self.used = self.used.plus(cost);
    }

    /// Counts work that was due in any case: it uses up none of the budget.
    pub fn charge_beyond(&mut self, cost: Cost) {
        self.max = self.max.plus(cost);
        self.charge(cost);
    }

    /// The work done so far.
    pub fn used(&self) -> Cost {
        self.used
    }

    /// The whole budget.
    pub fn max(&self) -> Cost {
        self.max
    }

    /// Whether work of this cost may still be done.
    #[inline]
    pub fn has_room(&self, cost: Cost) -> bool {
        self.used.plus(cost).fits(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_used_up_by_entries_or_by_bytes() {
        let mut budget = WorkBudget::of(Cost::new(10, 100));
        budget.charge(Cost::new(4, 60));
        assert!(budget.has_room(Cost::new(6, 40)));
        assert!(!budget.has_room(Cost::new(7, 0)) && !budget.has_room(Cost::new(0, 41)));
        budget.charge_beyond(Cost::new(1_000, 0));
        assert!(budget.has_room(Cost::new(6, 40)));
        assert!(WorkBudget::default().has_room(Cost::MAX));
    }
}
