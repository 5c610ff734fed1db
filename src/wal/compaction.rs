//! The disk space of the store, and the requests to reclaim it.
//!
//! The compactor does the work. Each finished checkpoint asks it to check whether a compaction is
//! due, a command requests one, and `stats` reports the status.

use crate::storage::{StorageError, StorageUsage};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The status of compaction.
#[derive(Debug, Clone, Default)]
pub struct CompactionStatus {
    /// The disk space of the store when last measured.
    pub usage: StorageUsage,
    /// Compactions that have ended, failed ones included.
    pub ended: u64,
    /// A compaction is running.
    pub is_running: bool,
    /// Bytes that compactions have reclaimed.
    pub freed_bytes: u64,
    /// Why the last one failed, if it did.
    pub failure: Option<StorageError>,
}

/// The next task of the compactor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Check whether a compaction is due.
    Look,
    /// Compact, whether due or not.
    Compact,
}

/// Requests for compactions, and their results.
#[derive(Debug, Default)]
pub struct Compaction {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct State {
    status: CompactionStatus,
    /// The greatest number of a requested compaction.
    requested: u64,
    live_bytes: u64,
    is_check_due: bool,
    is_closed: bool,
}

impl Compaction {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current status.
    pub fn status(&self) -> CompactionStatus {
        self.state().status.clone()
    }

    /// A checkpoint has ended, and `live_bytes` of the rows in the tables are live. Makes the
    /// compactor check whether a compaction is due.
    pub fn checkpointed(&self, live_bytes: u64) {
        let mut state = self.state();
        state.live_bytes = live_bytes;
        state.is_check_due = true;
        drop(state);
        self.work.notify_one();
    }

    /// About how many bytes of live rows the tables hold. Rows deleted since the last checkpoint
    /// count as live.
    pub fn live_bytes(&self) -> u64 {
        self.state().live_bytes
    }

    /// Requests a compaction of everything written so far. Returns a number `n`: the request is
    /// done when `n` compactions have ended.
    pub fn request(&self) -> u64 {
        let mut state = self.state();
        // The running compaction may have passed over what was written since it began.
        let number = state.status.ended + 1 + u64::from(state.status.is_running);
        state.requested = state.requested.max(number);
        drop(state);
        self.work.notify_one();
        number
    }

    /// Ends the compactor.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.work.notify_all();
    }

    /// Waits for a task, at most for `time`; after that, one is due. `None`: closed.
    pub fn wait(&self, time: Duration) -> Option<Task> {
        let mut state = self.state();
        if !state.is_closed && !state.is_check_due && !state.has_request() {
            state = self.work.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_check_due = false;
        match state.is_closed {
            true => None,
            false if state.has_request() => Some(Task::Compact),
            false => Some(Task::Look),
        }
    }

    /// Records a measurement of the store's disk space.
    pub fn looked(&self, usage: StorageUsage) {
        self.state().status.usage = usage;
    }

    /// Records that a compaction begins.
    pub fn begin(&self) {
        self.state().status.is_running = true;
    }

    /// Records that the compaction has ended; the store takes `usage` now.
    pub fn end(&self, usage: StorageUsage, failure: Option<StorageError>) {
        let mut state = self.state();
        let status = &mut state.status;
        if failure.is_none() {
            status.freed_bytes += status.usage.total().saturating_sub(usage.total());
        }
        status.ended += 1;
        status.is_running = false;
        status.usage = usage;
        status.failure = failure;
    }
}

impl State {
    fn has_request(&self) -> bool {
        self.requested > self.status.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOT_AT_ALL: Duration = Duration::ZERO;

    #[test]
    fn a_request_is_done_by_a_compaction_that_began_after_it() {
        let compaction = Compaction::default();
        assert_eq!(compaction.wait(NOT_AT_ALL), Some(Task::Look));
        assert_eq!((compaction.request(), compaction.request()), (1, 1));
        assert_eq!(compaction.wait(NOT_AT_ALL), Some(Task::Compact));
        compaction.begin();
        assert_eq!(compaction.request(), 2, "the first may have passed over something");
        compaction.end(StorageUsage::default(), None);
        assert_eq!(compaction.wait(NOT_AT_ALL), Some(Task::Compact));
        compaction.begin();
        compaction.end(StorageUsage::default(), Some(StorageError::new("x", "y")));
        assert_eq!(compaction.wait(NOT_AT_ALL), Some(Task::Look));
        let status = compaction.status();
        assert!(status.ended == 2 && status.failure.is_some() && !status.is_running);
        compaction.close();
        assert_eq!(compaction.wait(NOT_AT_ALL), None);
    }
}
