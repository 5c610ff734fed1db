//! A file of the store that differs from what was written.

use std::fmt;
use std::path::{Path, PathBuf};

pub(super) const MISSING: &str = "it is missing";
pub(super) const STRAY: &str = "it is not part of the store; move it elsewhere";

/// A file that differs from what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFault {
    /// Its path, relative to the store's directory.
    pub file: PathBuf,
    /// The fault, in words.
    pub what: String,
}

impl FileFault {
    pub(super) fn new(file: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self { file: file.into(), what: what.into() }
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

/// How much of the files to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The parts that fjall would use unverified.
    Start,
    /// Every byte.
    Whole,
}

/// The names in `folder`, in order; empty where there is no such directory.
pub(super) fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        found.extend(entry?.file_name().into_string());
    }
    found.sort();
    Ok(found)
}
