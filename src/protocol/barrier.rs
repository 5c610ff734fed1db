//! The commit position that a reply waits for.

use super::{Level, Seq};

/// The seqs that must have reached a level before a reply may be sent (promises 2 and 3). 0 needs
/// no wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DurabilityBarrier {
    /// This seq must be handed to the operating system.
    pub stored: Seq,
    /// This seq must be fsynced.
    pub synced: Seq,
    /// This seq must be in the tables.
    pub checkpointed: Seq,
}

impl DurabilityBarrier {
    /// A barrier that is always open.
    pub const OPEN: Self = Self { stored: 0, synced: 0, checkpointed: 0 };

    /// Also waits until the write `seq` has reached `level`.
    pub fn require(&mut self, level: Level, seq: Seq) {
        match level {
            Level::Memory | Level::Queued => {}
            Level::Stored => self.stored = self.stored.max(seq),
            Level::Synced => self.synced = self.synced.max(seq),
        }
    }

    /// Also waits for everything that `other` waits for.
    pub fn join(&mut self, other: Self) {
        self.stored = self.stored.max(other.stored);
        self.synced = self.synced.max(other.synced);
        self.checkpointed = self.checkpointed.max(other.checkpointed);
    }
}
