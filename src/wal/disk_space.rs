//! Whether the medium has room for more: a write that fails ends all writing until a restart, so
//! it is seen to that none comes to that.

use crate::storage::Room;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A checkpoint, or a delete, needs a little room besides what it writes.
const SLACK_BYTES: u64 = 256 << 10;

/// What is known of the room on the medium.
#[derive(Debug)]
pub struct DiskSpace {
    free: AtomicU64,
    low: AtomicU64,
    is_full: AtomicBool,
}

impl Default for DiskSpace {
    /// A medium of which nothing is known.
    fn default() -> Self {
        Self { free: u64::MAX.into(), low: 0.into(), is_full: false.into() }
    }
}

impl DiskSpace {
    /// The medium has been asked. `waiting` bytes are in the log, and still to be checkpointed.
    pub fn measured(&self, room: Room, waiting: u64) {
        self.free.store(room.free, Ordering::Relaxed);
        self.low.store(room.low, Ordering::Relaxed);
        // A little more, so that it does not change with every write.
        let enough = room.low.saturating_mul(2).saturating_add(waiting);
        if room.free >= enough {
            self.is_full.store(false, Ordering::Relaxed);
        } else if room.free < room.low.saturating_add(waiting)
            && !self.is_full.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                free_bytes = room.free,
                "the disk is full: only deletes are taken, and older history goes"
            );
        }
    }

    /// So many bytes were written since.
    pub fn spent(&self, bytes: u64, waiting: u64) {
        let known = self.free_bytes();
        if known == u64::MAX {
            return;
        }
        let free = known.saturating_sub(bytes);
        self.free.store(free, Ordering::Relaxed);
        if free < self.low.load(Ordering::Relaxed).saturating_add(waiting) {
            self.is_full.store(true, Ordering::Relaxed);
        }
    }

    /// Whether there is no room for writes that add something.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// What is free; the greatest number where that is not known.
    pub fn free_bytes(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Whether so many bytes can be written.
    pub fn fits(&self, bytes: u64) -> bool {
        self.free_bytes() >= bytes.saturating_add(SLACK_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_before_it_is_and_until_there_is_room_for_more_than_a_write() {
        let space = DiskSpace::default();
        assert!(!space.is_full() && space.fits(1 << 40), "nothing is known");
        let measured = |free, waiting| {
            space.measured(Room { free, low: 100 }, waiting);
            space.is_full()
        };
        assert!(!measured(150, 50), "what waits for its checkpoint fits");
        assert!(measured(149, 50));
        assert!(measured(249, 50) && !measured(250, 50));
        space.spent(100, 50);
        assert!(!space.is_full() && space.free_bytes() == 150);
        space.spent(1, 50);
        assert!(space.is_full());
        assert!(!space.fits(0), "not even what is small");
    }
}
