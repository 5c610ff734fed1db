//! What work costs those who wait for it, and how much is done before others get their turn.
//!
//! Under the engine's lock, and in a turn of an I/O thread, others wait. So work there is counted
//! as it is done, whether it is refused in the end, or nobody wants its reply: entries of the map
//! that are passed, and bytes that are copied.

/// The cost of some work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Entries of the map that are looked up, passed over, written or taken out; and requests.
    pub entries: usize,
    /// Bytes that are copied.
    pub bytes: usize,
}

impl Cost {
    /// A cost that nothing exceeds.
    pub const MAX: Self = Self { entries: usize::MAX, bytes: usize::MAX };

    /// A cost of so many entries and bytes.
    pub const fn new(entries: usize, bytes: usize) -> Self {
        Self { entries, bytes }
    }

    /// The cost of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let entries = self.entries.saturating_add(other.entries);
        Self { entries, bytes: self.bytes.saturating_add(other.bytes) }
    }

    /// Whether it is within another in both.
    pub fn fits(self, max: Self) -> bool {
        self.entries <= max.entries && self.bytes <= max.bytes
    }
}

/// How much may be done before others get their turn.
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

    /// Counts work that was due whoever came: it takes nothing away from what may be done.
    pub fn charge_beyond(&mut self, cost: Cost) {
        self.max = self.max.plus(cost);
        self.charge(cost);
    }

    /// What was done.
    pub fn used(&self) -> Cost {
        self.used
    }

    /// How much may be done in all.
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
    fn a_budget_is_used_up_by_either_of_the_two() {
        let mut budget = WorkBudget::of(Cost::new(10, 100));
        budget.charge(Cost::new(4, 60));
        assert!(budget.has_room(Cost::new(6, 40)));
        assert!(!budget.has_room(Cost::new(7, 0)) && !budget.has_room(Cost::new(0, 41)));
        budget.charge_beyond(Cost::new(1_000, 0));
        assert!(budget.has_room(Cost::new(6, 40)));
        assert!(WorkBudget::default().has_room(Cost::MAX));
    }
}
