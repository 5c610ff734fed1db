//! Replaces a damaged store by the repaired one, completely or not at all.
//!
//! The new store is made in `repairing`. When it is on the disk, the directory is renamed to
//! `repaired-N`. From then on every start, and every repair, continues these steps: the files of
//! the old store move to `damaged-N`, the directory is renamed to `moving-N`, and its files move to
//! the place of the old ones. So a crash at any step leaves one store, the old or the new.

use super::CLOSED;
use crate::storage::file_fault::names;
use crate::storage::fjall_format::{LOCK, MARKER, TREES};
use crate::storage::log::FOLDER;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const MAKING: &str = "repairing";
const READY: &str = "repaired-";
const MOVING: &str = "moving-";
const OLD: &str = "damaged-";

/// Makes the empty directory for the new store.
pub fn begin_repair(path: &Path) -> io::Result<PathBuf> {
    let making = path.join(MAKING);
    if making.exists() {
        std::fs::remove_dir_all(&making)?;
    }
    DirBuilder::new().mode(0o700).create(&making)?;
    sync(path)?;
    Ok(making)
}

/// Replaces the old store by the new one; returns the path of the old one. The caller holds the
/// lock of the store at `path`.
pub fn end_repair(path: &Path) -> io::Result<PathBuf> {
    let making = path.join(MAKING);
    remove(&making.join(LOCK))?;
    sync(&making.join(TREES))?;
    sync(&making)?;
    let existing = names(path)?;
    let is_free = |number: &u64| !existing.contains(&format!("{OLD}{number}"));
    let number = (1..u64::MAX).find(is_free).unwrap_or(0);
    std::fs::rename(making, path.join(format!("{READY}{number}")))?;
    sync(path)?;
    finish_repair(path)?;
    Ok(path.join(format!("{OLD}{number}")))
}

/// Abandons a repair and removes all its files.
pub fn undo_repair(path: &Path) -> io::Result<()> {
    std::fs::remove_dir_all(path.join(MAKING))?;
    sync(path)
}

/// The remains of a repair that was interrupted after its store was complete.
pub fn unfinished_repair(path: &Path) -> io::Result<Option<String>> {
    let is_left = |name: &String| numbered(name, READY).or(numbered(name, MOVING)).is_some();
    Ok(names(path)?.into_iter().find(is_left))
}

/// Completes such a repair. The caller holds the lock.
pub fn finish_repair(path: &Path) -> io::Result<()> {
    let find = |start: &str| -> io::Result<Option<u64>> {
        Ok(names(path)?.iter().find_map(|name| numbered(name, start)))
    };
    if let Some(number) = find(READY)? {
        let old = path.join(format!("{OLD}{number}"));
        std::fs::create_dir_all(&old)?;
        sync(path)?;
        move_files(path, &old)?;
        std::fs::rename(
            path.join(format!("{READY}{number}")),
            path.join(format!("{MOVING}{number}")),
        )?;
        sync(path)?;
    }
    if let Some(number) = find(MOVING)? {
        let moving = path.join(format!("{MOVING}{number}"));
        move_files(&moving, path)?;
        std::fs::remove_dir(&moving)?;
        sync(path)?;
    }
    Ok(())
}

/// Whether a repair made the entry with this name.
pub(super) fn is_of_repair(name: &str) -> bool {
    name == MAKING || [READY, MOVING, OLD].iter().any(|start| numbered(name, start).is_some())
}

fn numbered(name: &str, start: &str) -> Option<u64> {
    name.strip_prefix(start)?.parse().ok()
}

/// Moves the files of a store, except its lock.
fn move_files(from: &Path, to: &Path) -> io::Result<()> {
    for name in names(from)? {
        let is_journal =
            name.strip_suffix(".jnl").is_some_and(|number| number.parse::<u64>().is_ok());
        if is_journal || [MARKER, TREES, CLOSED, FOLDER].contains(&name.as_str()) {
            std::fs::rename(from.join(&name), to.join(&name))?;
        }
    }
    sync(to)?;
    sync(from)
}

fn remove(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(folder: &Path, word: &str) {
        std::fs::create_dir_all(folder.join(TREES).join("0")).unwrap();
        std::fs::create_dir_all(folder.join(FOLDER)).unwrap();
        for name in [MARKER, "0.jnl", LOCK] {
            std::fs::write(folder.join(name), word).unwrap();
        }
    }

    fn word(folder: &Path) -> Vec<String> {
        let words = [MARKER, "0.jnl"].map(|name| std::fs::read_to_string(folder.join(name)));
        words.into_iter().flatten().collect()
    }

    /// Every state that a crash between two steps can leave ends with the new store in its place.
    #[test]
    fn a_crash_at_any_step_leaves_one_store() {
        for moved_out in 0..4 {
            for moved_in in 0..4 {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path();
                store(path, "old");
                let making = begin_repair(path).unwrap();
                store(&making, "new");
                remove(&making.join(LOCK)).unwrap();
                let (ready, old) = (path.join("repaired-1"), path.join("damaged-1"));
                std::fs::rename(making, &ready).unwrap();
                assert!(unfinished_repair(path).unwrap().is_some());
                let all = ["0.jnl", TREES, FOLDER, MARKER];
                std::fs::create_dir(&old).unwrap();
                for name in all.iter().take(moved_out) {
                    std::fs::rename(path.join(name), old.join(name)).unwrap();
                }
                if moved_out == 3 {
                    std::fs::rename(path.join(MARKER), old.join(MARKER)).unwrap();
                    let moving = path.join("moving-1");
                    std::fs::rename(&ready, &moving).unwrap();
                    for name in all.iter().take(moved_in) {
                        std::fs::rename(moving.join(name), path.join(name)).unwrap();
                    }
                }
                finish_repair(path).unwrap();
                assert_eq!(
                    (word(path), word(&old)),
                    (vec!["new".into(); 2], vec!["old".into(); 2])
                );
                let mut left = names(path).unwrap();
                left.retain(|name| name != "damaged-1");
                assert_eq!(left, ["0.jnl", TREES, LOCK, FOLDER, MARKER]);
                assert_eq!(std::fs::read_to_string(path.join(LOCK)).unwrap(), "old");
            }
        }
    }
}
