//! Stores of every format since the first release, and a backup, which later versions must read.
//!
//! `cargo test --test store_files fixtures -- --ignored` makes the store of the newest format
//! again. A released format keeps its fixture, and a new format gets another one beside it.

use crate::support::offline::{NOW, State, copy, run, serve, state, state_on};
use std::path::{Path, PathBuf};
use std::process::Command;
use vatn::protocol::{Change, Level, Op};
use vatn::storage::{Durability, FjallStorage, MemoryStorage, Row, Space, Storage};
use vatn::wal::archive_reader::ArchiveReader;
use vatn::wal::restore::restore;
use vatn::wal::tables;

/// A hundred years.
const LONG_MS: u64 = 3_155_760_000_000;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Key, value, seq, level, and whether it expires.
type Expected = (&'static [u8], Vec<u8>, u64, Level, bool);

/// The value of each key as MessagePack, with its seq and level; and whether it expires.
fn expected() -> Vec<Expected> {
    vec![
        (b"", b"\xa5empty".to_vec(), 1, Level::Synced, false),
        (b"batch/a", b"\x01".to_vec(), 3, Level::Stored, false),
        (b"batch/b", b"\x92\x01\xc0".to_vec(), 3, Level::Stored, false),
        (b"counter", b"\xcd\x01\x2c".to_vec(), 5, Level::Synced, false),
        (b"mortal", b"\xc3".to_vec(), 6, Level::Queued, true),
        (b"r\xc3\xb8d", b"\xa4bl\xc3\xa5".to_vec(), 10, Level::Synced, false),
        (b"\xfe", b"\xc4\x02\x00\xff".to_vec(), 2, Level::Synced, false),
    ]
}

fn assert_expected(found: &State, expires_at: std::ops::RangeInclusive<u64>) {
    let found: Vec<_> = found
        .iter()
        .map(|(key, (value, seq, level, expires))| {
            assert!(*expires == 0 || expires_at.contains(expires), "{expires}");
            (key.as_slice(), value.clone(), *seq, *level, *expires != 0)
        })
        .collect();
    assert_eq!(found, expected());
}

fn check(folder: &Path) {
    let checked = Command::new(env!("CARGO_BIN_EXE_vatn")).arg("check").arg(folder).output();
    let checked = checked.unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

/// The seqs of the changes in the log.
fn history(disk: &dyn Storage) -> Vec<u64> {
    let mut seqs = Vec::new();
    let mut each = |record: vatn::wal::Record, _| {
        seqs.extend(record.changes().map(|change| change.seq));
        true
    };
    vatn::wal::history::read(disk, 0, &mut each).unwrap();
    seqs
}

fn assert_opens(name: &str) {
    for is_checked_first in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        copy(&fixture(name), folder.path());
        if is_checked_first {
            check(folder.path());
        }
        let expires_at = NOW + LONG_MS..=NOW + LONG_MS;
        assert_expected(&state(folder.path()).unwrap(), expires_at);
        check(folder.path());
        let disk = FjallStorage::open(folder.path()).unwrap();
        assert_eq!(history(&disk), [1, 2, 3, 3, 4, 5, 6, 8, 9, 10]);
        assert_eq!(tables::number(&disk, tables::meta::FORMAT).unwrap(), Some(2));
        drop(disk);
        serve(folder.path(), |engine| {
            let items = run(engine, "range", vec![]);
            assert_eq!(items[0].as_array().unwrap().len(), expected().len());
            assert_eq!(run(engine, "set", vec!["next".into(), 1.into()]), 11.into());
        })
        .unwrap();
    }
}

#[test]
fn the_store_of_format_2_is_opened() {
    assert_opens("store-v2");
}

#[test]
fn the_backup_of_version_1_is_restored() {
    let file = std::fs::File::open(fixture("backup-v1")).unwrap();
    let mut archive = ArchiveReader::open(file).unwrap();
    let disk = MemoryStorage::default();
    let restored = restore(&mut archive, &disk, NOW, &mut |_, _| ()).unwrap();
    assert_eq!((restored.items, restored.expired, restored.summary.seq), (7, 0, 10));
    assert_expected(&state_on(&disk).unwrap(), NOW + LONG_MS / 2..=NOW + 2 * LONG_MS);
}

/// Rows that fill fjall's memory, so that it writes sorted files of all rows.
fn fill(folder: &Path) {
    let disk = FjallStorage::open(folder).unwrap();
    let key = b"filler";
    for _ in 0..520 {
        let mut value = vec![0xc6, 0, 0, 0x80, 0];
        value.resize(5 + (1 << 15), 0);
        let change = Change {
            seq: 10,
            time_ms: NOW,
            level: Level::Queued,
            index: 0,
            count: 1,
            op: Op::Set,
            covers: false,
            expires_at: None,
            key,
            value: &value,
        };
        disk.commit(vec![tables::row(&change)], Durability::Fsynced).unwrap();
    }
    let key = tables::key(key);
    disk.commit(vec![Row { space: Space::Table, key, value: None }], Durability::Fsynced).unwrap();
}

#[test]
#[ignore = "makes the fixture anew"]
fn make_the_fixture() {
    let store = fixture("store-v2");
    // There is none the first time.
    let _ = std::fs::remove_dir_all(&store);
    let options = |name: &str, value: rmpv::Value| rmpv::Value::Map(vec![(name.into(), value)]);
    let level = |level: &str| options("durability", level.into());
    let bytes = |bytes: &[u8]| rmpv::Value::Binary(bytes.to_vec());
    serve(&store, |engine| {
        run(engine, "set", vec!["".into(), "empty".into()]);
        run(engine, "set", vec![bytes(b"\xfe"), bytes(b"\0\xff")]);
        let list = rmpv::Value::Array(vec![1.into(), rmpv::Value::Nil]);
        let pair = |key: &str, value| rmpv::Value::Array(vec![key.into(), value]);
        let pairs = rmpv::Value::Array(vec![pair("batch/a", 1.into()), pair("batch/b", list)]);
        run(engine, "set_multi", vec![pairs, level("stored")]);
        run(engine, "set", vec!["counter".into(), 100.into()]);
        run(engine, "incr", vec!["counter".into(), options("delta", 200.into())]);
        let mortal =
            vec![("ttl_ms".into(), LONG_MS.into()), ("durability".into(), "queued".into())];
        run(engine, "set", vec!["mortal".into(), true.into(), rmpv::Value::Map(mortal)]);
        run(engine, "set", vec!["memory".into(), 1.into(), level("memory")]);
        run(engine, "set", vec!["gone".into(), "x".repeat(600).into()]);
        run(engine, "delete", vec!["gone".into()]);
        let blå = rmpv::Value::String(rmpv::Utf8String::from("blå".to_owned()));
        run(engine, "set", vec!["rød".into(), blå]);
    })
    .unwrap();
    fill(&store);
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_secs(1));
        serve(&store, |_| ()).unwrap();
    }
}
