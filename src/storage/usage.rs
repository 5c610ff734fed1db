//! The disk space that a store takes, by purpose.

use super::log;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The unit of `st_blocks`.
pub(super) const BLOCK_BYTES: u64 = 512;

/// Bytes on the disk: files count with their allocated blocks, not with their lengths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StorageUsage {
    /// The tables, including dead rows.
    pub tables: u64,
    /// Rows written to the tables and not sorted yet.
    pub journals: u64,
    /// The log, including recycled files.
    pub log: u64,
    /// Everything else in the directory.
    pub other: u64,
}

impl StorageUsage {
    /// The sum.
    pub fn total(&self) -> u64 {
        self.tables + self.journals + self.log + self.other
    }

    /// The space that a store's directory takes now. Files may be removed during the walk; they do
    /// not count.
    pub(super) fn of(path: &Path) -> Self {
        let mut usage = Self::default();
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let is_journal = path.extension() == Some(OsStr::new("jnl"));
            let kind = match name.to_str() {
                Some("keyspaces") => &mut usage.tables,
                Some(log::FOLDER) => &mut usage.log,
                _ if is_journal => &mut usage.journals,
                _ => &mut usage.other,
            };
            *kind += allocated(&path);
        }
        usage
    }
}

fn allocated(path: &Path) -> u64 {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() {
        return metadata.blocks() * BLOCK_BYTES;
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| allocated(&entry.path())).sum()
}
