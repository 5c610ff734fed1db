//! Rebuilds a damaged store: copies everything readable into a new store, and reports each loss.
//!
//! Every row and every change has its seq, and the greater seq holds. So an unreadable row is
//! rebuilt from the log as far as the log reaches, and writes that the log lost are in the tables
//! if they got there. A write found in neither is lost: the state after a repair is everything that
//! was found, and no longer a prefix of the writes. Holes in the history are noted, and shown to
//! readers of the history.

use super::check::{Checked, check};
use super::damaged_log::DamagedLog;
pub use super::damaged_log::Repaired;
use super::salvage::OldTables;
use crate::storage::files;
use crate::storage::{FjallStorage, Storage, StorageError, StoreView};
use std::path::{Path, PathBuf};

/// A completed repair.
#[derive(Debug)]
pub struct Ended {
    /// What the repair did.
    pub done: Repaired,
    /// The contents of the new store.
    pub checked: Checked,
    /// The path of the damaged store now.
    pub kept: PathBuf,
}

/// Rebuilds the store at `path` from what can be read through `old`, in which a check found
/// `checked`. The new store is checked before it replaces the old one, and the old one is kept. The
/// caller holds `old`, and so its lock, until this returns.
pub fn repair(
    path: &Path,
    old: &StoreView,
    checked: &Checked,
    report: &mut dyn FnMut(u64),
) -> Result<Ended, StorageError> {
    let failed = |error: std::io::Error| {
        StorageError::new(&format!("the database {} cannot be repaired", path.display()), error)
    };
    let folder = files::begin_repair(path).map_err(failed)?;
    let made = make(&folder, old, checked, report);
    let (done, checked) = made.inspect_err(|_| drop(files::undo_repair(path)))?;
    let kept = files::end_repair(path).map_err(failed)?;
    Ok(Ended { done, checked, kept })
}

fn make(
    folder: &Path,
    old: &StoreView,
    checked: &Checked,
    report: &mut dyn FnMut(u64),
) -> Result<(Repaired, Checked), StorageError> {
    let disk = FjallStorage::open(folder)?;
    let done = rebuild(old, checked, &disk, report)?;
    disk.settle()?;
    drop(disk);
    let (made, faults) = StoreView::open(folder, &mut |_| {})?;
    let checked = check(&made, report)?;
    let rows = checked.faults.iter().map(|fault| format!("{}: {}", fault.place, fault.what));
    match faults.iter().map(ToString::to_string).chain(rows).next() {
        Some(fault) => Err(StorageError::new("the repaired store is not whole either", fault)),
        None => Ok((done, checked)),
    }
}

/// Fills `new`, an empty disk, from what can be read of `old`, in which a check found `checked`.
/// `report` receives the number of rows and records read so far.
fn rebuild(
    old: &StoreView,
    checked: &Checked,
    new: &dyn Storage,
    report: &mut dyn FnMut(u64),
) -> Result<Repaired, StorageError> {
    let mut log = DamagedLog::new(old, checked)?;
    log.copy(old, new, report)?;
    // They show when everything has been read.
    let gaps = old.rows(&mut |_| true)?;
    log.is_table_whole = gaps.is_empty() && !old.lacks_facts();
    let mut tables = OldTables::new(&log, &gaps);
    tables.copy(old, new, report)?;
    let (mut done, items, last_seq) = tables.finish();
    log.touches.apply(new)?;
    log.say_holes(&mut done);
    log.write_facts(old, checked, new, (items, last_seq), &mut done)?;
    Ok(done)
}
