//! The files below the disk, looked at before fjall opens them.
//!
//! fjall verifies much, and not all: a journal with a damaged byte in its middle it cuts off there,
//! with every write after it; a list of tables it believes unread, and deletes the tables that are
//! not in it. So what it would believe is verified here first, by the checksums that it wrote
//! itself, and a file that is damaged is named before anything is changed.

mod closed;
mod journal;
mod modes;
mod restoring;
mod tree;

pub use closed::CLOSED;
pub use modes::{Privacy, make_private};
pub use restoring::{IS_RESTORING, begin_restoring, end_restoring, is_restoring, undo_restoring};

use super::DiskError;
use super::kept::keep_copy;
use super::log::{self, Found};
use super::usage;
use journal::Rest;
use std::fmt;
use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file that every store of fjall's has.
const MARKER: &str = "version";
const MARK: &[u8] = b"FJL\x03";
const LOCK: &str = "lock";
const TREES: &str = "keyspaces";
/// fjall's own list of the trees.
const LIST_OF_TREES: &str = "0";
/// How often a lock is tried that another process holds, and the pause after each time.
const LOCK_TRIES: usize = 3;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// A journal that takes no more on the medium stays as it is.
const JOURNAL_BYTES_KEPT: u64 = 1 << 20;

pub(super) const MISSING: &str = "it is missing";

/// A file that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFault {
    /// Which, seen from the store's directory.
    pub file: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// Where a journal can be cut, so that what is before it can be read.
    pub cut_at: Option<u64>,
}

impl FileFault {
    pub(super) fn new(file: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self { file: file.into(), what: what.into(), cut_at: None }
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

/// How far to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What fjall would believe.
    Start,
    /// Every byte.
    Whole,
}

/// Whether there is a store at `path`.
pub fn is_store(path: &Path) -> bool {
    path.join(MARKER).exists() || path.join(TREES).exists()
}

/// Makes the directory `path`, with those above it that are missing. Their names are on the medium
/// then: what is synced in one would be lost with its name.
pub fn make_folder(path: &Path) -> std::io::Result<()> {
    let missing = path.ancestors().take_while(|folder| !folder.exists());
    let missing: Vec<&Path> = missing.filter(|folder| !folder.as_os_str().is_empty()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    for made in missing {
        let above = made.parent().filter(|above| !above.as_os_str().is_empty());
        File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// Removes what is left of a store whose making was cut short before anything was written to it:
/// fjall would neither open nor make it.
pub fn clear_unmade(path: &Path) -> std::io::Result<()> {
    let marked = std::fs::metadata(path.join(MARKER)).map_or(0, |metadata| metadata.len());
    if marked > 0 || !is_store(path) {
        return Ok(());
    }
    let trees = path.join(TREES);
    if trees.exists() && std::fs::read_dir(&trees)?.next().is_some() {
        return Ok(());
    }
    let journals = journal::list(path)?;
    for name in &journals {
        let walk = journal::walk(&path.join(name), None)?;
        if walk.end > 0 || walk.rest != Rest::Nothing {
            return Ok(());
        }
    }
    let Some(_lock) = lock(path)? else { return Ok(()) };
    for name in journals.iter().map(String::as_str).chain([MARKER]) {
        match std::fs::remove_file(path.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    if trees.exists() { std::fs::remove_dir(trees) } else { Ok(()) }
}

/// Holds the lock of the store at `path` until dropped; `None` when another process has it.
pub fn lock(path: &Path) -> std::io::Result<Option<File>> {
    let file = File::options().read(true).write(true).open(path.join(LOCK))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(None)
}

/// What was seen of the files.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Which are damaged.
    pub faults: Vec<FileFault>,
    /// The last journal, and where its whole batches end, if a crash left something after them.
    torn: Option<(String, u64)>,
    /// The files of the log.
    pub(super) log: Found,
}

impl Inspection {
    /// Of a store whose lock is gone: nothing else can be looked at.
    pub fn without_lock() -> Self {
        let what = "it is missing; an empty file of that name will do";
        Self { faults: vec![FileFault::new(LOCK, what)], ..Self::default() }
    }
}

/// Looks at the files of the store at `path`. The caller holds the lock. `report` hears how many
/// bytes have been read.
pub fn inspect(
    path: &Path,
    depth: Depth,
    report: &mut dyn FnMut(u64),
) -> Result<Inspection, DiskError> {
    let unreadable = |error: std::io::Error| {
        DiskError::new(&format!("the database {} cannot be read", path.display()), error)
    };
    let mut seen = Inspection::default();
    let faults = &mut seen.faults;
    marker(path, faults);
    let closed = match closed::read(path).map_err(unreadable)? {
        Ok(closed) => closed,
        Err(fault) => {
            // Nothing is lost with it. Whoever starts is not to be kept from it.
            if depth == Depth::Whole {
                faults.push(fault);
            }
            None
        }
    };
    if let Some(closed) = &closed {
        closed.compare(path, faults).map_err(unreadable)?;
    }
    let has_batches = journals(path, closed.as_ref(), &mut seen).map_err(unreadable)?;
    trees(path, depth, &mut seen.faults, report).map_err(unreadable)?;
    let is_closed = closed.is_some();
    let log = log::inspect(path, depth, is_closed, &mut seen.faults, report);
    seen.log = log.map_err(unreadable)?;
    let list = Path::new(TREES).join(LIST_OF_TREES).join(tree::CURRENT);
    if has_batches && !path.join(&list).exists() {
        seen.faults.push(FileFault::new(list, MISSING));
    }
    Ok(seen)
}

/// The file that tells fjall its own version.
fn marker(path: &Path, faults: &mut Vec<FileFault>) {
    let fault = match std::fs::read(path.join(MARKER)) {
        Ok(bytes) => match bytes.as_slice() {
            MARK => return,
            [b'F', b'J', b'L', version] => format!("its version is {version}, not 3"),
            _ => "it is not what fjall wrote".to_owned(),
        },
        Err(error) => error.to_string(),
    };
    faults.push(FileFault::new(MARKER, fault));
}

/// The journals, oldest first; returns whether anything was written to them.
fn journals(
    path: &Path,
    closed: Option<&closed::Closed>,
    seen: &mut Inspection,
) -> std::io::Result<bool> {
    let names = journal::list(path)?;
    seen.faults.extend(missing_journals(&names));
    let mut last_seqno = None;
    for (place, name) in names.iter().enumerate() {
        let walk = journal::walk(&path.join(name), last_seqno)?;
        last_seqno = walk.last_seqno.or(last_seqno);
        let is_last = place + 1 == names.len();
        let noted = closed.and_then(|closed| closed.journal(name));
        let what = match walk.rest {
            Rest::Nothing => None,
            // The end of the last journal is where a crash cuts it, and nowhere else is.
            Rest::Torn if is_last && noted.is_none() => {
                seen.torn = Some((name.clone(), walk.end));
                None
            }
            Rest::Torn => Some(format!("damaged at byte {}", walk.end)),
            Rest::Damaged { resumes_at, whole } => Some(format!(
                "damaged at byte {}; {whole} whole batches of writes follow from byte {resumes_at}",
                walk.end
            )),
            Rest::OutOfOrder => Some(format!("the batch at byte {} is out of order", walk.end)),
        };
        let is_another = |noted: &(u64, u32)| *noted != (walk.end, walk.checksum);
        let other = noted.filter(is_another).map(|(end, _)| match end == walk.end {
            true => "its numbers have changed".to_owned(),
            false => format!("it ends at byte {}, and ended at {end}", walk.end),
        });
        if let Some(what) = what.or(other) {
            seen.faults.push(FileFault { file: name.into(), what, cut_at: Some(walk.end) });
        }
    }
    Ok(last_seqno.is_some())
}

/// There is one always, and they are numbered without a gap.
fn missing_journals(names: &[String]) -> Vec<FileFault> {
    let number = |name: &String| name.trim_end_matches(".jnl").parse::<u64>().unwrap_or(0);
    let (Some(first), Some(last)) = (names.first().map(number), names.last().map(number)) else {
        return vec![FileFault::new("0.jnl", "there is no journal")];
    };
    (first..last)
        .map(|number| format!("{number}.jnl"))
        .filter(|name| !names.contains(name))
        .map(|name| FileFault::new(name, MISSING))
        .collect()
}

fn trees(
    path: &Path,
    depth: Depth,
    faults: &mut Vec<FileFault>,
    report: &mut dyn FnMut(u64),
) -> std::io::Result<()> {
    let folder = path.join(TREES);
    if !folder.exists() {
        faults.push(FileFault::new(TREES, "the directory is missing"));
        return Ok(());
    }
    let mut names: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(PathBuf::from(TREES).join(entry.file_name()));
        }
    }
    names.sort();
    for name in names {
        tree::inspect(path, &name, depth, faults, report)?;
    }
    Ok(())
}

/// Empties the journal of a store whose rows are all in sorted files, and which nobody has open: it
/// holds what nobody will read. A small one is not worth it. Where there are several, fjall has
/// not come to removing the others; they stay as they are.
pub(super) fn empty_journal(path: &Path) -> std::io::Result<()> {
    let journals = journal::list(path)?;
    let [journal] = journals.as_slice() else { return Ok(()) };
    let journal = File::options().write(true).open(path.join(journal))?;
    if journal.metadata()?.blocks() * usage::BLOCK_BYTES <= JOURNAL_BYTES_KEPT {
        return Ok(());
    }
    journal.set_len(0)?;
    journal.sync_all()
}

/// Writes down what the files are, now that nobody writes them any more. A store that was not left
/// whole gets no such note.
pub fn close(path: &Path) -> std::io::Result<()> {
    closed::write(path)
}

/// Makes a store ready to be opened that has been inspected and is whole: the note goes, and so
/// does what a crash left of its last batches.
///
/// fjall removes that too, but not always: where it looks whole and its checksum is wrong, it
/// refuses.
pub fn reopen(path: &Path, inspection: &Inspection) -> std::io::Result<()> {
    if let Some((name, end)) = &inspection.torn {
        let journal = File::options().write(true).open(path.join(name))?;
        tracing::warn!("the last writes were cut short: removed what follows byte {end} of {name}");
        journal.set_len(*end)?;
        journal.sync_all()?;
    }
    closed::remove(path)
}

/// What was done about a damaged file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// In words.
    pub what: String,
    /// Whether something is gone.
    pub is_loss: bool,
}

/// Does what can be done about a damaged file: a journal is cut where what can be read of it ends,
/// and a copy of the whole stays beside it. `None` where nothing can be done.
pub fn mend(path: &Path, fault: &FileFault) -> std::io::Result<Option<Mended>> {
    let file = path.join(&fault.file);
    if let Some(what) = log::mend(path, &fault.file)? {
        closed::remove(path)?;
        return Ok(Some(Mended { what, is_loss: true }));
    }
    let mended = |what: &str| Ok(Some(Mended { what: what.to_owned(), is_loss: false }));
    match (fault.cut_at, fault.file.to_str()) {
        (Some(at), _) => {
            let copy = keep_copy(&file)?;
            let cut = File::options().write(true).open(&file)?;
            cut.set_len(at)?;
            cut.sync_all()?;
            closed::remove(path)?;
            let copy = copy.display();
            let what = format!("every write after byte {at}; the whole file is kept as {copy}");
            Ok(Some(Mended { what, is_loss: true }))
        }
        (None, Some(CLOSED)) => {
            closed::remove(path)?;
            mended("removed")
        }
        (None, Some(LOCK)) => {
            File::create(&file)?.sync_all()?;
            mended("made anew")
        }
        (None, Some(MARKER)) if path.join(TREES).exists() => {
            std::fs::write(&file, MARK)?;
            File::open(&file)?.sync_all()?;
            closed::remove(path)?;
            mended("written anew")
        }
        _ => Ok(None),
    }
}
