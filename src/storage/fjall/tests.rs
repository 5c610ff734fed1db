//! The disk on real files: committed data is there after reopening, and becomes durable in order.

use super::super::log;
use super::*;

fn row<'a>(space: Space, key: &[u8], value: Option<&'a [u8]>) -> Row<'a> {
    Row { space, key: key.to_vec(), value: value.map(Into::into) }
}

#[test]
fn committed_rows_are_read_back_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FjallStorage::open(folder.path()).unwrap();
    let key = 7_u64.to_be_bytes();
    let rows = vec![row(Space::Table, b"k", Some(b"v")), row(Space::Log, &key, Some(b"w"))];
    disk.commit(rows, Durability::Fsynced).unwrap();
    let second = FjallStorage::open(folder.path()).unwrap_err();
    assert!(second.to_string().contains("is in use"), "{second}");
    drop(disk);
    let disk = FjallStorage::open(folder.path()).unwrap();
    assert_eq!(disk.get(Space::Table, b"k").unwrap(), Some(b"v".to_vec()));
    let later = 8_u64.to_be_bytes();
    assert_eq!(disk.floor(Space::Log, &later).unwrap(), Some((key.to_vec(), b"w".to_vec())));
}

fn record(key: u64) -> Row<'static> {
    let value = Some(vec![key as u8; 9].into());
    Row { space: Space::Log, key: key.to_be_bytes().to_vec(), value }
}

fn ends(disk: &FjallStorage) -> Option<Durable> {
    disk.spaces().unwrap().known_of_log().unwrap().ends
}

#[test]
fn a_row_of_the_tables_is_never_durable_before_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FjallStorage::open(folder.path()).unwrap();
    disk.commit(vec![record(1)], Durability::Buffered).unwrap();
    disk.commit(vec![row(Space::Meta, b"k", Some(b"v"))], Durability::Buffered).unwrap();
    assert_eq!((disk.log.durable(), ends(&disk)), (None, None));
    disk.commit(vec![row(Space::Table, b"k", Some(b"v"))], Durability::Buffered).unwrap();
    let first = disk.log.durable().expect("the log is on the disk");
    assert_eq!(ends(&disk), Some(first), "and the tables know it");
    disk.commit(vec![record(2)], Durability::Buffered).unwrap();
    disk.commit(vec![row(Space::Table, b"k", None)], Durability::Buffered).unwrap();
    assert!(ends(&disk).unwrap().at > first.at);
}

#[test]
fn a_sync_covers_only_the_log_when_nothing_else_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FjallStorage::open(folder.path()).unwrap();
    let has_unsynced = || disk.has_unsynced.load(Ordering::Acquire);
    assert!(has_unsynced(), "a killed process may have left something");
    disk.sync().unwrap();
    disk.commit(vec![record(1)], Durability::Fsynced).unwrap();
    let first = disk.log.durable();
    assert!(first.is_some() && !has_unsynced());
    disk.commit(vec![record(2)], Durability::Buffered).unwrap();
    assert!(disk.log.durable() == first && !has_unsynced());
    disk.sync().unwrap();
    assert!(disk.log.durable() != first);
    disk.commit(vec![row(Space::Meta, b"k", Some(b"v"))], Durability::Buffered).unwrap();
    assert!(has_unsynced());
    disk.sync().unwrap();
    assert!(!has_unsynced());
}

#[test]
fn the_beginning_of_the_log_is_noted_before_files_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FjallStorage::open(folder.path()).unwrap();
    disk.commit(vec![record(1), record(2)], Durability::Fsynced).unwrap();
    let begins = |disk: &FjallStorage| disk.spaces().unwrap().known_of_log().unwrap().begins;
    disk.trim_log(2).unwrap();
    let two = 2_u64.to_be_bytes();
    assert_eq!((begins(&disk), disk.get(Space::Log, &two).unwrap().is_some()), (0, true));
    disk.trim_log(9).unwrap();
    assert_eq!((begins(&disk), disk.get(Space::Log, &two).unwrap()), (3, None));
    assert!(log::files(folder.path()).unwrap().is_empty());
    disk.commit(vec![record(9)], Durability::Fsynced).unwrap();
    drop(disk);
    let disk = FjallStorage::open(folder.path()).unwrap();
    let nine = 9_u64.to_be_bytes();
    assert_eq!(disk.floor(Space::Log, &nine).unwrap().unwrap().0, nine);
}

#[test]
fn a_database_whose_creation_was_interrupted_is_created_again() {
    // In the order in which fjall creates them.
    let steps = ["lock", "keyspaces", "0.jnl", "version"];
    for done in 1..=steps.len() {
        let folder = tempfile::tempdir().unwrap();
        for step in &steps[..done] {
            match *step {
                "keyspaces" => std::fs::create_dir(folder.path().join(step)).unwrap(),
                "0.jnl" => std::fs::write(folder.path().join(step), [0; 1 << 20]).unwrap(),
                _ => std::fs::write(folder.path().join(step), []).unwrap(),
            }
        }
        let disk = FjallStorage::open(folder.path()).unwrap();
        disk.commit(vec![row(Space::Table, b"k", Some(b"v"))], Durability::Fsynced).unwrap();
        drop(disk);
        let disk = FjallStorage::open(folder.path()).unwrap();
        assert_eq!(disk.get(Space::Table, b"k").unwrap(), Some(b"v".to_vec()), "{done}");
    }
}

#[test]
fn a_record_is_with_the_system_before_the_medium_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FjallStorage::open(folder.path()).unwrap();
    for (key, sync, told) in [(1, Durability::Buffered, 0), (2, Durability::Fsynced, 1)] {
        let mut times = 0;
        let mut written = || {
            times += 1;
            assert_eq!(disk.log.durable(), None, "the sync is still to come");
            assert!(disk.get(Space::Log, &[0, 0, 0, 0, 0, 0, 0, 2]).unwrap().is_some());
        };
        disk.commit_in_steps(vec![record(key)], sync, &mut written).unwrap();
        assert_eq!(times, told);
    }
    assert!(disk.log.durable().is_some());
}
