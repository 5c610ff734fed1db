//! Random stores, and random harm done to their files.

use super::offline::{State, copy, files, run, serve, state};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use vatn::storage::{Durability, FjallStorage, Row, Storage};
use vatn::wal::Segment;
use vatn::wal::tables::{self, meta};

/// Keys of random stores.
const KEYS: usize = 60;

/// Every value that a key ever had.
pub type Written = BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>;

/// A store before it is damaged.
pub struct Whole {
    /// The state that a restart finds in it.
    pub state: State,
    pub written: Written,
    /// How its last session ended.
    pub end: &'static str,
}

fn value(rng: &mut Rng) -> String {
    let length = rng.usize(0..2_500);
    match rng.bool() {
        true => "x".repeat(length),
        false => (0..length).map(|_| rng.alphanumeric()).collect(),
    }
}

/// Fills the store at `path` in a few sessions, of which the last ends in order or by `kill -9`.
pub fn build(path: &Path, rng: &mut Rng) -> Whole {
    let mut written = Written::new();
    let end = ["stopped", "killed", "killed after its start"][rng.usize(0..3)];
    let sessions = rng.usize(1..4);
    std::fs::create_dir_all(path).unwrap();
    for session in 1..=sessions {
        let live = path.with_extension("live");
        copy(path, &live);
        serve(&live, |engine| {
            for _ in 0..rng.usize(1..160) {
                let key = format!("key {:02}", rng.usize(0..KEYS));
                if rng.u8(0..6) == 0 {
                    run(engine, "delete", vec![key.into()]);
                    continue;
                }
                if rng.u8(0..8) == 0 {
                    let expiry = rmpv::Value::from(1_000_000 + rng.u64(0..1_000));
                    run(engine, "touch", vec![key.into(), expiry]);
                    continue;
                }
                let (value, level) = (value(rng), ["queued", "stored", "synced"][rng.usize(0..3)]);
                let encoded = rmpv::Value::from(value.as_str());
                let mut bytes = Vec::new();
                rmpv::encode::write_value(&mut bytes, &encoded).unwrap();
                written.entry(key.clone().into()).or_default().insert(bytes);
                let options = vec![("durability".into(), level.into())];
                run(engine, "set", vec![key.into(), encoded, rmpv::Value::Map(options)]);
            }
            if session == sessions && end == "killed" {
                std::fs::remove_dir_all(path).unwrap();
                copy(&live, path);
            }
        })
        .unwrap();
        if session < sessions && rng.bool() {
            trim(&live);
        }
        if session == sessions && end == "killed after its start" {
            serve(&live, |_| {
                std::fs::remove_dir_all(path).unwrap();
                copy(&live, path);
            })
            .unwrap();
        } else if session < sessions || end == "stopped" {
            std::fs::remove_dir_all(path).unwrap();
            copy(&live, path);
        }
        std::fs::remove_dir_all(&live).unwrap();
    }
    let looked_at = path.with_extension("whole");
    copy(path, &looked_at);
    let state = state(&looked_at).unwrap();
    std::fs::remove_dir_all(looked_at).unwrap();
    Whole { state, written, end }
}

/// Removes all of the log that the tables hold, as trims at the ends of files do.
fn trim(path: &Path) {
    let disk = FjallStorage::open(path).unwrap();
    let Some(checkpointed) = tables::number(&disk, meta::CHECKPOINTED).unwrap() else { return };
    let forget = |segment: &Segment| Row { value: None, ..segment.row() };
    let segments = Segment::read_all(&disk).unwrap();
    disk.commit(segments.iter().map(forget).collect(), Durability::Fsynced).unwrap();
    disk.trim_log(checkpointed + 1).unwrap();
    disk.settle().unwrap();
}

/// Damages one file or directory of the store; returns which, and how.
pub fn harm(store: &Path, rng: &mut Rng) -> (&'static str, String) {
    let all = files(store);
    let file = all[rng.usize(0..all.len())].clone();
    let path = store.join(&file);
    let length = std::fs::metadata(&path).unwrap().len();
    let open = || std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let at = rng.u64(0..length.max(1));
    let name = file.display().to_string();
    match rng.u8(0..9) {
        0..=2 if length > 0 => {
            let (mut byte, bit) = ([0], rng.u8(0..8));
            open().read_exact_at(&mut byte, at).unwrap();
            open().write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
            ("a flipped bit", format!("{name}: bit {bit} of byte {at}"))
        }
        3 if length > 0 => {
            open().set_len(at).unwrap();
            ("cut short", format!("{name}: at {at} of {length}"))
        }
        4 if length > 0 => {
            let count = (length - at).min(rng.u64(1..8192));
            open().write_all_at(&vec![0; count as usize], at).unwrap();
            ("zeros", format!("{name}: {count} from {at}"))
        }
        5 => {
            let junk: Vec<u8> = (0..rng.usize(1..3000)).map(|_| rng.u8(..)).collect();
            open().write_all_at(&junk, length).unwrap();
            ("junk at the end", name)
        }
        6 => {
            let folder = file.parent().unwrap();
            let alike: Vec<&PathBuf> = all
                .iter()
                .filter(|other| **other != file && other.extension() == file.extension())
                .collect();
            if alike.is_empty() || folder.as_os_str().is_empty() {
                std::fs::remove_file(path).unwrap();
                return ("a file removed", name);
            }
            let other = alike[rng.usize(0..alike.len())];
            let (one, two) = (std::fs::read(&path), std::fs::read(store.join(other)));
            std::fs::write(&path, two.unwrap()).unwrap();
            std::fs::write(store.join(other), one.unwrap()).unwrap();
            ("files swapped", format!("{name} with {}", other.display()))
        }
        7 if rng.bool() => {
            let folder = file.ancestors().skip(1).find(|folder| !folder.as_os_str().is_empty());
            match folder {
                Some(folder) => {
                    std::fs::remove_dir_all(store.join(folder)).unwrap();
                    ("a directory removed", folder.display().to_string())
                }
                None => {
                    std::fs::remove_file(path).unwrap();
                    ("a file removed", name)
                }
            }
        }
        _ => {
            std::fs::remove_file(path).unwrap();
            ("a file removed", name)
        }
    }
}

/// Every file and directory below `folder`: its bytes and the time of its last change.
pub fn snapshot(folder: &Path) -> BTreeMap<PathBuf, (i64, i64, Vec<u8>)> {
    fn collect(path: &Path, found: &mut BTreeMap<PathBuf, (i64, i64, Vec<u8>)>) {
        let metadata = std::fs::metadata(path).unwrap();
        let bytes = if metadata.is_dir() { Vec::new() } else { std::fs::read(path).unwrap() };
        found.insert(path.to_owned(), (metadata.mtime(), metadata.mtime_nsec(), bytes));
        if metadata.is_dir() {
            for entry in std::fs::read_dir(path).unwrap() {
                collect(&entry.unwrap().path(), found);
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(folder, &mut found);
    found
}
