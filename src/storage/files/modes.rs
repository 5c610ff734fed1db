//! The permissions of a store: its owner alone may read it.
//!
//! Files made by this program are private from the beginning. A store with wider permissions, from
//! an older version or from copied files, is made private when a broker opens it.

use super::is_store;
use super::replace::is_of_repair;
use crate::storage::fjall_format::{LOCK, MARKER, TREES};
use crate::storage::log::FOLDER as LOG;
use crate::storage::reserve::RESERVE;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The permission bits of other users.
const OTHERS: u32 = 0o077;
/// The bit of directories that several users share.
const SHARED: u32 = 0o3000;

/// The permissions found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privacy {
    /// No other user could read the store.
    Kept,
    /// Other users could read this many files and directories, and no longer can.
    Made(usize),
    /// Other users may list the directory: it contains more than the store.
    Shared,
}

/// Removes the permissions of other users from the store in `path`, or from an empty directory that
/// is to become one. Other contents of the directory keep theirs, and then so does the directory.
pub fn make_private(path: &Path) -> io::Result<Privacy> {
    if !path.is_dir() {
        return Ok(Privacy::Kept);
    }
    let (mut changed, mut is_alone) = (0, true);
    for inside in std::fs::read_dir(path)? {
        let inside = inside?;
        match inside.file_name().to_str() {
            Some(name) if is_ours(name) && is_store(path) => {
                changed += make_private_below(&inside.path())?;
            }
            _ => is_alone = false,
        }
    }
    let mode = std::fs::metadata(path)?.permissions().mode();
    if !is_alone || mode & SHARED != 0 {
        return Ok(if mode & OTHERS == 0 { Privacy::Kept } else { Privacy::Shared });
    }
    changed += narrow(path, mode)?;
    Ok(if changed == 0 { Privacy::Kept } else { Privacy::Made(changed) })
}

fn is_ours(name: &str) -> bool {
    let known = [LOCK, MARKER, TREES, LOG, super::CLOSED, RESERVE, "probe"].contains(&name);
    known
        || is_of_repair(name)
        || [".jnl", ".damaged", ".partial"].iter().any(|end| name.contains(end))
}

/// A link is left as it is: its target is not part of the store.
fn make_private_below(path: &Path) -> io::Result<usize> {
    let metadata = std::fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok(0);
    }
    let mut changed = narrow(path, metadata.permissions().mode())?;
    if metadata.is_dir() {
        for inside in std::fs::read_dir(path)? {
            changed += make_private_below(&inside?.path())?;
        }
    }
    Ok(changed)
}

fn narrow(path: &Path, mode: u32) -> io::Result<usize> {
    if mode & OTHERS == 0 {
        return Ok(0);
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS))?;
    Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn set(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// A directory with the files of a store, readable by everybody.
    fn open_store() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for inside in [TREES, LOG] {
            std::fs::create_dir(folder.path().join(inside)).unwrap();
            std::fs::write(folder.path().join(inside).join("file"), "").unwrap();
            set(&folder.path().join(inside).join("file"), 0o666);
            set(&folder.path().join(inside), 0o777);
        }
        set(folder.path(), 0o755);
        folder
    }

    #[test]
    fn a_store_is_closed_to_others() {
        let folder = open_store();
        let path = folder.path();
        assert_eq!(make_private(path).unwrap(), Privacy::Made(5));
        assert_eq!((mode(path), mode(&path.join(LOG))), (0o700, 0o700));
        assert_eq!(mode(&path.join(TREES).join("file")), 0o600);
        assert_eq!(make_private(path).unwrap(), Privacy::Kept);
    }

    #[test]
    fn entries_outside_the_store_keep_their_permissions() {
        let folder = open_store();
        let path = folder.path();
        std::fs::write(path.join("letter"), "").unwrap();
        set(&path.join("letter"), 0o644);
        assert_eq!(make_private(path).unwrap(), Privacy::Shared);
        assert_eq!((mode(path), mode(&path.join("letter"))), (0o755, 0o644));
        assert_eq!((mode(&path.join(LOG)), mode(&path.join(LOG).join("file"))), (0o700, 0o600));
    }

    #[test]
    fn a_directory_without_a_store_keeps_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let (path, file) = (folder.path(), folder.path().join("a.jnl"));
        set(path, 0o755);
        std::fs::write(&file, "").unwrap();
        set(&file, 0o644);
        assert_eq!(make_private(path).unwrap(), Privacy::Shared);
        assert_eq!(mode(&file), 0o644);
        std::fs::remove_file(&file).unwrap();
        set(path, 0o1777);
        assert_eq!(make_private(path).unwrap(), Privacy::Shared);
        set(path, 0o755);
        assert_eq!(make_private(path).unwrap(), Privacy::Made(1));
        assert_eq!(make_private(&path.join("none")).unwrap(), Privacy::Kept);
    }
}
