//! The files below the disk, inspected before fjall opens them.
//!
//! fjall verifies much, and not everything. It truncates a journal at a damaged byte in the middle,
//! and drops every write after it. It uses a list of tables unverified, and deletes the tables that
//! are not in the list. So everything that fjall would use unverified is verified here first, by
//! fjall's own checksums, and a damaged file is named before anything is changed.

mod closed;
mod modes;
mod replace;
mod restoring;

pub use closed::CLOSED;
pub use modes::{Privacy, make_private};
pub use replace::{begin_repair, end_repair, finish_repair, undo_repair, unfinished_repair};
pub use restoring::{IS_RESTORING, begin_restoring, end_restoring, is_restoring, undo_restoring};

use super::StorageError;
use super::file_fault::{Depth, FileFault, MISSING, STRAY, names};
use super::fjall_format::journal::{self, Rest};
use super::fjall_format::{Damage, LIST_OF_TREES, LOCK, MARK, MARKER, TREES, rows, tree};
use super::log::{self, Found};
use super::usage;
use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a lock held by another process is tried, and the pause after each try.
pub(super) const LOCK_TRIES: usize = 3;
pub(super) const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// A journal that takes at most this much of the disk stays as it is.
const JOURNAL_BYTES_KEPT: u64 = 1 << 20;
/// How often a list of tables that is being replaced is read, and the pause after each try.
const LIST_TRIES: usize = 5;
const LIST_PAUSE: Duration = Duration::from_millis(20);

/// Whether there is a store at `path`, including a damaged one or one in the middle of a repair.
pub fn is_store(path: &Path) -> bool {
    let is_there = |name: &str| path.join(name).exists();
    let is_left = |names: Vec<String>| !names.is_empty();
    is_there(MARKER)
        || is_there(TREES)
        || is_there(CLOSED)
        || journal::list(path).is_ok_and(is_left)
        || log::files(path).is_ok_and(|files| !files.is_empty())
        || matches!(unfinished_repair(path), Ok(Some(_)))
}

/// Makes the directory `path` and its missing parents, and syncs their names to the disk: data
/// synced in a directory is lost with the directory's name.
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

/// Removes the remains of a store whose creation was interrupted before anything was written to it:
/// fjall would neither open nor create it.
pub fn clear_unmade(path: &Path) -> std::io::Result<()> {
    if !is_unmade(path)? {
        return Ok(());
    }
    let lock = match lock(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Ok(None) => return Ok(()),
        lock => lock?,
    };
    for name in journal::list(path)?.iter().map(String::as_str).chain([MARKER]) {
        match std::fs::remove_file(path.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let trees = path.join(TREES);
    if trees.exists() {
        std::fs::remove_dir_all(trees)?;
    }
    drop(lock);
    File::open(path)?.sync_all()
}

/// Whether the creation of the store at `path` was interrupted before anything was written to it.
pub fn is_unmade(path: &Path) -> std::io::Result<bool> {
    Ok(is_store(path) && !is_written(path)?)
}

/// Whether anything was written to the store at `path`, or may have been: the first rows come after
/// all files are made.
fn is_written(path: &Path) -> std::io::Result<bool> {
    if path.join(CLOSED).exists() || !log::files(path)?.is_empty() {
        return Ok(true);
    }
    for name in journal::list(path)? {
        let walk = journal::walk(&path.join(&name), None)?;
        if walk.end > 0 || matches!(walk.rest, Rest::Damaged { .. } | Rest::OutOfOrder) {
            return Ok(true);
        }
    }
    // The first tree is fjall's own list of the others.
    let is_others = |name: &String| *name != LIST_OF_TREES;
    for name in names(&path.join(TREES))?.into_iter().filter(is_others) {
        if !names(&path.join(TREES).join(name).join(tree::TABLES))?.is_empty() {
            return Ok(true);
        }
    }
    unfinished_repair(path).map(|left| left.is_some())
}

/// Syncs the directories of a new store to the disk: fjall does not.
pub fn sync_folders(path: &Path) -> std::io::Result<()> {
    File::open(path.join(TREES))?.sync_all()?;
    File::open(path)?.sync_all()
}

/// The files and directories of an open store that are never replaced, relative to the store.
pub fn lasting(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let trees = names(&path.join(TREES))?.into_iter().map(|name| Path::new(TREES).join(name));
    Ok([LOCK, MARKER, TREES].map(PathBuf::from).into_iter().chain(trees).collect())
}

/// The number of the newest journal.
pub fn newest_journal(path: &Path) -> std::io::Result<Option<u64>> {
    let names = journal::list(path)?;
    Ok(names.last().and_then(|name| name.strip_suffix(".jnl")?.parse().ok()))
}

/// A table file of an open store that is listed and missing. A list may be replaced, and its files
/// removed, during the read: then the list is read again.
pub fn missing_table(path: &Path) -> std::io::Result<Option<FileFault>> {
    let mut fault = None;
    for _ in 0..LIST_TRIES {
        fault = listed_and_gone(path)?;
        if fault.is_none() {
            break;
        }
        std::thread::sleep(LIST_PAUSE);
    }
    Ok(fault)
}

fn listed_and_gone(path: &Path) -> std::io::Result<Option<FileFault>> {
    let is_tree = |name: &String| name.parse::<u64>().is_ok();
    for name in names(&path.join(TREES))?.into_iter().filter(is_tree) {
        let name = Path::new(TREES).join(name);
        let current = name.join(tree::CURRENT);
        let listed = match tree::list(path, &name)? {
            Ok(Some(listed)) => listed,
            Ok(None) => return Ok(Some(FileFault::new(current, MISSING))),
            Err(fault) => return Ok(Some(fault)),
        };
        for table in listed {
            let table = name.join(tree::TABLES).join(table.id.to_string());
            if !path.join(&table).exists() {
                return Ok(Some(FileFault::new(table, MISSING)));
            }
        }
    }
    Ok(None)
}

/// Holds the lock of the store at `path` until dropped; `None` when another process has it.
pub fn lock(path: &Path) -> std::io::Result<Option<File>> {
    // A directory without write permission can still be inspected.
    let name = path.join(LOCK);
    let file = match File::options().read(true).write(true).open(&name) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => File::open(&name),
        file => file,
    }?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(None)
}

/// The result of an inspection.
#[derive(Debug, Default)]
pub struct Inspection {
    /// The damaged files.
    pub faults: Vec<FileFault>,
    /// The last journal, and the end of its whole batches, if a crash left something after them.
    torn: Option<(String, u64)>,
    /// The files of the log.
    pub(super) log: Found,
}

impl Inspection {
    /// The inspection of a store whose lock file is missing.
    pub(super) fn without_lock() -> Self {
        Self { faults: vec![no_lock()], ..Self::default() }
    }
}

/// The fault of a store whose lock file is missing.
pub fn no_lock() -> FileFault {
    FileFault::new(LOCK, "it is missing; an empty file of that name will do")
}

/// Inspects the files of the store at `path`. The caller holds the lock. `report` receives how many
/// bytes have been read so far.
pub fn inspect(
    path: &Path,
    depth: Depth,
    report: &mut dyn FnMut(u64),
) -> Result<Inspection, StorageError> {
    let unreadable = |error: std::io::Error| {
        StorageError::new(&format!("the database {} cannot be read", path.display()), error)
    };
    let mut seen = Inspection::default();
    let faults = &mut seen.faults;
    marker(path, faults);
    let closed = match closed::read(path).map_err(unreadable)? {
        Ok(closed) => closed,
        Err(fault) => {
            // No data is lost with the note, so its damage does not prevent a start.
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
    if has_batches || is_written(path).map_err(unreadable)? {
        missing_trees(path, &mut seen.faults).map_err(unreadable)?;
    }
    let mut named = std::collections::BTreeSet::new();
    seen.faults.retain(|fault| named.insert(fault.file.clone()));
    Ok(seen)
}

/// Missing trees that fjall's list names: fjall would treat them as never finished, and skip their
/// rows in the journals.
fn missing_trees(path: &Path, faults: &mut Vec<FileFault>) -> std::io::Result<()> {
    let ids = rows::named_trees(path)?.into_iter();
    for id in ids.map(|id| id.to_string()).chain([LIST_OF_TREES.to_owned()]) {
        let current = Path::new(TREES).join(id).join(tree::CURRENT);
        if !path.join(&current).exists() {
            faults.push(FileFault::new(current, MISSING));
        }
    }
    Ok(())
}

/// The file with fjall's own version.
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
            // A crash truncates the last journal at its end, and no other.
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
            seen.faults.push(FileFault::new(name, what));
        }
    }
    Ok(last_seqno.is_some())
}

/// There is always at least one journal, and they are numbered without a gap.
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
            let name = PathBuf::from(TREES).join(entry.file_name());
            match entry.file_name().to_str().is_some_and(|id| id.parse::<u64>().is_ok()) {
                true => names.push(name),
                false => faults.push(FileFault::new(name, STRAY)),
            }
        }
    }
    names.sort();
    for name in names {
        tree::inspect(path, &name, depth, faults, report)?;
    }
    Ok(())
}

/// Empties the journal of a store that is not open, whose rows are all in sorted files: the
/// journal's content is no longer needed. A small journal is left, since emptying it gains little.
/// Several journals mean that fjall has not removed the old ones yet; they are left as they are.
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

/// Writes the note of the files' lengths after an orderly close. A store that was not left whole
/// gets no note.
pub fn close(path: &Path) -> std::io::Result<()> {
    closed::write(path)
}

/// Prepares an inspected and undamaged store for opening: removes the note, and the incomplete
/// batches that a crash left.
///
/// fjall removes those too, but not always: it refuses a batch that looks whole and has a wrong
/// checksum.
pub fn reopen(path: &Path, inspection: &Inspection) -> std::io::Result<()> {
    if let Some((name, end)) = &inspection.torn {
        let journal = File::options().write(true).open(path.join(name))?;
        tracing::warn!("the last writes were cut short: removed what follows byte {end} of {name}");
        journal.set_len(*end)?;
        journal.sync_all()?;
    }
    closed::remove(path)
}

/// Whether the faulty file holds no data, and can be recreated.
pub fn is_about_no_data(fault: &FileFault) -> bool {
    [CLOSED, LOCK, MARKER].iter().any(|name| fault.file == Path::new(name))
}

/// The damage of fjall's files, from the faults of a store.
pub(super) fn damage(path: &Path, faults: &[FileFault]) -> Damage {
    let is_journal = |fault: &FileFault| fault.file.extension().is_some_and(|e| e == "jnl");
    Damage {
        is_any: !faults.iter().all(is_about_no_data),
        is_in_journals: faults.iter().any(is_journal),
        was_closed: path.join(CLOSED).exists(),
    }
}

/// Recreates such a file; returns a description of the work.
pub fn make_anew(path: &Path, fault: &FileFault) -> std::io::Result<&'static str> {
    let file = path.join(&fault.file);
    let done = match fault.file.to_str() {
        Some(CLOSED) => {
            closed::remove(path)?;
            "removed"
        }
        Some(MARKER) => {
            std::fs::write(&file, MARK)?;
            File::open(&file)?.sync_all()?;
            closed::remove(path)?;
            "written anew"
        }
        _ => {
            File::create(&file)?.sync_all()?;
            "made anew"
        }
    };
    File::open(path)?.sync_all()?;
    Ok(done)
}
