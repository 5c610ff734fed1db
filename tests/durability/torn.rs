//! A power failure while the log, or fjall's journal, is being written: wherever the tail is torn,
//! and whatever replaces it, a restart shows a prefix of the writes, each whole; and all of them
//! where the log has them.

use crate::support::dealer::key_bytes;
use crate::support::storage_runtime::{call, config};
use rmpv::Value;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use vatn::client::{RawValue, Request};
use vatn::clock::Clock;
use vatn::config::{RetainConfig, WriteQueueConfig};
use vatn::engine::Engine;
use vatn::protocol::Level;
use vatn::server::StorageRuntime;
use vatn::storage::FjallStorage;

const SYNCED: u64 = 20;
const STORED: u64 = 60;
/// Keys of one write, all with the same number.
const KEYS: [&str; 3] = ["a", "b", "c"];
const CUTS: u64 = 10;

/// The bytes in place of the tail.
#[derive(Debug, Clone, Copy)]
enum Tail {
    /// The file ends.
    Nothing,
    /// The blocks were never written.
    Zeros,
    /// A block was written in part, with other bytes in the rest of it.
    Other,
}

fn open(path: &Path) -> StorageRuntime {
    let disk = Arc::new(FjallStorage::open(path).unwrap());
    let mut config = config(WriteQueueConfig::default());
    // Nothing is trimmed, so everything lost with the tail was in the tail.
    config.retain = RetainConfig::default();
    StorageRuntime::open(config, Clock::system(), disk, &mut |_| {}).unwrap()
}

fn write(engine: &Engine, number: u64, level: Level) {
    let fill = Value::Binary(vec![number as u8; 200]);
    let value = RawValue::from(&Value::Array(vec![number.into(), fill]));
    let pairs = KEYS.map(|key| (key, value.clone()));
    let request = Request::new("set_multi").pairs(&pairs).option("durability", level.name());
    call(engine, &request).unwrap();
}

/// The common number of all keys; fails when they differ.
fn number(engine: &Engine) -> u64 {
    let page = call(engine, &Request::new("range")).unwrap();
    let items = page[0].as_array().unwrap();
    let keys: Vec<Vec<u8>> = items.iter().map(|item| key_bytes(&item[0])).collect();
    assert_eq!(keys, KEYS.map(|key| key.as_bytes().to_vec()));
    let number = items[0][1][0].as_u64().unwrap();
    assert!(items.iter().all(|item| item[1][0].as_u64() == Some(number)), "half a write: {page}");
    number
}

/// The one file of `folder` whose name ends with `extension`.
fn only(folder: &Path, extension: &str) -> PathBuf {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    assert_eq!(found.len(), 1, "one file holds all");
    found[0].clone()
}

/// The torn file.
#[derive(Debug, Clone, Copy)]
enum Torn {
    Log,
    Journal,
}

impl Torn {
    fn file(self, store: &Path) -> PathBuf {
        match self {
            Self::Log => only(&store.join("log"), "log"),
            Self::Journal => only(store, "jnl"),
        }
    }

    /// The end of the file's records: the rest of a journal is preallocated, and zeros.
    fn end(self, store: &Path) -> u64 {
        let mut bytes = Vec::new();
        File::open(self.file(store)).unwrap().read_to_end(&mut bytes).unwrap();
        bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
    }

    fn tear(self, store: &Path, at: u64, tail: Tail) {
        let full = self.end(store);
        let mut file = OpenOptions::new().write(true).open(self.file(store)).unwrap();
        // Not the whole preallocated space of a journal, which the search reads.
        let length = file.metadata().unwrap().len().min(full + 8192);
        file.set_len(at).unwrap();
        match tail {
            Tail::Nothing => {}
            Tail::Zeros => file.set_len(length).unwrap(),
            Tail::Other => {
                file.seek(SeekFrom::End(0)).unwrap();
                file.write_all(&vec![0xA5; 700]).unwrap();
                file.set_len(length).unwrap();
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-r").arg("--sparse=always").arg(from).arg(to).status();
    assert!(done.unwrap().success());
}

/// Makes a store whose process was killed; returns the durable end of the log.
fn build(whole: &Path, has_tables: bool) -> u64 {
    // After more than a second, the committer syncs the log, and the checkpointer writes the
    // tables.
    loop {
        let folder = tempfile::tempdir().unwrap();
        let storage_runtime = open(folder.path());
        let engine = storage_runtime.engine();
        (1..=SYNCED).for_each(|number| write(&engine, number, Level::Synced));
        let safe = Torn::Log.end(folder.path());
        let progress = engine.watermarks().progress();
        for number in SYNCED + 1..=SYNCED + STORED {
            write(&engine, number, Level::Stored);
            if has_tables && number % 7 == 0 {
                call(&engine, &Request::new("flush")).unwrap();
            }
        }
        copy(folder.path(), whole);
        let is_as_meant = has_tables || {
            let now = engine.watermarks().progress();
            (now.synced, now.checkpointed) == (progress.synced, progress.checkpointed)
        };
        storage_runtime.stop().unwrap();
        if is_as_meant {
            return safe;
        }
        std::fs::remove_dir_all(whole).unwrap();
    }
}

fn random() -> fastrand::Rng {
    let seed = std::env::var("VATN_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed} (VATN_SEED repeats it)");
    fastrand::Rng::with_seed(seed)
}

/// Tears a file of the store at `whole` in many places after `safe`; returns the state after each
/// restart.
fn tear_and_open(whole: &Path, torn: Torn, safe: u64) -> Vec<(u64, u64)> {
    let mut random = random();
    let full = torn.end(whole);
    let cuts: Vec<u64> = (0..CUTS).map(|_| random.u64(safe..full)).chain([safe, full]).collect();
    let mut shown = Vec::new();
    for cut in cuts {
        let tail = [Tail::Nothing, Tail::Zeros, Tail::Other][random.usize(..3)];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("torn");
        copy(whole, &path);
        torn.tear(&path, cut, tail);
        // The copy accepts writes again, and a second restart changes nothing.
        let storage_runtime = open(&path);
        let left = number(&storage_runtime.engine());
        assert!(left >= SYNCED, "{torn:?} cut at {cut} of {safe} to {full}, {tail:?}: {left}");
        write(&storage_runtime.engine(), left + 1_000, Level::Synced);
        drop(storage_runtime.stop());
        let storage_runtime = open(&path);
        assert_eq!(
            number(&storage_runtime.engine()),
            left + 1_000,
            "{torn:?} cut at {cut}, {tail:?}"
        );
        storage_runtime.stop().unwrap();
        shown.push((cut, left));
    }
    shown.sort_unstable();
    println!("{shown:?}");
    assert_eq!(shown.last(), Some(&(full, SYNCED + STORED)));
    shown
}

#[test]
fn a_torn_log_leaves_whole_writes_up_to_the_tear() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let safe = build(&whole, false);
    let shown = tear_and_open(&whole, Torn::Log, safe);
    assert!(shown.is_sorted_by_key(|(_, left)| *left), "a longer log shows less: {shown:?}");
}

#[test]
fn a_torn_journal_loses_nothing_that_the_log_has() {
    let folder = tempfile::tempdir().unwrap();
    let (new, whole) = (folder.path().join("new"), folder.path().join("whole"));
    let storage_runtime = open(&new);
    let safe = Torn::Journal.end(&new);
    drop(storage_runtime.stop());
    build(&whole, true);
    let shown = tear_and_open(&whole, Torn::Journal, safe);
    assert!(shown.iter().all(|(_, left)| *left == SYNCED + STORED), "{shown:?}");
}

#[test]
fn a_log_torn_where_the_tables_have_it_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let safe = build(&whole, true);
    for tail in [Tail::Nothing, Tail::Zeros, Tail::Other] {
        let torn = folder.path().join("torn");
        copy(&whole, &torn);
        Torn::Log.tear(&torn, safe, tail);
        let refusal = FjallStorage::open(&torn).unwrap_err().to_string();
        assert!(refusal.contains("is damaged: log/0000"), "{refusal}");
        assert!(refusal.contains("`vatn check`"), "{refusal}");
        std::fs::remove_dir_all(&torn).unwrap();
    }
}
