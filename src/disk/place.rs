//! Where a database lies: whether it is still there, and what the system says of it.

use super::DiskError;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The file in the directory that fjall holds locked.
const LOCK_FILE: &str = "lock";
/// What a disk must take to pass for one with room.
const PROBE_BYTES: usize = 1 << 20;

/// Device and inode: two paths with the same are the same file.
type FileId = (u64, u64);

/// The directory of an open database.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    lock: FileId,
    /// The cause of the first failure, in the system's words.
    cause: OnceLock<String>,
}

impl Place {
    /// The directory at `path`, in which a database has just been opened.
    pub(super) fn of(path: &Path) -> Result<Self, DiskError> {
        let what = format!("the database {} cannot be used", path.display());
        let lock = file_id(path).map_err(|error| DiskError::new(&what, error))?;
        Ok(Self { path: path.to_owned(), lock, cause: OnceLock::new() })
    }

    /// Fails when the directory is not where it was. Files that were deleted under their users go
    /// on to take writes, and fsyncs too, and none of it can be found again.
    pub(super) fn is_kept(&self) -> Result<(), DiskError> {
        let gone = |cause: &dyn std::fmt::Display| {
            let path = self.path.display();
            DiskError::new(&format!("the database {path} was removed under the broker"), cause)
        };
        match file_id(&self.path) {
            Ok(found) if found == self.lock => Ok(()),
            Ok(_) => Err(gone(&"another one is in its place")),
            Err(error) => Err(gone(&error)),
        }
    }

    /// Notes the cause of a failure; later ones only follow from it.
    pub(super) fn note(&self, cause: &impl ToString) {
        let _ = self.cause.set(cause.to_string());
    }

    /// Why an earlier write failed, of which fjall only says that it did: also to a thread that
    /// hears of it first, and of one in its own background. The system is asked again then.
    pub(super) fn cause(&self) -> Option<String> {
        let probed = self.probe().err().map(|error| error.to_string());
        self.cause.get().cloned().or(probed)
    }

    /// Whether the directory takes a file of some size.
    fn probe(&self) -> io::Result<()> {
        let path = self.path.join("probe");
        let mut file = File::create(&path)?;
        let written = file.write_all(&vec![1; PROBE_BYTES]).and_then(|()| file.sync_all());
        std::fs::remove_file(&path).and(written)
    }
}

fn file_id(path: &Path) -> io::Result<FileId> {
    let metadata = std::fs::metadata(path.join(LOCK_FILE))?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_same_name_is_not_the_same_place() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join(LOCK_FILE);
        let first = File::create(&lock).unwrap();
        let place = Place::of(folder.path()).unwrap();
        assert_eq!(place.is_kept(), Ok(()));
        std::fs::remove_file(&lock).unwrap();
        assert!(place.is_kept().unwrap_err().text().contains("No such file"));
        File::create(&lock).unwrap();
        assert!(place.is_kept().unwrap_err().text().contains("another one"));
        drop(first);
    }
}
