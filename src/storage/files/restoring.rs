//! The mark of a restore: the first file in the directory that is to become a store, and the last
//! one to go, whether the store is whole then or nothing of it is left.
//!
//! Who opens a store looks for the mark once it has the lock, and who restores one looks at what
//! else is there once the mark is set: of two that begin at the same time, one sees the other.

use super::make_folder;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

const MARK: &str = "restoring";

/// What is said of a directory with the mark.
pub const IS_RESTORING: &str = "a restore into it is under way, or was cut short; \
     where none runs any more, remove the directory, and restore it again";

/// Whether a restore into `path` was begun, and not ended.
pub fn is_restoring(path: &Path) -> bool {
    path.join(MARK).exists()
}

/// Takes the directory `path` for a restore, and makes it where it is missing; the mark is on the
/// medium then. False where something is in it, which is left as it is.
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

/// Gives up a restore that was begun: the directory is empty again.
pub fn undo_restoring(path: &Path) -> io::Result<()> {
    for inside in others(path)? {
        match inside.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(inside.path())?,
            false => std::fs::remove_file(inside.path())?,
        }
    }
    end_restoring(path)
}

/// What is in the directory beside the mark.
fn others(path: &Path) -> io::Result<Vec<std::fs::DirEntry>> {
    let all: io::Result<Vec<_>> = std::fs::read_dir(path)?.collect();
    Ok(all?.into_iter().filter(|inside| inside.file_name() != MARK).collect())
}
