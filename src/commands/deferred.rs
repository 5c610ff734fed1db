//! Replies that are made later.

use crate::clock::Millis;
use crate::protocol::{Level, Seq};

/// The condition that a deferred reply waits for. The engine begins the wait, and answers when it
/// has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deferred {
    /// All earlier writes are in the tables and fsynced.
    Flush,
    /// A seq has reached a level.
    Wait(LevelWait),
    /// There are changes to return.
    Changes(ChangesQuery),
}

/// A wait for a seq to reach a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelWait {
    /// The seq.
    pub seq: Seq,
    /// The level it must reach.
    pub level: Level,
    /// How long to wait before the answer is false. `None` waits without a limit.
    pub timeout_ms: Option<Millis>,
}

/// A `changes` request that owns its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesQuery {
    /// Only changes of writes later than this.
    pub after: Seq,
    /// Only changes of keys that begin with this.
    pub prefix: Vec<u8>,
    /// Most changes in the reply.
    pub limit: Option<usize>,
    /// How long to wait for a change when there is none yet.
    pub wait_ms: Millis,
}
