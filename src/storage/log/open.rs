//! Opens the log files of a store: checks which files must exist, and removes the partial frames
//! that a crash left in the last one.

use super::format::HEAD_BYTES;
use super::segment_pool::{SegmentPool, remove_left};
use super::walk::{Found, Rest, name};
use super::{Durable, FILE_BYTES, FOLDER, LogFile, LogFiles, Writer};
use crate::storage::file_fault::{FileFault, MISSING};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

/// The facts of the store about its log.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::storage) struct Known {
    /// The files before this key were about to be removed.
    pub(in crate::storage) begins: u64,
    /// The end of the part of the log that is known to have been on the disk.
    pub(in crate::storage) ends: Option<Durable>,
}

impl Known {
    /// Decodes the two facts: where the log begins, and how much of it was on the disk.
    pub(in crate::storage) fn decode(begins: Option<&[u8]>, ends: Option<&[u8]>) -> Self {
        let numbers = |bytes: &[u8]| -> Vec<u64> {
            let chunks = bytes.chunks_exact(8).filter_map(|chunk| chunk.try_into().ok());
            chunks.map(u64::from_le_bytes).collect()
        };
        let begins = begins.and_then(|bytes| numbers(bytes).first().copied()).unwrap_or(0);
        let ends = ends.and_then(|bytes| match numbers(bytes).as_slice() {
            [first, salt, at] => Some(Durable { first: *first, salt: *salt, at: *at }),
            _ => None,
        });
        Self { begins, ends }
    }
}

impl LogFiles {
    /// Opens the log in the directory of the store at `path`, whose files passed an inspection. The
    /// error names what is missing; then nothing is changed.
    pub(in crate::storage) fn open(
        path: &Path,
        mut found: Found,
        known: Known,
    ) -> io::Result<Result<Self, FileFault>> {
        let folder = path.join(FOLDER);
        let kept = found.heads.split_off(&known.begins);
        let gone = std::mem::replace(&mut found.heads, kept);
        if found.heads.is_empty() {
            found.last = None;
        }
        if let Some(fault) = missing(&found, known).or_else(|| cut_short(&found, known)) {
            return Ok(Err(fault));
        }
        // A crash came between the note of their removal and the removal.
        for first in gone.into_keys() {
            std::fs::remove_file(folder.join(name(first)))?;
        }
        remove_left(&folder)?;
        let (files, writer) = open_last(&folder, &mut found)?;
        Ok(Ok(Self {
            folder,
            files: RwLock::new(files),
            writer: Mutex::new(writer),
            syncing: Mutex::new(()),
            segment_pool: SegmentPool::default(),
            failure: OnceLock::new(),
            file_bytes: FILE_BYTES,
        }))
    }

    /// The same log, with files that are closed at `file_bytes`.
    #[cfg(test)]
    pub(super) fn with_files_of(mut self, file_bytes: u64) -> Self {
        self.file_bytes = file_bytes;
        self
    }
}

fn fault(first: u64, what: impl Into<String>) -> FileFault {
    FileFault::new(PathBuf::from(FOLDER).join(name(first)), what)
}

/// Every file names the one before it, and the last synced file is known.
pub(super) fn missing(found: &Found, known: Known) -> Option<FileFault> {
    let mut before = known.begins.saturating_sub(1);
    for (first, head) in &found.heads {
        if head.previous > before {
            return Some(fault(head.previous, MISSING));
        }
        before = *first;
    }
    let ends = known.ends.filter(|ends| ends.first >= known.begins)?;
    (!found.heads.contains_key(&ends.first)).then(|| fault(ends.first, MISSING))
}

/// No crash can remove data that was on the disk.
pub(super) fn cut_short(found: &Found, known: Known) -> Option<FileFault> {
    let (ends, walk) = (known.ends?, found.last.as_ref()?);
    let (first, head) = found.heads.last_key_value()?;
    let is_cut = ends.first == *first && ends.salt == head.salt && walk.end < ends.at;
    let what = || format!("it ends at byte {}, and ended at {} at least", walk.end, ends.at);
    is_cut.then(|| fault(*first, what()))
}

type Opened = (BTreeMap<u64, Arc<LogFile>>, Writer);

/// Opens the last file for appending, without the partial frames that a crash left.
fn open_last(folder: &Path, found: &mut Found) -> io::Result<Opened> {
    let mut files = BTreeMap::new();
    let mut writer = Writer::default();
    if let (Some((first, head)), Some(walk)) = (found.heads.pop_last(), found.last.take()) {
        let path = folder.join(name(first));
        let (name, end) = (name(first), walk.end);
        let mut file = File::options().write(true).open(&path)?;
        if ![Rest::Nothing, Rest::Room].contains(&walk.rest) {
            tracing::warn!(
                "the last writes were cut short: removed what follows byte {end} of {name}"
            );
            file.set_len(end)?;
            file.sync_all()?;
        }
        if end == HEAD_BYTES {
            // It was made for a record that never came.
            std::fs::remove_file(&path)?;
        } else {
            file.seek(SeekFrom::Start(end))?;
            let log = Arc::new(LogFile::found(head, end, Some(walk.index)));
            files.insert(first, Arc::clone(&log));
            writer = Writer { last: Some((log, Arc::new(file))), last_key: walk.last_key };
        }
    }
    for (first, head) in &found.heads {
        let length = std::fs::metadata(folder.join(name(*first)))?.len();
        files.insert(*first, Arc::new(LogFile::found(*head, length, None)));
    }
    if writer.last.is_none()
        && let Some((_, log)) = files.last_key_value()
    {
        let file = log.open(folder)?;
        writer.last_key = log.last_key(&file)?;
    }
    Ok((files, writer))
}
