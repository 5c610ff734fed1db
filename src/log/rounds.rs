//! What the workers ask of whoever owns the map: the keys that the tables do not show as they are.

use crate::disk::DiskError;
use crate::store::round::Round;
use crate::wire::ChangeBuffer;

/// The owner of the map, as the workers see it.
pub trait Rounds: Send + Sync + std::fmt::Debug {
    /// Begins a round over all keys, in about so many stretches.
    fn begin(&self, parts: usize) -> Vec<Round>;

    /// Appends the next keys of `round` to `out`, as they are now, in the order of the keys. False
    /// when it has come to its end.
    fn next(&self, round: &mut Round, out: &mut ChangeBuffer) -> bool;

    /// How many keys there are.
    fn keys(&self) -> usize;

    /// Bytes that the persisted entries take as rows of the tables, about.
    fn live_bytes(&self) -> u64;

    /// Waits until every write that a round may have shown is in the log.
    fn wait_logged(&self) -> Result<(), DiskError>;
}
