//! The mark of a restore: the first file in the directory that is to become a store, and the last
//! one removed, whether the restore succeeded or was undone.
//!
//! Opening a store takes the lock and then looks for the mark. A restore sets the mark and then
//! looks for other files. So of two processes that begin at the same time, one sees the other.

use super::make_folder;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

const MARK: &str = "restoring";

/// The description of a directory with the mark.
pub const IS_RESTORING: &str = "a restore into it is under way, or was cut short; \
     where none runs any more, remove the directory, and restore it again";

/// Whether a restore into `path` was begun and not ended.
pub fn is_restoring(path: &Path) -> bool {
    path.join(MARK).exists()
}

/// Claims the directory `path` for a restore, and creates it where it is missing; the mark is then
/// on the disk. Returns false, and changes nothing, where the directory is not empty.
pub fn begin_restoring(path: &Path) -> io::Result<bool> {
    make_folder(path)?;
    let mark = match File::options().write(true).create_new(true).open(path.join(MARK)) {
        Ok(mark) => mark,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    };
    let is_alone = mark.sync_all().and_then(|()| {
        File::open(path)?.sync_all()?;
        Ok(others(path)?.is_empty())
    });
    if !matches!(is_alone, Ok(true)) {
        std::fs::remove_file(path.join(MARK))?;
    }
    is_alone
}

/// Ends a restore: the store is whole.
pub fn end_restoring(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path.join(MARK))?;
    File::open(path)?.sync_all()
}

/// Undoes a restore: the directory is empty again.
pub fn undo_restoring(path: &Path) -> io::Result<()> {
    for inside in others(path)? {
        match inside.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(inside.path())?,
            false => std::fs::remove_file(inside.path())?,
        }
    }
    end_restoring(path)
}

/// The directory's other entries, besides the mark.
fn others(path: &Path) -> io::Result<Vec<std::fs::DirEntry>> {
    let all: io::Result<Vec<_>> = std::fs::read_dir(path)?.collect();
    Ok(all?.into_iter().filter(|inside| inside.file_name() != MARK).collect())
}
