//! A file that takes its name only when it is whole, so that a half one is never taken for it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::Failure;

/// The file, under a name of its own until [`Replacement::finish`].
#[derive(Debug)]
pub(super) struct Replacement {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    is_finished: bool,
}

impl Replacement {
    pub(super) fn begin(path: PathBuf) -> Result<Self, Failure> {
        let mut partial = path.clone().into_os_string().into_vec();
        partial.extend_from_slice(b".partial");
        let partial = PathBuf::from(OsString::from_vec(partial));
        let file = File::create(&partial).map_err(|error| unwritten(&partial, &error))?;
        let file = BufWriter::with_capacity(1 << 18, file);
        Ok(Replacement { path, partial, file, is_finished: false })
    }

    /// Makes the file durable, then gives it its name.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        let named = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all())
            .and_then(|()| std::fs::rename(&self.partial, &self.path));
        named.map_err(|error| unwritten(&self.path, &error))?;
        self.is_finished = true;
        // The name too is to survive a loss of power.
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let synced = File::open(folder.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all());
        synced.map_err(|error| unwritten(&self.path, &error))
    }

    /// What could not be written, in words.
    pub(super) fn failed(&self, error: &io::Error) -> Failure {
        unwritten(&self.partial, error)
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.is_finished {
            // Nothing more can be done about a file that cannot be removed either.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot write {}: {error}", path.display()))
}
