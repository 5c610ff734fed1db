//! Stores in a directory without a broker: filled, read, compared and damaged.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vatn::clock::Clock;
use vatn::config::{Config, RetainConfig, WriteQueueConfig};
use vatn::engine::{Allowance, BarrierStatus, Engine, Replies, recover};
use vatn::net::Caller;
use vatn::protocol::{Level, Seq};
use vatn::server::StorageRuntime;
use vatn::storage::{FjallStorage, Storage, StorageError};

use super::commands::request;
use super::storage_runtime;

/// The time of everything that happens here.
pub const NOW: u64 = 1_700_000_000_000;

/// Each key with its value, seq, level and time of expiry.
pub type State = BTreeMap<Vec<u8>, (Vec<u8>, Seq, Level, u64)>;

fn config(folder: &Path) -> Config {
    Config {
        database: folder.to_owned(),
        retain: RetainConfig { bytes: 1_500, age_ms: 0, segment_bytes: 500 },
        checkpoint_threads: 1,
        ..storage_runtime::config(WriteQueueConfig::default())
    }
}

/// Opens a store with small log segments, does `work` with its engine, and closes it in order.
pub fn serve(folder: &Path, work: impl FnOnce(&Engine)) -> Result<(), StorageError> {
    let disk = Arc::new(FjallStorage::open(folder)?);
    let clock = Clock::manual(NOW);
    let storage_runtime = StorageRuntime::open(config(folder), clock, disk, &mut |_| {})?;
    work(&storage_runtime.engine());
    storage_runtime.stop()?;
    // The store has few bytes in it, and comparing all preallocated ones would take long.
    let _ = std::fs::remove_file(folder.join("reserve"));
    Ok(())
}

/// Executes one command, and waits until its answer may be sent.
pub fn run(engine: &Engine, method: &str, params: Vec<rmpv::Value>) -> rmpv::Value {
    let frame = request(1, method, params);
    let (mut allowance, mut replies) = (Allowance::default(), Replies::default());
    let called = engine.call(&Caller::local(), &[frame.decode()], &mut allowance, &mut replies);
    assert_eq!(called.done, 1);
    let barrier = replies.list[0].barrier().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while engine.barrier_status(barrier) == BarrierStatus::Waiting {
        assert!(Instant::now() < deadline, "no answer");
        std::thread::yield_now();
    }
    let response = rmpv::decode::read_value(&mut &replies.encoded.fill()[..]).unwrap();
    assert!(response[2].is_nil(), "{response}");
    response[3].clone()
}

/// The state that a restart finds in the store.
pub fn state(folder: &Path) -> Result<State, StorageError> {
    let disk = FjallStorage::open(folder)?;
    state_on(&disk)
}

/// The state that a restart finds on the disk.
pub fn state_on(disk: &dyn Storage) -> Result<State, StorageError> {
    let recovered = recover(disk, &Clock::manual(NOW), &mut |_| {})?;
    let entries = recovered.store.entries();
    Ok(entries
        .map(|(key, entry)| {
            let head = entry.head;
            let value = (entry.value.to_vec(), head.seq, head.level, head.expires_at);
            (key.to_vec(), value)
        })
        .collect())
}

/// Copies a directory.
pub fn copy(from: &Path, to: &Path) {
    try_copy(from, to).unwrap();
}

/// Copies a store that is in use: from the start again when a file goes meanwhile.
pub fn copy_in_use(from: &Path, to: &Path) {
    while let Err(error) = try_copy(from, to) {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        std::fs::remove_dir_all(to).unwrap();
    }
}

fn try_copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => try_copy(&entry.path(), &target)?,
            false => drop(std::fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}

/// Every file below a directory, by relative path, in order.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    fn collect(folder: &Path, name: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder.join(name)).unwrap() {
            let entry = entry.unwrap();
            let name = name.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => collect(folder, &name, found),
                false => found.push(name),
            }
        }
    }
    let mut found = Vec::new();
    collect(folder, Path::new(""), &mut found);
    found.sort();
    found
}
