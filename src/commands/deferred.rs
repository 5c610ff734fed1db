//! Replies that are made later.

use super::changes::ChangesQuery;
use super::wait::Wait;

/// The condition that a deferred reply waits for. The engine begins the wait, and answers when it
/// has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deferred {
    /// All earlier writes are in the tables and fsynced.
    Flush,
    /// A seq has reached a level.
    Wait(Wait),
    /// There are changes to return.
    Changes(ChangesQuery),
}
