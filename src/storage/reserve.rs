//! Room on the medium: how much is free, and what is held back of it.
//!
//! Deletes have to be logged before they free anything, and a start writes a little too. So a file
//! of some MiB is there from the first start on, and goes when the medium is nearly full: what it
//! took is for them.

use rustix::fs::statvfs;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// The file's name in the store's directory.
pub const RESERVE: &str = "reserve";
/// How long it is, or, on a small medium, which part of it.
const RESERVE_BYTES: u64 = 4 << 20;
const RESERVE_PART: u64 = 64;
/// What is to stay free of writes that add something, or which part of a small medium.
const LOW_BYTES: u64 = 32 << 20;
const LOW_PART: u64 = 16;

/// Room on a medium, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What is free.
    pub free: u64,
    /// With less than this the medium counts as full.
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

/// The room on the medium of the store at `path`. Where there is little, the reserve is given up.
pub(super) fn measure(path: &Path) -> io::Result<Room> {
    let room = Medium::of(path)?.room;
    let is_released = room.free < room.low && release(&path.join(RESERVE))?;
    if is_released { Ok(Medium::of(path)?.room) } else { Ok(room) }
}

/// Makes the reserve of the store at `path`, where there is none and plenty of room.
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
        // Written, not only made so long: it is to take room.
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
    fn a_reserve_is_made_where_there_is_room_and_can_be_given_up() {
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
