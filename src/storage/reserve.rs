//! Disk space: how much is free, and how much is held in reserve.
//!
//! Deletes must be logged before they free anything, and a start writes a little too. So a file of
//! some MiB exists from the first start on. It is removed when the disk is nearly full: its space
//! is for deletes and starts.

use rustix::fs::statvfs;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// The file's name in the store's directory.
pub const RESERVE: &str = "reserve";
/// The length of the file or, on a small disk, the part of the disk.
const RESERVE_BYTES: u64 = 4 << 20;
const RESERVE_PART: u64 = 64;
/// The space that writes which add data must leave free, or the part of a small disk.
const LOW_BYTES: u64 = 32 << 20;
const LOW_PART: u64 = 16;

/// Space on a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// The free bytes.
    pub free: u64,
    /// With less than this, the disk counts as full.
    pub low: u64,
}

struct Medium {
    room: Room,
    reserve: u64,
}

impl Medium {
    fn of(path: &Path) -> io::Result<Self> {
        let found = statvfs(path)?;
        let total = found.f_blocks.saturating_mul(found.f_frsize);
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let low = LOW_BYTES.min(total / LOW_PART);
        Ok(Self { room: Room { free, low }, reserve: RESERVE_BYTES.min(total / RESERVE_PART) })
    }
}

/// The space on the disk of the store at `path`. Where it is low, the reserve is released.
pub(super) fn measure(path: &Path) -> io::Result<Room> {
    let room = Medium::of(path)?.room;
    let is_released = room.free < room.low && release(&path.join(RESERVE))?;
    if is_released { Ok(Medium::of(path)?.room) } else { Ok(room) }
}

/// Makes the reserve of the store at `path`, where it is missing and there is plenty of room.
pub(super) fn hold(path: &Path) -> io::Result<()> {
    let Medium { room, reserve } = Medium::of(path)?;
    let file = path.join(RESERVE);
    if room.free > room.low + 2 * reserve && !file.exists() { make(&file, reserve) } else { Ok(()) }
}

fn release(file: &Path) -> io::Result<bool> {
    match std::fs::remove_file(file) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn make(path: &Path, bytes: u64) -> io::Result<()> {
    let fill = || {
        let mut file = File::options().write(true).create_new(true).open(path)?;
        // Written, and not only extended: the file must occupy its blocks.
        let piece = vec![0; 1 << 16];
        for _ in 0..bytes.div_ceil(piece.len() as u64) {
            file.write_all(&piece)?;
        }
        file.sync_all()
    };
    fill().inspect_err(|_| drop(release(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_made_where_there_is_room_and_can_be_released() {
        let folder = tempfile::tempdir().unwrap();
        let Room { free, low } = measure(folder.path()).unwrap();
        hold(folder.path()).unwrap();
        let file = folder.path().join(RESERVE);
        assert_eq!(file.exists(), free > low + 2 * RESERVE_BYTES);
        measure(folder.path()).unwrap();
        assert_eq!(file.exists(), free > low + 2 * RESERVE_BYTES, "there is no need");
        assert_eq!(release(&file).unwrap(), free > low + 2 * RESERVE_BYTES);
        assert!(!release(&file).unwrap() && !file.exists());
    }
}
