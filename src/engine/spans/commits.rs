//! The last commits, for replies that turn out to be late: nothing is noted with a reply itself.

use crate::clock::Nanos;
use crate::protocol::{DurabilityBarrier, Seq};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many are kept. The commit of a reply that was late for another reason may be gone.
const KEPT: usize = 256;

/// One step of the log, and when it was taken.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Commit {
    /// All writes up to here are with the system, and were before.
    pub(in crate::engine) stored: Seq,
    pub(in crate::engine) stored_before: Seq,
    /// All writes up to here are on the medium, and were before.
    pub(in crate::engine) synced: Seq,
    pub(in crate::engine) synced_before: Seq,
    /// When it began, when the system had the record, and when all was done.
    pub(in crate::engine) began: Nanos,
    pub(in crate::engine) written: Nanos,
    pub(in crate::engine) ended: Nanos,
}

impl Commit {
    fn opens(&self, barrier: DurabilityBarrier) -> bool {
        let was_open = self.stored_before >= barrier.stored && self.synced_before >= barrier.synced;
        self.stored >= barrier.stored && self.synced >= barrier.synced && !was_open
    }
}

/// The last commits, the oldest first.
#[derive(Debug)]
pub(in crate::engine) struct RecentCommits(Mutex<VecDeque<Commit>>);

impl Default for RecentCommits {
    fn default() -> Self {
        Self(Mutex::new(VecDeque::with_capacity(KEPT)))
    }
}

impl RecentCommits {
    fn list(&self) -> MutexGuard<'_, VecDeque<Commit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes one; the oldest goes.
    pub(in crate::engine) fn note(&self, commit: Commit) {
        let mut list = self.list();
        if list.len() == KEPT {
            list.pop_front();
        }
        list.push_back(commit);
    }

    /// The one by which `barrier` was opened, if it is known still.
    pub(super) fn find(&self, barrier: DurabilityBarrier) -> Option<Commit> {
        self.list().iter().find(|commit| commit.opens(barrier)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A commit of the write `seq`, synced if `sync`.
    fn commit(seq: Seq, synced_before: Seq, sync: bool) -> Commit {
        let synced = if sync { seq } else { synced_before };
        let (began, written, ended) = (seq * 10, seq * 10 + 1, seq * 10 + 2);
        Commit { stored: seq, stored_before: seq - 1, synced, synced_before, began, written, ended }
    }

    #[test]
    fn a_commit_is_found_by_what_it_opened_as_long_as_it_is_kept() {
        let (commits, open) = (RecentCommits::default(), DurabilityBarrier::OPEN);
        let began = |barrier| commits.find(barrier).map(|commit| commit.began);
        assert_eq!(began(open), None);
        (1..=4).for_each(|seq| commits.note(commit(seq, 0, false)));
        commits.note(commit(5, 0, true));
        assert_eq!(began(open), None);
        assert_eq!(began(DurabilityBarrier { stored: 3, ..open }), Some(30));
        assert_eq!(began(DurabilityBarrier { synced: 3, ..open }), Some(50));
        assert_eq!(began(DurabilityBarrier { stored: 3, synced: 2, ..open }), Some(50));
        assert_eq!(began(DurabilityBarrier { synced: 6, ..open }), None, "it is to come");
        (6..300).for_each(|seq| commits.note(commit(seq, 5, false)));
        assert_eq!(began(DurabilityBarrier { stored: 3, ..open }), None, "it is gone");
        assert_eq!(began(DurabilityBarrier { stored: 299, ..open }), Some(2_990));
        assert_eq!(commits.list().len(), KEPT);
    }
}
