//! The end of the committer: what it leaves on its way is taken back, so that all reads go on.

use super::commit::OnItsWay;
use super::{Core, Engine};
use crate::store::undo::Undo;
use crate::wire::ChangeBuffer;
use crate::wire::WriteCost;
use crate::wire::change::ChangeReader;
use std::panic::{AssertUnwindSafe, catch_unwind};

impl Engine {
    /// Nothing will be committed any more. After a failure every key is put back to the newest
    /// value that reached its level; who waits for others is told.
    pub(super) fn settle(&self, on_its_way: Option<OnItsWay>) {
        let mut core = self.core_mut();
        if !self.watermarks.has_failed() {
            self.watermarks.settle();
            return;
        }
        // What a panic left behind may make another one; who waits is told in any case.
        let done = catch_unwind(AssertUnwindSafe(|| take_back(&mut core, on_its_way)));
        self.watermarks.settle();
        drop(core);
        match done {
            Ok(keys) => tracing::warn!(keys, "took back what had not reached its level"),
            Err(_) => tracing::error!("not all was taken back; some reads will be refused"),
        }
    }
}

/// Returns how many keys were put back.
fn take_back(core: &mut Core, on_its_way: Option<OnItsWay>) -> usize {
    let pending: ChangeBuffer = std::mem::take(&mut core.pending);
    core.taken = WriteCost::default();
    let (record, mut undo) = match on_its_way {
        Some(OnItsWay { record, undo }) => (Some(record), vec![undo]),
        None => (None, vec![]),
    };
    undo.push(core.store.take_undo(Undo::default()));
    let first = record.iter().flat_map(|record| record.changes());
    let rest = ChangeReader::new(pending.bytes()).map_while(Result::ok);
    core.store.take_back(first.chain(rest), &undo)
}
