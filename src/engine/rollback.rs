//! The end of the committer: what it leaves on its way is taken back, so that all reads go on.

use super::commit::InFlightCommit;
use super::{Core, Engine};
use crate::protocol::WriteCost;
use crate::protocol::change::ChangeReader;
use crate::state::undo::Undo;
use std::panic::{AssertUnwindSafe, catch_unwind};

impl Engine {
    /// Nothing will be committed any more. After a failure every key is put back to the newest
    /// value that reached its level; who waits for others is told.
    pub(super) fn settle(&self, in_flight: Option<InFlightCommit>) {
        let mut core = self.core_mut();
        if !self.watermarks.has_failed() {
            self.watermarks.settle();
            return;
        }
        // What a panic left behind may make another one; who waits is told in any case.
        let done = catch_unwind(AssertUnwindSafe(|| rollback(&mut core, in_flight)));
        self.watermarks.settle();
        drop(core);
        match done {
            Ok(keys) => tracing::warn!(keys, "took back what had not reached its level"),
            Err(_) => tracing::error!("not all was taken back; some reads will be refused"),
        }
    }
}

/// Returns how many keys were put back.
fn rollback(core: &mut Core, in_flight: Option<InFlightCommit>) -> usize {
    let pending = std::mem::take(&mut core.pending).into_bytes();
    core.taken = WriteCost::default();
    let (record, mut undo) = match in_flight {
        Some(InFlightCommit { record, undo }) => (Some(record), vec![undo]),
        None => (None, vec![]),
    };
    undo.push(core.store.take_undo(Undo::default()));
    let first = record.iter().flat_map(|record| record.changes());
    let rest = ChangeReader::new(&pending).map_while(Result::ok);
    core.store.rollback(first.chain(rest), &undo)
}
