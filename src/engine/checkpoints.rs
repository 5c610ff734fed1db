//! The map as the checkpointer sees it.

use super::Engine;
use crate::protocol::ChangeBuffer;
use crate::state::checkpoint::Checkpoint;
use crate::storage::StorageError;
use crate::wal::Checkpoints;

impl Checkpoints for Engine {
    fn begin(&self, parts: usize) -> Vec<Checkpoint> {
        self.core_mut().store.begin_checkpoint(parts)
    }

    fn next(&self, checkpoint: &mut Checkpoint, out: &mut ChangeBuffer) -> bool {
        self.core_mut().store.next_in_checkpoint(checkpoint, out)
    }

    fn keys(&self) -> usize {
        self.len()
    }

    fn live_bytes(&self) -> u64 {
        self.core().store.row_bytes()
    }

    fn wait_logged(&self) -> Result<(), StorageError> {
        let mut core = self.core_mut();
        let seq = core.last_written.max(core.pending.last_seq());
        core.is_urgent = true;
        drop(core);
        self.wake_committer();
        self.watermarks.wait_stored(seq)
    }
}
