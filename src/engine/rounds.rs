//! What the workers see of the map.

use super::Engine;
use crate::disk::DiskError;
use crate::log::Rounds;
use crate::store::round::Round;
use crate::wire::ChangeBuffer;

impl Rounds for Engine {
    fn begin(&self, parts: usize) -> Vec<Round> {
        self.core_mut().store.begin_round(parts)
    }

    fn next(&self, round: &mut Round, out: &mut ChangeBuffer) -> bool {
        self.core_mut().store.next_in_round(round, out)
    }

    fn keys(&self) -> usize {
        self.len()
    }

    fn live_bytes(&self) -> u64 {
        self.core().store.row_bytes()
    }

    fn wait_logged(&self) -> Result<(), DiskError> {
        let mut core = self.core_mut();
        let seq = core.last_written.max(core.pending.last_seq());
        core.is_urgent = true;
        drop(core);
        self.wake_committer();
        self.watermarks.wait_stored(seq)
    }
}
