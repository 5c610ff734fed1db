//! Answers that are made later.

use super::changes::ChangesQuery;
use super::wait::Wait;

/// What a command waits for that cannot be answered at once. The engine begins the wait, and
/// answers when it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deferred {
    /// All that was written before is in the tables and fsynced.
    Flush,
    /// A seq has reached a level.
    Wait(Wait),
    /// There are changes to show.
    Changes(ChangesQuery),
}
