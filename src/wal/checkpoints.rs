//! The checkpointer's view of the map: the keys whose rows in the tables are out of date.

use crate::protocol::ChangeBuffer;
use crate::state::checkpoint::Checkpoint;
use crate::storage::StorageError;

/// The owner of the map, from the checkpointer's point of view.
pub trait Checkpoints: Send + Sync + std::fmt::Debug {
    /// Begins a checkpoint over all keys, divided into about `parts` ranges.
    fn begin(&self, parts: usize) -> Vec<Checkpoint>;

    /// Appends the next keys of `checkpoint` to `out`, with their current values, in key order.
    /// Returns false at the end of the checkpoint.
    fn next(&self, checkpoint: &mut Checkpoint, out: &mut ChangeBuffer) -> bool;

    /// The number of keys.
    fn keys(&self) -> usize;

    /// About how many bytes the persisted entries take as rows of the tables.
    fn live_bytes(&self) -> u64;

    /// Waits until the log holds every write that a checkpoint may have written.
    fn wait_logged(&self) -> Result<(), StorageError>;
}
