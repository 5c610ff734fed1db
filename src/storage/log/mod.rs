//! The log's records in append-only files of our own: `log/<first key>.log`.
//!
//! A record is written once, read seldom, and dropped with all that are older, so none of what a
//! sorted store does for its rows is done for it: one write appends it, one `fdatasync` makes it
//! durable, and a file goes when no record in it is wanted any more. The bytes are in `format`.
//!
//! Files are closed when they are over [`FILE_BYTES`]; one that is closed is on the medium, whole,
//! so only the last one can be torn by a crash. Closed files are not read until somebody asks for
//! a record in them.

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

/// The directory of the files, in that of the store.
pub(super) const FOLDER: &str = "log";
/// A file is closed when it is this long. It is what the disk holds more than is retained.
const FILE_BYTES: u64 = 32 << 20;
/// How many files must fit into what is free of the medium for one to be made ahead of time, and
/// for those that are there to be kept. Far enough apart that what is given back is not made anew.
const FREE_FOR_NEW: u64 = 8;
const FREE_FOR_KEPT: u64 = 4;
/// The last file is longer than its frames by so much, in zeros: a sync then need not note a new
/// length, which costs as much again as the data.
const ROOM_BYTES: u64 = 1 << 20;
/// How far apart the frames are that a file's index tells of.
const INDEX_BYTES: u64 = 64 << 10;
const READING: &str = "reading the log";
const WRITING: &str = "writing the log";

/// A record with its key.
type KeyRecord = (u64, Vec<u8>);

/// Where a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    key: u64,
    at: u64,
}

/// How far the log is on the medium: all older files, and this one up to `at`.
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
    /// Held while a file is synced: the system tells of a failed write once, and whoever synced
    /// meanwhile has to hear of it too.
    syncing: Mutex<()>,
    segment_pool: SegmentPool,
    /// Why nothing is written any more.
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

    /// Whether a record of `key` can be appended: it comes after all others.
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

    /// After a failed write nothing is known of the end of the file.
    fn fail(&self, error: &io::Error) -> StorageError {
        let error = StorageError::new(WRITING, super::copy(error));
        let _ = self.failure.set(error.clone());
        error
    }

    /// Whether the next record goes into the file that is open: to make one takes syncs.
    pub(super) fn appends_at_once(&self) -> bool {
        self.writer().last.as_ref().is_some_and(|(log, _)| log.length() < self.file_bytes)
    }

    /// Appends a record, whose key is above all others. It is with the system when this returns.
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
        // A file that was deleted goes on to take writes, and none can be found again.
        if is_removed(&file)? {
            let gone = format!("{} was removed under the broker", name(log.head.first));
            return Err(io::Error::other(gone));
        }
        writer.last = Some((log, file));
        writer.last_key = Some(key);
        Ok(())
    }

    /// Makes the file of the records from `first` on. It is on the medium before it has its name,
    /// and has its name before anything is in it.
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

    /// Begins the file of the records from `first` on in one that is not used any more.
    fn begin_again(&self, first: u64, head: &[u8]) -> io::Result<Option<(File, u64)>> {
        let Some(spare) = self.segment_pool.take() else { return Ok(None) };
        let begun = spare.begin(head, &self.folder.join(name(first)))?;
        File::open(&self.folder)?.sync_all()?;
        Ok(begun)
    }

    /// Makes a piece of the next file ahead of time, when it will be needed and that is worth it;
    /// returns whether it did. What fails here is no loss. Where little is free of the medium, what
    /// is there goes, with what is kept to be written again.
    pub(super) fn preallocate(&self, free_bytes: u64) -> bool {
        let bytes = self.file_bytes + ROOM_BYTES;
        let fits = |times: u64| free_bytes / times >= bytes;
        let length = self.writer().last.as_ref().map_or(0, |(log, _)| log.length());
        // It is there when this one is half full.
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

    /// Makes everything appended so far survive a loss of power, while somebody waits for it.
    pub(super) fn sync_for_writers(&self) -> Result<(), StorageError> {
        self.segment_pool.waited();
        self.sync()
    }

    /// Makes everything appended so far survive a loss of power.
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        self.is_well()?;
        let last = self.writer().last.clone();
        let Some((log, file)) = last else { return Ok(()) };
        self.sync_file(&log, &file).map_err(|error| self.fail(&error))
    }

    fn sync_file(&self, log: &LogFile, file: &File) -> io::Result<()> {
        // Another thread may have done it meanwhile.
        self.alone(|| if log.has_unsynced() { log.sync(file) } else { Ok(()) })
    }

    /// Syncs while no other thread does, unless one of them failed.
    fn alone(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_well().map_err(io::Error::other)?;
        sync().inspect_err(|error| drop(self.fail(error)))
    }

    /// Removes the files that are kept to be written again.
    pub(super) fn release_spares(&self) -> io::Result<()> {
        self.segment_pool.clear()
    }

    /// Ends the last file where its frames end: after an orderly end there is nothing else in it.
    pub(super) fn close(&self) -> Result<(), StorageError> {
        self.is_well()?;
        self.segment_pool.clear().map_err(|error| self.fail(&error))?;
        let Some((log, file)) = self.writer().last.take() else { return Ok(()) };
        self.alone(|| log.close(&file)).map_err(|error| self.fail(&error))
    }

    /// How far the log is on the medium; `None` when it holds nothing.
    pub(super) fn durable(&self) -> Option<Durable> {
        let writer = self.writer();
        let (log, _) = writer.last.as_ref()?;
        let (head, at) = (log.head, log.synced());
        (at > HEAD_BYTES).then_some(Durable { first: head.first, salt: head.salt, at })
    }

    /// Bytes of all files.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        let logs: u64 = self.all().map(|log| log.length()).sum();
        logs + self.segment_pool.bytes()
    }

    fn all(&self) -> impl Iterator<Item = Arc<LogFile>> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.values().cloned().collect::<Vec<_>>().into_iter()
    }

    /// The file that holds `key`, or would.
    fn at(&self, key: u64) -> Option<Arc<LogFile>> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.range(..=key).next_back().map(|(_, log)| Arc::clone(log))
    }

    /// The file after the one that begins at `first`.
    fn after(&self, first: Bound<u64>) -> Option<Arc<LogFile>> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.range((first, Bound::Unbounded)).next().map(|(_, log)| Arc::clone(log))
    }

    /// Does `work` with an open file; `None` when it was trimmed meanwhile.
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
            // Before it is read: a file that has a successor has its last record. After the last
            // one there is nothing that was there when the reading began.
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

    /// The first key of the files that are left when those go that hold nothing but records before
    /// `before`; `None` when there is no such file. Nothing more is appended to one that may go.
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
    /// the log begins there: the removal itself may be lost, or be done in part.
    pub(super) fn remove_before(&self, first: u64) -> Result<(), StorageError> {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let kept = files.split_off(&first);
        let gone = std::mem::replace(&mut *files, kept);
        drop(files);
        let path = |first| self.folder.join(name(first));
        let mut unread = Vec::new();
        for (first, log) in gone {
            // Whoever reads it goes on to its end.
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

/// Whether a file has no name any more. Nothing else is asked of it: Linux 6.13 and later note a
/// time of its own for the first write after somebody asked for a file's times (multigrain
/// timestamps), and the next sync would have to write that too, in another place.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_removed(file: &File) -> io::Result<bool> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    Ok(statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::NLINK)?.stx_nlink == 0)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn is_removed(file: &File) -> io::Result<bool> {
    Ok(std::os::unix::fs::MetadataExt::nlink(&file.metadata()?) == 0)
}

/// Makes a file in `folder` that `fill` fills, and gives it its name when it is on the medium.
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
