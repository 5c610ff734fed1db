//! The directory of a database: whether it still exists, and the system's errors about it.

use super::StorageError;
use super::file_fault::MISSING;
use super::files;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many bytes a probe must write for the disk to count as having room.
const PROBE_BYTES: usize = 1 << 20;

/// Device and inode: two paths with the same are the same file.
type FileId = (u64, u64);

/// The directory of an open database.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// The paths that must persist, relative to the directory.
    kept: Vec<(PathBuf, FileId)>,
    /// The number of the newest journal: numbers only grow.
    journal: AtomicU64,
    /// The cause of the first failure, in the system's words.
    cause: OnceLock<String>,
}

impl Place {
    /// The directory at `path`, in which a database was just opened.
    pub(super) fn of(path: &Path) -> Result<Self, StorageError> {
        let unusable = |error: io::Error| {
            StorageError::new(&format!("the database {} cannot be used", path.display()), error)
        };
        let mut kept = vec![];
        for name in files::lasting(path).map_err(unusable)? {
            let id = file_id(&path.join(&name)).map_err(unusable)?;
            kept.push((name, id));
        }
        let (path, journal) = (path.to_owned(), AtomicU64::new(0));
        Ok(Self { path, kept, journal, cause: OnceLock::new() })
    }

    /// Fails when the directory, or a persistent path in it, was moved or removed. Deleted files
    /// that are still open accept writes and fsyncs, and none of that data can be found again.
    pub(super) fn is_kept(&self) -> Result<(), StorageError> {
        for (name, id) in &self.kept {
            match file_id(&self.path.join(name)) {
                Ok(found) if found == *id => {}
                Ok(_) => return Err(self.gone(name, &"another one is in its place")),
                Err(error) => return Err(self.gone(name, &error)),
            }
        }
        let journal = |number: u64| PathBuf::from(format!("{number}.jnl"));
        match files::newest_journal(&self.path) {
            Ok(newest) => {
                let newest = newest.unwrap_or(0);
                let known = self.journal.fetch_max(newest, Ordering::Relaxed);
                let is_there = newest >= known && self.path.join(journal(newest)).exists();
                match is_there {
                    true => Ok(()),
                    false => Err(self.gone(&journal(known), &MISSING)),
                }
            }
            Err(error) => Err(self.gone(Path::new("."), &error)),
        }
    }

    /// Fails when a file with rows is missing.
    pub(super) fn has_rows(&self) -> Result<(), StorageError> {
        match files::missing_table(&self.path) {
            Ok(None) => Ok(()),
            Ok(Some(fault)) => Err(self.gone(&fault.file, &fault.what)),
            Err(error) => Err(self.gone(Path::new("keyspaces"), &error)),
        }
    }

    fn gone(&self, name: &Path, cause: &dyn std::fmt::Display) -> StorageError {
        let (path, name) = (self.path.display(), name.display());
        let what = format!("the database {path} was removed under the broker, or some of it");
        StorageError::new(&what, format!("{name}: {cause}"))
    }

    /// Notes the cause of a failure; later ones are only consequences.
    pub(super) fn note(&self, cause: &impl ToString) {
        let _ = self.cause.set(cause.to_string());
    }

    /// The cause of an earlier failed write, which fjall reports without its cause. Where no cause
    /// is noted, as after a failure in fjall's background thread, the system is probed again.
    pub(super) fn cause(&self) -> Option<String> {
        let probed = self.probe().err().map(|error| error.to_string());
        self.cause.get().cloned().or(probed)
    }

    /// Whether the directory accepts a file of some size.
    fn probe(&self) -> io::Result<()> {
        let path = self.path.join("probe");
        let mut file = File::create(&path)?;
        let written = file.write_all(&vec![1; PROBE_BYTES]).and_then(|()| file.sync_all());
        std::fs::remove_file(&path).and(written)
    }
}

fn file_id(path: &Path) -> io::Result<FileId> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_of_the_same_name_is_not_the_same_place() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("lock");
        let first = File::create(&lock).unwrap();
        std::fs::create_dir(folder.path().join("keyspaces")).unwrap();
        File::create(folder.path().join("version")).unwrap();
        File::create(folder.path().join("0.jnl")).unwrap();
        let place = Place::of(folder.path()).unwrap();
        place.is_kept().unwrap();
        std::fs::remove_file(&lock).unwrap();
        assert!(place.is_kept().unwrap_err().to_string().contains("lock: No such file"));
        File::create(&lock).unwrap();
        assert!(place.is_kept().unwrap_err().to_string().contains("another one"));
        drop(first);
    }
}
