//! A file that gets its name only when it is complete, so that a partial file is never mistaken for
//! it.
//!
//! A pipe or a device is written directly.

use std::ffi::OsString;
use std::fs::{File, Metadata, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Failure;

/// How many processes may write a file at the same time, each its own partial file.
const PARTIAL_MAX: u32 = 100;
/// The mode of a new file, before the user's umask is applied.
const NEW_MODE: u32 = 0o666;
/// The mode of a partial file, until it gets that of the file it replaces.
const PRIVATE_MODE: u32 = 0o600;

/// The file, under a temporary name until [`AtomicFile::finish`].
#[derive(Debug)]
pub(super) struct AtomicFile {
    path: PathBuf,
    /// Its temporary name; `None` where the target is written in place.
    partial: Option<PathBuf>,
    file: BufWriter<File>,
}

impl AtomicFile {
    pub(super) fn begin(path: PathBuf) -> Result<Self, Failure> {
        let begun = match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => Err(ErrorKind::IsADirectory.into()),
            Ok(found) if found.is_file() => {
                // Where the path is a link, the target is replaced and the link stays.
                path.canonicalize().and_then(|path| Self::beside(path, Some(&found)))
            }
            Ok(_) => {
                File::options().write(true).open(&path).map(|file| Self::of(&path, None, file))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Self::beside(path.clone(), None),
            Err(error) => Err(error),
        };
        begun.map_err(|error| unwritten(&path, &error))
    }

    fn of(path: &Path, partial: Option<PathBuf>, file: File) -> Self {
        let file = BufWriter::with_capacity(1 << 18, file);
        AtomicFile { path: path.to_owned(), partial, file }
    }

    /// Creates a new file to replace `path`, with the mode of the existing file.
    fn beside(path: PathBuf, replaced: Option<&Metadata>) -> io::Result<Self> {
        let mode = if replaced.is_some() { PRIVATE_MODE } else { NEW_MODE };
        for number in 0..PARTIAL_MAX {
            let mut partial = path.clone().into_os_string();
            partial.push(match number {
                0 => OsString::from(".partial"),
                _ => format!(".partial-{number}").into(),
            });
            if let Some(partial) = Partial::take(PathBuf::from(partial), mode)? {
                let new = Self::of(&path, Some(partial.path), partial.file);
                if let Some(replaced) = replaced {
                    new.file.get_ref().set_permissions(replaced.permissions())?;
                }
                return Ok(new);
            }
        }
        Err(io::Error::other("too many write it at the same time"))
    }

    /// Whether it is a regular file, named at the end.
    pub(super) fn is_file(&self) -> bool {
        self.partial.is_some()
    }

    /// Makes the file durable, then gives it its name.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        let named = self.file.flush().and_then(|()| self.name());
        named.map_err(|error| unwritten(&self.path, &error))
    }

    fn name(&mut self) -> io::Result<()> {
        let Some(partial) = &self.partial else { return Ok(()) };
        self.file.get_ref().sync_all()?;
        std::fs::rename(partial, &self.path)?;
        self.partial = None;
        // The name, too, must survive a power failure.
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    /// The failure of a write.
    pub(super) fn failed(&self, error: &io::Error) -> Failure {
        unwritten(self.partial.as_ref().unwrap_or(&self.path), error)
    }
}

/// A partial file, locked by its writer.
struct Partial {
    path: PathBuf,
    file: File,
}

impl Partial {
    /// Creates or reuses the partial file, also after its writer was killed; `None` while another
    /// process writes it.
    fn take(path: PathBuf, mode: u32) -> io::Result<Option<Self>> {
        let file =
            File::options().write(true).create(true).truncate(false).mode(mode).open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Its writer may have named or removed it before this lock was taken.
        let (held, named) = (file.metadata()?, std::fs::symlink_metadata(&path).ok());
        let is_it = |named: Metadata| (named.dev(), named.ino()) == (held.dev(), held.ino());
        if !held.is_file() || !named.is_some_and(is_it) {
            return Ok(None);
        }
        file.set_len(0)?;
        Ok(Some(Self { path, file }))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            // A file that cannot be removed either is left.
            let _ = std::fs::remove_file(partial);
        }
    }
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot write {}: {error}", path.display()))
}
