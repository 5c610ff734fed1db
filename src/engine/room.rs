//! The medium's room, as commands meet it: what may be written when it is full, and `compact`.

use super::Engine;
use crate::commands::Command;
use crate::protocol::refusal::Code;
use crate::protocol::{Level, Refusal};

impl Engine {
    /// Why a write that adds something is refused, if the medium is full. What is never persisted
    /// needs no room.
    pub(super) fn lacks_disk(&self, command: &Command<'_>) -> Option<Refusal> {
        let level = command.durability().unwrap_or(self.config.durability);
        (self.space.is_full() && level != Level::Memory).then(|| self.disk_is_full())
    }

    pub(super) fn disk_is_full(&self) -> Refusal {
        let free = self.space.free_bytes();
        let message = format!(
            "the disk is full ({free} bytes are free); nothing was changed: delete keys, or make \
             room on the disk"
        );
        Refusal::new(Code::Storage, message)
    }

    /// Whether what waits for its checkpoint would fit on the medium.
    pub(super) fn checkpoint_fits(&self, live_bytes: u64) -> bool {
        self.space.fits((self.queue.load().1 as u64).min(live_bytes))
    }

    /// Asks for a compaction; returns its number.
    pub(super) fn compact(&self) -> u64 {
        self.compaction.request()
    }
}
