//! A pool of empty log files to be reused.
//!
//! Overwriting allocated blocks makes a sync about twice as fast, because the sync need not record
//! new blocks. So a trimmed file is renamed instead of removed, and becomes the next new file.
//! Where there is none and writers wait for syncs, a file is filled with zeros ahead of time. The
//! old content proves nothing: every log file has its own salt. PostgreSQL recycles its log
//! segments in the same way.
//!
//! A file is filled in pieces as the log grows: a sync also writes all other pending data, so
//! filling it at once would delay every waiting writer by all the zeros.

use super::walk::entries;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The suffix of such a file's name; no log file has it.
const ENDING: &str = "spare";
/// The most files in the pool.
const SPARES_MAX: usize = 16;
/// After this many waits for a sync of one log file, the next file is preallocated: its zeros are
/// additional writes, which pay off only where writers wait for syncs.
const WAITS_MIN: usize = 64;
/// After this many calls without a new log file, each further call removes one spare: about ten
/// seconds. The last spare stays longer: with slow writes it saves a new file.
const QUIET_LOOKS: usize = 100;
const QUIET_LOOKS_LAST: usize = 600;
/// The length of a piece of zeros.
const ZEROS_BYTES: usize = 1 << 20;
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

/// The files, and how many are worth keeping. No system call is made under the lock: an appender
/// would wait for it.
#[derive(Debug, Default)]
pub(super) struct SegmentPool {
    stock: Mutex<Stock>,
    /// The file that is being filled.
    unfinished: Mutex<Option<Unfinished>>,
    /// Its length so far; kept apart from the file, so that a query does not wait for a piece.
    unfinished_bytes: AtomicU64,
    /// How many waits for a sync there were since the last log file began.
    waits: AtomicUsize,
    /// How many calls of `release_unused` there were since then.
    looks: AtomicUsize,
}

#[derive(Debug, Default)]
struct Stock {
    kept: Vec<Spare>,
    /// How many log files began since the last trim: about as many will begin before the next.
    begun: usize,
    /// The most files to keep.
    wanted: usize,
}

/// A file that is being filled with zeros.
#[derive(Debug)]
struct Unfinished {
    file: File,
    path: PathBuf,
}

/// A file that can be reused.
#[derive(Debug)]
pub(super) struct Spare {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl SegmentPool {
    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unfinished(&self) -> MutexGuard<'_, Option<Unfinished>> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a file for a new log file, if there is one.
    pub(super) fn take(&self) -> Option<Spare> {
        self.waits.store(0, Ordering::Relaxed);
        self.looks.store(0, Ordering::Relaxed);
        let mut stock = self.stock();
        stock.begun += 1;
        stock.kept.pop()
    }

    /// Adds the trimmed log files at `paths`, which no thread reads, to the pool in `folder`. The
    /// pool keeps as many as began since the last trim, or half as many as it kept before; the
    /// others are removed.
    pub(super) fn put(&self, folder: &Path, paths: Vec<PathBuf>) -> io::Result<()> {
        let mut stock = self.stock();
        let begun = std::mem::take(&mut stock.begun);
        stock.wanted = begun.max(stock.wanted / 2).clamp(1, SPARES_MAX);
        let surplus = stock.kept.len().saturating_sub(stock.wanted);
        let surplus: Vec<Spare> = stock.kept.drain(..surplus).collect();
        let room = stock.wanted - stock.kept.len();
        drop(stock);
        surplus.iter().try_for_each(|spare| remove(&spare.path))?;
        let mut kept = Vec::new();
        for (index, path) in paths.into_iter().enumerate() {
            if index >= room {
                remove(&path)?;
                continue;
            }
            let spare = path.with_extension(ENDING);
            std::fs::rename(path, &spare)?;
            kept.push(spare);
        }
        if !kept.is_empty() {
            // Otherwise a power failure might leave another file's records under the old name.
            File::open(folder)?.sync_all()?;
        }
        kept.into_iter().try_for_each(|path| self.add(path))
    }

    fn add(&self, path: PathBuf) -> io::Result<()> {
        let file = File::options().write(true).open(&path)?;
        let bytes = file.metadata()?.len();
        self.stock().kept.push(Spare { file, path, bytes });
        Ok(())
    }

    /// Counts a wait for a sync.
    pub(super) fn waited(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }

    /// Where a preallocated file is wanted: fills one in `folder` by one more piece, if it has less
    /// than `goal` bytes; it is complete at `bytes`. Returns whether it did.
    pub(super) fn preallocate(&self, folder: &Path, goal: u64, bytes: u64) -> io::Result<bool> {
        let mut unfinished = self.unfinished();
        let filled = self.unfinished_bytes.load(Ordering::Relaxed);
        if filled >= goal.min(bytes) || (unfinished.is_none() && !self.is_wanted()) {
            return Ok(false);
        }
        let begun = unfinished.take().map_or_else(|| Unfinished::begin(folder), Ok);
        let one = begun.and_then(Unfinished::fill_on);
        let filled = if one.is_ok() { filled + ZEROS_BYTES as u64 } else { 0 };
        let is_whole = filled >= bytes;
        self.unfinished_bytes.store(if is_whole { 0 } else { filled }, Ordering::Relaxed);
        match one? {
            one if is_whole => self.add(one.path)?,
            one => *unfinished = Some(one),
        }
        Ok(true)
    }

    /// Removes a spare that no writer has needed for a while. Called at intervals.
    pub(super) fn release_unused(&self) -> io::Result<()> {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        let mut stock = self.stock();
        let quiet = if stock.kept.len() > 1 { QUIET_LOOKS } else { QUIET_LOOKS_LAST };
        let unused = if looks >= quiet { stock.kept.pop() } else { None };
        drop(stock);
        unused.map_or(Ok(()), |spare| remove(&spare.path))
    }

    /// Whether to begin a file: writers wait for syncs, and there is no spare.
    fn is_wanted(&self) -> bool {
        self.waits.load(Ordering::Relaxed) >= WAITS_MIN && self.stock().kept.is_empty()
    }

    /// The bytes of all files.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        let kept: u64 = self.stock().kept.iter().map(|spare| spare.bytes).sum();
        kept + self.unfinished_bytes.load(Ordering::Relaxed)
    }

    /// Removes all files.
    pub(super) fn clear(&self) -> io::Result<()> {
        let kept = std::mem::take(&mut self.stock().kept);
        self.unfinished_bytes.store(0, Ordering::Relaxed);
        let unfinished = self.unfinished().take();
        let paths = kept.iter().map(|spare| &spare.path);
        paths.chain(unfinished.iter().map(|one| &one.path)).try_for_each(|path| remove(path))
    }
}

impl Unfinished {
    fn begin(folder: &Path) -> io::Result<Self> {
        let path = folder.join("ahead").with_extension(ENDING);
        // A file of the previous name may have been taken and not renamed yet: it must not be
        // touched.
        let file = File::options().write(true).create_new(true).open(&path)?;
        Ok(Self { file, path })
    }

    /// Writes one more piece, and syncs it. On failure the file is removed.
    fn fill_on(mut self) -> io::Result<Self> {
        let filled = self.file.write_all(&ZEROS).and_then(|()| self.file.sync_all());
        match filled {
            Ok(()) => Ok(self),
            Err(error) => remove(&self.path).and(Err(error)),
        }
    }
}

impl Spare {
    /// Writes and syncs `head`, and renames the file to `whole`; `None` when the file is gone.
    /// Returns the file, positioned after its head, and its length.
    pub(super) fn begin(mut self, head: &[u8], whole: &Path) -> io::Result<Option<(File, u64)>> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(head)?;
        self.file.sync_data()?;
        match std::fs::rename(&self.path, whole) {
            // Only the pool used it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            renamed => renamed.map(|()| Some((self.file, self.bytes))),
        }
    }
}

/// Removes the spares of a broker that was killed.
pub(super) fn remove_left(folder: &Path) -> io::Result<()> {
    let is_spare = |path: &PathBuf| path.extension().is_some_and(|ending| ending == ENDING);
    entries(folder)?.into_iter().filter(is_spare).try_for_each(|path| remove(&path))
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_file_is_not_touched_before_it_is_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let segment_pool = SegmentPool::default();
        let make = || {
            segment_pool.waits.store(WAITS_MIN, Ordering::Relaxed);
            segment_pool.preallocate(folder.path(), 100, 100)
        };
        make().unwrap();
        let spare = segment_pool.take().unwrap();
        assert_eq!(make().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let whole = folder.path().join("whole");
        let (_, bytes) = spare.begin(b"head", &whole).unwrap().unwrap();
        assert_eq!(bytes, ZEROS_BYTES as u64);
        assert!(std::fs::read(&whole).unwrap().starts_with(b"head\0"));
        make().unwrap();
        assert_eq!(std::fs::metadata(&whole).unwrap().len(), bytes);
    }

    #[test]
    fn unused_files_are_removed_one_by_one_and_the_last_one_later() {
        let folder = tempfile::tempdir().unwrap();
        let segment_pool = SegmentPool::default();
        segment_pool.stock().begun = 3;
        let path = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, [0; 9]).unwrap();
            path
        };
        segment_pool.put(folder.path(), ["1", "2", "3"].map(path).into()).unwrap();
        let kept = |looks: usize| {
            (0..looks).for_each(|_| segment_pool.release_unused().unwrap());
            entries(folder.path()).unwrap().len()
        };
        assert_eq!((kept(QUIET_LOOKS), kept(1), kept(1)), (3, 2, 1));
        assert_eq!(kept(QUIET_LOOKS), 1);
        assert_eq!(kept(QUIET_LOOKS_LAST), 0);
        segment_pool.put(folder.path(), vec![path("4")]).unwrap();
        assert!(segment_pool.take().is_some());
        assert_eq!(kept(QUIET_LOOKS), 1, "a log file takes them");
    }

    #[test]
    fn a_file_is_filled_in_pieces_as_the_log_grows() {
        let folder = tempfile::tempdir().unwrap();
        let segment_pool = SegmentPool::default();
        const PIECE: u64 = ZEROS_BYTES as u64;
        let make = |goal| segment_pool.preallocate(folder.path(), goal, 3 * PIECE).unwrap();
        assert!(!make(PIECE), "no writer waits for a sync");
        segment_pool.waits.store(WAITS_MIN, Ordering::Relaxed);
        assert!(make(PIECE) && !make(PIECE));
        assert_eq!(segment_pool.bytes(), PIECE);
        assert!(segment_pool.take().is_none(), "it is not whole");
        assert!(make(PIECE + 1) && !make(PIECE + 1), "one that was begun is wanted");
        assert!(make(u64::MAX) && !make(u64::MAX));
        assert_eq!(segment_pool.take().unwrap().bytes, 3 * PIECE);
        segment_pool.waits.store(WAITS_MIN, Ordering::Relaxed);
        std::fs::remove_file(folder.path().join("ahead").with_extension(ENDING)).unwrap();
        assert!(make(1));
        segment_pool.clear().unwrap();
        assert_eq!((segment_pool.bytes(), entries(folder.path()).unwrap().len()), (0, 0));
    }
}
