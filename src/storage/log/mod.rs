//! The log's records in append-only files of vatn's own: `log/<first key>.log`.
//!
//! A record is written once, read rarely, and dropped together with all older ones, so the log
//! needs nothing of a sorted store. One write appends a record, one `fdatasync` makes it durable,
//! and a file is removed when none of its records is needed. `format` describes the bytes.
//!
//! A file is closed when it exceeds [`FILE_BYTES`]. A closed file is completely on the disk, so a
//! crash can tear only the last file. Closed files are read only when a record in them is
//! requested.

mod edit;
mod file;
mod format;
mod frames;
mod open;
mod segment_pool;
mod view;
mod walk;

pub(super) use open::Known;
pub(super) use view::LogView;
pub(super) use walk::{Found, files, inspect};

use super::StorageError;
use file::LogFile;
use format::{HEAD_BYTES, Head};
use segment_pool::SegmentPool;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use walk::name;

/// The directory of the log files, in the store's directory.
pub(super) const FOLDER: &str = "log";
/// The length at which a file is closed. The disk holds up to this much more than is retained.
const FILE_BYTES: u64 = 32 << 20;
/// How many files must fit into the free space of the disk for one to be preallocated, and for the
/// existing spares to be kept. The distance between the two avoids removing and recreating files.
const FREE_FOR_NEW: u64 = 8;
const FREE_FOR_KEPT: u64 = 4;
/// How much longer the last file is than its frames, in zeros: a sync then need not record a new
/// length, which would cost as much as the data.
const ROOM_BYTES: u64 = 1 << 20;
/// The distance between indexed frames, in bytes.
const INDEX_BYTES: u64 = 64 << 10;
const READING: &str = "reading the log";
const WRITING: &str = "writing the log";

/// A record with its key.
type KeyRecord = (u64, Vec<u8>);

/// The position of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    key: u64,
    at: u64,
}

/// The durable end of the log: all older files, and this one up to `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Durable {
    pub(super) first: u64,
    pub(super) salt: u64,
    pub(super) at: u64,
}

/// The log files of an open store.
#[derive(Debug)]
pub(super) struct LogFiles {
    folder: PathBuf,
    files: RwLock<BTreeMap<u64, Arc<LogFile>>>,
    writer: Mutex<Writer>,
    /// Held while a file is synced: the system reports a failed write once, and a thread that syncs
    /// at the same time must learn of it too.
    syncing: Mutex<()>,
    segment_pool: SegmentPool,
    /// The error that ended all writing.
    failure: OnceLock<StorageError>,
    file_bytes: u64,
}

/// The end of the log.
#[derive(Debug, Default)]
struct Writer {
    last: Option<(Arc<LogFile>, Arc<File>)>,
    last_key: Option<u64>,
}

impl LogFiles {
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a record of `key` can be appended: its key is above all others.
    pub(super) fn is_next(&self, key: u64) -> bool {
        self.writer().last_key.is_none_or(|last| last < key)
    }

    /// Fails when an earlier write did.
    pub(super) fn is_well(&self) -> Result<(), StorageError> {
        match self.failure.get() {
            Some(cause) => Err(StorageError::new("an earlier write failed", cause.clone())),
            None => Ok(()),
        }
    }

    /// After a failed write the end of the file is unknown.
    fn fail(&self, error: &io::Error) -> StorageError {
        let error = StorageError::new(WRITING, super::copy(error));
        let _ = self.failure.set(error.clone());
        error
    }

    /// Whether the next record goes into the open file: creating a file takes syncs.
    pub(super) fn appends_at_once(&self) -> bool {
        self.writer().last.as_ref().is_some_and(|(log, _)| log.length() < self.file_bytes)
    }

    /// Appends a record, whose key is above all others. When this returns, the operating system has
    /// it.
    pub(super) fn append(&self, key: u64, record: &[u8]) -> Result<(), StorageError> {
        self.is_well()?;
        let mut writer = self.writer();
        self.append_at(&mut writer, key, record).map_err(|error| self.fail(&error))
    }

    fn append_at(&self, writer: &mut Writer, key: u64, record: &[u8]) -> io::Result<()> {
        let (log, file) = match writer.last.take() {
            Some((log, file)) if log.length() < self.file_bytes => (log, file),
            full => {
                if let Some((log, file)) = full {
                    self.alone(|| log.close(&file))?;
                }
                self.begin(key)?
            }
        };
        log.append(&file, key, record)?;
        // A deleted file still accepts writes, and none of them can be found again.
        if is_removed(&file)? {
            let gone = format!("{} was removed under the broker", name(log.head.first));
            return Err(io::Error::other(gone));
        }
        writer.last = Some((log, file));
        writer.last_key = Some(key);
        Ok(())
    }

    /// Creates the file of the records from `first` on. Its content is on the disk before it gets
    /// its name, and it gets its name before its first record.
    fn begin(&self, first: u64) -> io::Result<(Arc<LogFile>, Arc<File>)> {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let previous = files.last_key_value().map_or(0, |(first, _)| *first);
        let head = Head::new(first, previous);
        let again = self.begin_again(first, &head.encode())?;
        let (file, room) = match again {
            Some(again) => again,
            None => {
                let file = make(&self.folder, first, |file| file.write_all(&head.encode()))?;
                (file, HEAD_BYTES)
            }
        };
        let log = Arc::new(LogFile::made(head, room));
        files.insert(first, Arc::clone(&log));
        Ok((log, Arc::new(file)))
    }

    /// Begins the file of the records from `first` on in a recycled file.
    fn begin_again(&self, first: u64, head: &[u8]) -> io::Result<Option<(File, u64)>> {
        let Some(spare) = self.segment_pool.take() else { return Ok(None) };
        let begun = spare.begin(head, &self.folder.join(name(first)))?;
        File::open(&self.folder)?.sync_all()?;
        Ok(begun)
    }

    /// Preallocates a piece of the next file, when it will be needed and pays off; returns whether
    /// it did. A failure here loses nothing. Where the disk has little free space, existing spare
    /// files are removed, recycled ones too.
    pub(super) fn preallocate(&self, free_bytes: u64) -> bool {
        let bytes = self.file_bytes + ROOM_BYTES;
        let fits = |times: u64| free_bytes / times >= bytes;
        let length = self.writer().last.as_ref().map_or(0, |(log, _)| log.length());
        // The next file is complete when this one is half full.
        let goal = length.saturating_mul(2 * bytes) / self.file_bytes;
        let released = match fits(FREE_FOR_KEPT) {
            true => self.segment_pool.release_unused(),
            false => self.segment_pool.clear(),
        };
        let is_wanted = fits(FREE_FOR_NEW);
        let make = || self.segment_pool.preallocate(&self.folder, goal, bytes);
        let made = released.and_then(|()| if is_wanted { make() } else { Ok(false) });
        made.unwrap_or_else(|error| {
            tracing::debug!("no log file was made ahead of time: {error}");
            false
        })
    }

    /// Makes everything appended so far survive a power failure, while a writer waits for it.
    pub(super) fn sync_for_writers(&self) -> Result<(), StorageError> {
        self.segment_pool.waited();
        self.sync()
    }

    /// Makes everything appended so far survive a power failure.
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        self.is_well()?;
        let last = self.writer().last.clone();
        let Some((log, file)) = last else { return Ok(()) };
        self.sync_file(&log, &file).map_err(|error| self.fail(&error))
    }

    fn sync_file(&self, log: &LogFile, file: &File) -> io::Result<()> {
        // Another thread may have synced it meanwhile.
        self.alone(|| if log.has_unsynced() { log.sync(file) } else { Ok(()) })
    }

    /// Syncs under the lock, unless an earlier sync failed.
    fn alone(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_well().map_err(io::Error::other)?;
        sync().inspect_err(|error| drop(self.fail(error)))
    }

    /// Removes the recycled files.
    pub(super) fn release_spares(&self) -> io::Result<()> {
        self.segment_pool.clear()
    }

    /// Truncates the last file to its frames: after an orderly close it contains nothing else.
    pub(super) fn close(&self) -> Result<(), StorageError> {
        self.is_well()?;
        self.segment_pool.clear().map_err(|error| self.fail(&error))?;
        let Some((log, file)) = self.writer().last.take() else { return Ok(()) };
        self.alone(|| log.close(&file)).map_err(|error| self.fail(&error))
    }

    /// The durable end of the log; `None` when the log is empty.
    pub(super) fn durable(&self) -> Option<Durable> {
        let writer = self.writer();
        let (log, _) = writer.last.as_ref()?;
        let (head, at) = (log.head, log.synced());
        (at > HEAD_BYTES).then_some(Durable { first: head.first, salt: head.salt, at })
    }

    /// The bytes of all files.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        let logs: u64 = self.all().map(|log| log.length()).sum();
        logs + self.segment_pool.bytes()
    }

    fn all(&self) -> impl Iterator<Item = Arc<LogFile>> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.values().cloned().collect::<Vec<_>>().into_iter()
    }

    /// The file that holds `key`, or would hold it.
    fn at(&self, key: u64) -> Option<Arc<LogFile>> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.range(..=key).next_back().map(|(_, log)| Arc::clone(log))
    }

    /// The file after the one that begins at `first`.
    fn after(&self, first: Bound<u64>) -> Option<Arc<LogFile>> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.range((first, Bound::Unbounded)).next().map(|(_, log)| Arc::clone(log))
    }

    /// Does `work` with an open file; `None` when the file was trimmed meanwhile.
    fn with<T>(
        &self,
        log: &LogFile,
        work: impl FnOnce(&File) -> io::Result<T>,
    ) -> Result<Option<T>, StorageError> {
        let first = log.head.first;
        let done = log.open(&self.folder).and_then(|file| work(&file));
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        match done {
            Ok(done) => Ok(Some(done)),
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && !files.contains_key(&first) =>
            {
                Ok(None)
            }
            Err(error) => {
                Err(StorageError::new(READING, format!("{FOLDER}/{}: {error}", name(first))))
            }
        }
    }

    /// Reads the records from `from` on, in order, until `each` returns false.
    pub(super) fn scan(
        &self,
        from: u64,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        let mut next = self.at(from).or_else(|| self.after(Bound::Unbounded));
        while let Some(log) = next {
            // Taken before the file is read: a file with a successor has its last record. Beyond
            // the last file are only records that came after the read began.
            next = self.after(Bound::Excluded(log.head.first));
            if self.with(&log, |file| log.scan(file, from, each))? == Some(true) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads the last record whose key is at or below `key`.
    pub(super) fn floor(&self, key: u64) -> Result<Option<KeyRecord>, StorageError> {
        let mut key = Some(key);
        while let Some(log) = key.and_then(|key| self.at(key)) {
            let wanted = key.unwrap_or(0);
            if let Some(found) = self.with(&log, |file| log.floor(file, wanted))?.flatten() {
                return Ok(Some(found));
            }
            key = log.head.first.checked_sub(1);
        }
        Ok(None)
    }

    /// The first key of the files that remain when all files with only records before `before` are
    /// removed; `None` when no file can be removed. Nothing more is appended to a removable file.
    pub(super) fn kept_from(&self, before: u64) -> Result<Option<u64>, StorageError> {
        self.is_well()?;
        let mut writer = self.writer();
        let files: Vec<u64> = self.all().map(|log| log.head.first).collect();
        let end = writer.last_key.map_or(0, |last| last.saturating_add(1));
        if end <= before
            && let Some((log, file)) = writer.last.take()
        {
            self.alone(|| log.close(&file)).map_err(|error| self.fail(&error))?;
        }
        let ends = files.iter().skip(1).copied().chain([end]);
        let going = ends.take(files.len()).take_while(|end| *end <= before);
        Ok(going.last())
    }

    /// Removes the files before the one that begins at `first`. The caller has noted durably that
    /// the log begins there: a crash may lose the removal, or leave it partial.
    pub(super) fn remove_before(&self, first: u64) -> Result<(), StorageError> {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let kept = files.split_off(&first);
        let gone = std::mem::replace(&mut *files, kept);
        drop(files);
        let path = |first| self.folder.join(name(first));
        let mut unread = Vec::new();
        for (first, log) in gone {
            // A thread that is reading the file can read to its end.
            match Arc::into_inner(log) {
                Some(_) => unread.push(path(first)),
                None => std::fs::remove_file(path(first)).map_err(trimming)?,
            }
        }
        self.segment_pool.put(&self.folder, unread).map_err(trimming)
    }
}

fn trimming(error: io::Error) -> StorageError {
    StorageError::new("trimming the log", error)
}

/// Whether a file has been unlinked. Only the link count is queried, and no times: Linux 6.13 and
/// later record a separate time for the first write after a query of a file's times (multigrain
/// timestamps), and the next sync would have to write that too, elsewhere.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_removed(file: &File) -> io::Result<bool> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    Ok(statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::NLINK)?.stx_nlink == 0)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn is_removed(file: &File) -> io::Result<bool> {
    Ok(std::os::unix::fs::MetadataExt::nlink(&file.metadata()?) == 0)
}

/// Makes a file in `folder` with the content that `fill` writes, and names it when the content is
/// on the disk.
fn make(
    folder: &Path,
    first: u64,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<File> {
    if !folder.exists() {
        std::fs::create_dir(folder)?;
        if let Some(store) = folder.parent() {
            File::open(store)?.sync_all()?;
        }
    }
    let partial = folder.join("partial");
    let mut file = File::options().write(true).create(true).truncate(true).open(&partial)?;
    fill(&mut file)?;
    file.sync_all()?;
    std::fs::rename(&partial, folder.join(name(first)))?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests;
