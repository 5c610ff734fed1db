//! Log files that hold nothing any more, kept to be written again.
//!
//! A sync of bytes whose place on the medium is settled need not note a new place there, and takes
//! about half the time. So a file that is trimmed takes another name instead of going, and is the
//! next new one; where there is none yet and syncs are waited for, one is filled with zeros ahead
//! of time. What it held proves nothing: every log file has a salt of its own. PostgreSQL does the
//! same with the segments of its log.
//!
//! It is filled in pieces, as the log goes on: a sync takes with it whatever else is on its way to
//! the medium, so that all who wait for one would wait for all zeros at once.

use super::walk::entries;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the name of such a file ends with; no log file has it.
const ENDING: &str = "spare";
/// Most files that are kept.
const SPARES_MAX: usize = 16;
/// When somebody has waited so often for a sync of one file, the next one is made ahead of time:
/// its zeros are written besides all else, which pays only where syncs are waited for.
const WAITS_MIN: usize = 64;
/// When no log file was begun for so many looks, a file is removed with each further one: about ten
/// seconds. The last one stays longer: where writes are slow, it spares them a new one.
const QUIET_LOOKS: usize = 100;
const QUIET_LOOKS_LAST: usize = 600;
/// A piece of them.
const ZEROS_BYTES: usize = 1 << 20;
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

/// The files, and how many are worth keeping. No call of the system is made while they are locked:
/// whoever appends would wait for it.
#[derive(Debug, Default)]
pub(super) struct SegmentPool {
    stock: Mutex<Stock>,
    /// The file that is filled at the moment.
    unfinished: Mutex<Option<Unfinished>>,
    /// How far it is; apart from it, so that who asks does not wait for a piece.
    unfinished_bytes: AtomicU64,
    /// How often somebody waited for a sync since the last log file was begun.
    waits: AtomicUsize,
    /// How often somebody looked whether there is something to do since then.
    looks: AtomicUsize,
}

#[derive(Debug, Default)]
struct Stock {
    kept: Vec<Spare>,
    /// How many log files were begun since the last trim: about as many will be before the next.
    begun: usize,
    /// How many are kept at most.
    wanted: usize,
}

/// A file that gets its zeros.
#[derive(Debug)]
struct Unfinished {
    file: File,
    path: PathBuf,
}

/// A file that can be written again.
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

    /// A file for a new log file, if there is one.
    pub(super) fn take(&self) -> Option<Spare> {
        self.waits.store(0, Ordering::Relaxed);
        self.looks.store(0, Ordering::Relaxed);
        let mut stock = self.stock();
        stock.begun += 1;
        stock.kept.pop()
    }

    /// The log in `folder` is trimmed of the files at `paths`, which nobody reads: as many are kept
    /// as were begun since the last time, or half as many as were kept before; the others are
    /// removed.
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
            // Or a loss of power might leave another file's records under the old name.
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

    /// Somebody waits for a sync.
    pub(super) fn waited(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }

    /// Where a file is wanted ahead of time: fills one in `folder` by a piece more, if it has less
    /// than `goal` bytes; it is made when it has `bytes`. Returns whether it did.
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

    /// Removes a file that is kept for a writer who does not come. Call it now and then.
    pub(super) fn release_unused(&self) -> io::Result<()> {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        let mut stock = self.stock();
        let quiet = if stock.kept.len() > 1 { QUIET_LOOKS } else { QUIET_LOOKS_LAST };
        let unused = if looks >= quiet { stock.kept.pop() } else { None };
        drop(stock);
        unused.map_or(Ok(()), |spare| remove(&spare.path))
    }

    /// Whether one is to be begun: syncs are waited for, and there is none.
    fn is_wanted(&self) -> bool {
        self.waits.load(Ordering::Relaxed) >= WAITS_MIN && self.stock().kept.is_empty()
    }

    /// Bytes of all.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        let kept: u64 = self.stock().kept.iter().map(|spare| spare.bytes).sum();
        kept + self.unfinished_bytes.load(Ordering::Relaxed)
    }

    /// Removes all.
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
        // The one before it may have been taken, and have no other name yet: it is not to be
        // touched.
        let file = File::options().write(true).create_new(true).open(&path)?;
        Ok(Self { file, path })
    }

    /// Adds a piece, and has it on the medium. When that fails, the file is removed.
    fn fill_on(mut self) -> io::Result<Self> {
        let filled = self.file.write_all(&ZEROS).and_then(|()| self.file.sync_all());
        match filled {
            Ok(()) => Ok(self),
            Err(error) => remove(&self.path).and(Err(error)),
        }
    }
}

impl Spare {
    /// Makes it begin with `head`, on the medium too, and `whole` its name; `None` when it is gone.
    /// Returns the file, to be written on behind its head, and how long it is.
    pub(super) fn begin(mut self, head: &[u8], whole: &Path) -> io::Result<Option<(File, u64)>> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(head)?;
        self.file.sync_data()?;
        match std::fs::rename(&self.path, whole) {
            // It was of no use to anybody but us.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            renamed => renamed.map(|()| Some((self.file, self.bytes))),
        }
    }
}

/// Removes what a broker left that ended without a word.
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
    fn a_file_that_is_taken_and_has_no_other_name_yet_is_not_touched() {
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
    fn files_that_nobody_takes_go_one_by_one_and_the_last_one_last() {
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
        assert_eq!(kept(QUIET_LOOKS), 1, "somebody takes them");
    }

    #[test]
    fn a_file_is_filled_piece_by_piece_as_far_as_the_log_is() {
        let folder = tempfile::tempdir().unwrap();
        let segment_pool = SegmentPool::default();
        const PIECE: u64 = ZEROS_BYTES as u64;
        let make = |goal| segment_pool.preallocate(folder.path(), goal, 3 * PIECE).unwrap();
        assert!(!make(PIECE), "nobody waits for a sync");
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
