//! The checkpointer's view of the map: the keys whose rows in the tables are out of date.

use crate::protocol::ChangeBuffer;
use crate::state::checkpoint::Checkpoint;
use crate::storage::StorageError;

/// The owner of the map, as the checkpointer sees it.
pub trait Checkpoints: Send + Sync + std::fmt::Debug {
    /// Begins a checkpoint over all keys, in about so many stretches.
    fn begin(&self, parts: usize) -> Vec<Checkpoint>;

    /// Appends the next keys of `checkpoint` to `out`, as they are now, in their order. False
    /// when it has come to its end.
    fn next(&self, checkpoint: &mut Checkpoint, out: &mut ChangeBuffer) -> bool;

    /// How many keys there are.
    fn keys(&self) -> usize;

    /// Bytes that the persisted entries take as rows of the tables, about.
    fn live_bytes(&self) -> u64;

    /// Waits until every write that a checkpoint may have shown is in the log.
    fn wait_logged(&self) -> Result<(), StorageError>;
}
