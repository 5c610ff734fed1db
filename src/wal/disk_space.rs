//! Whether the disk has room for more. A write that fails ends all writing until a restart, so
//! writes are refused before one can fail.

use crate::storage::Room;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A checkpoint or a delete needs a little room besides the bytes that it writes.
const SLACK_BYTES: u64 = 256 << 10;

/// The last known free space of the disk.
#[derive(Debug)]
pub struct DiskSpace {
    free: AtomicU64,
    low: AtomicU64,
    is_full: AtomicBool,
}

impl Default for DiskSpace {
    /// A disk of unknown free space.
    fn default() -> Self {
        Self { free: u64::MAX.into(), low: 0.into(), is_full: false.into() }
    }
}

impl DiskSpace {
    /// Records a measurement. `waiting` bytes are in the log and still to be checkpointed.
    pub fn measured(&self, room: Room, waiting: u64) {
        self.free.store(room.free, Ordering::Relaxed);
        self.low.store(room.low, Ordering::Relaxed);
        // A margin, so that the state does not flip with every write.
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

    /// Counts `bytes` written since the last measurement.
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

    /// Whether the disk has no room for writes that add data.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// The free bytes; `u64::MAX` where they are not known.
    pub fn free_bytes(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Whether `bytes` can be written.
    pub fn fits(&self, bytes: u64) -> bool {
        self.free_bytes() >= bytes.saturating_add(SLACK_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_counts_as_full_early_and_until_a_margin_is_free() {
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
        assert!(!space.fits(0), "not even a small write");
    }
}
