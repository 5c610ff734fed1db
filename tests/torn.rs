//! Power that fails while fjall's journal is on its way to the medium: wherever the tail is torn,
//! and whatever stands in its place, a restart shows a prefix of the writes, each whole.

mod support;

use rmpv::Value;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use support::backbone::{call, config};
use support::dealer::key_bytes;
use vatn::client::{Packed, Request};
use vatn::clock::Clock;
use vatn::config::{QueueConfig, RetainConfig};
use vatn::disk::FjallDisk;
use vatn::engine::Engine;
use vatn::server::Backbone;
use vatn::wire::Level;

const SYNCED: u64 = 20;
const STORED: u64 = 60;
/// Keys of one write, all given the same number.
const KEYS: [&str; 3] = ["a", "b", "c"];
const CUTS: u64 = 10;

/// What stands where the tail was.
#[derive(Debug, Clone, Copy)]
enum Tail {
    /// The file ends.
    Nothing,
    /// The blocks were never written.
    Zeros,
    /// A block was written in part, with something else in the rest of it.
    Other,
}

fn open(path: &Path) -> Backbone {
    let disk = Arc::new(FjallDisk::open(path).unwrap());
    let mut config = config(QueueConfig::default());
    // Nothing is trimmed, so all that the tail's loss undoes is in the tail.
    config.retain = RetainConfig::default();
    Backbone::open(config, Clock::system(), disk, &mut |_| {}).unwrap()
}

fn write(engine: &Engine, number: u64, level: Level) {
    let fill = Value::Binary(vec![number as u8; 200]);
    let value = Packed::from(&Value::Array(vec![number.into(), fill]));
    let pairs = KEYS.map(|key| (key, value.clone()));
    let request = Request::new("set_multi").pairs(&pairs).option("durability", level.name());
    call(engine, &request).unwrap();
}

/// The number that all keys have; fails when they differ.
fn number(engine: &Engine) -> u64 {
    let page = call(engine, &Request::new("range")).unwrap();
    let items = page[0].as_array().unwrap();
    let keys: Vec<Vec<u8>> = items.iter().map(|item| key_bytes(&item[0])).collect();
    assert_eq!(keys, KEYS.map(|key| key.as_bytes().to_vec()));
    let number = items[0][1][0].as_u64().unwrap();
    assert!(items.iter().all(|item| item[1][0].as_u64() == Some(number)), "half a write: {page}");
    number
}

fn journal(path: &Path) -> PathBuf {
    let files = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let journals: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|e| e == "jnl")).collect();
    assert_eq!(journals.len(), 1, "one journal holds all");
    journals[0].clone()
}

/// Where the journal's records end: the rest of the file is reserved, and zeros.
fn end(path: &Path) -> u64 {
    let mut bytes = Vec::new();
    File::open(journal(path)).unwrap().read_to_end(&mut bytes).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-r").arg("--sparse=always").arg(from).arg(to).status();
    assert!(done.unwrap().success());
}

fn tear(path: &Path, at: u64, tail: Tail) {
    let mut file = OpenOptions::new().write(true).open(journal(path)).unwrap();
    let length = file.metadata().unwrap().len();
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

#[test]
fn a_torn_journal_leaves_whole_writes_up_to_the_tear() {
    let seed = std::env::var("VATN_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed} (VATN_SEED repeats it)");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let (living, whole) = (folder.path().join("living"), folder.path().join("whole"));
    let backbone = open(&living);
    let engine = backbone.engine();
    (1..=SYNCED).for_each(|number| write(&engine, number, Level::Synced));
    let safe = end(&living);
    (SYNCED + 1..=SYNCED + STORED).for_each(|number| write(&engine, number, Level::Stored));
    copy(&living, &whole);
    backbone.stop().unwrap();
    let full = end(&whole);
    let cuts: Vec<u64> = (0..CUTS).map(|_| random.u64(safe..full)).chain([safe, full]).collect();
    let mut shown = Vec::new();
    for cut in cuts {
        let tail = [Tail::Nothing, Tail::Zeros, Tail::Other][random.usize(..3)];
        let torn = folder.path().join("torn");
        copy(&whole, &torn);
        tear(&torn, cut, tail);
        // The copy takes writes again, and a second restart changes nothing.
        let backbone = open(&torn);
        let left = number(&backbone.engine());
        assert!(left >= SYNCED, "cut at {cut} of {safe} to {full}, {tail:?}: {left}");
        write(&backbone.engine(), left + 1_000, Level::Synced);
        drop(backbone.stop());
        let backbone = open(&torn);
        assert_eq!(number(&backbone.engine()), left + 1_000, "cut at {cut}, {tail:?}");
        backbone.stop().unwrap();
        std::fs::remove_dir_all(&torn).unwrap();
        shown.push((cut, left));
    }
    shown.sort_unstable();
    println!("{shown:?}");
    assert!(shown.is_sorted_by_key(|(_, left)| *left), "a longer journal shows less: {shown:?}");
    assert_eq!(shown.last(), Some(&(full, SYNCED + STORED)));
}
