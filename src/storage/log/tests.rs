//! The log files of a store: written, read, closed, trimmed, torn, damaged and repaired.

use super::format::{FRAME_HEAD_BYTES, FrameHead, HEAD_BYTES};
use super::*;
use crate::storage::file_fault::{Depth, FileFault};
use tempfile::TempDir;

const SMALL: u64 = 4_000;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Finds and opens the log, or returns the fault.
fn try_open(path: &Path, known: Known, is_closed: bool) -> Result<LogFiles, FileFault> {
    let mut faults = Vec::new();
    let found = inspect(path, Depth::Start, is_closed, &mut faults, &mut |_| {}).unwrap();
    match faults.pop() {
        Some(fault) => Err(fault),
        None => LogFiles::open(path, found, known).unwrap().map(|log| log.with_files_of(SMALL)),
    }
}

fn open(path: &Path) -> LogFiles {
    try_open(path, Known::default(), false).unwrap()
}

fn record(key: u64) -> Vec<u8> {
    vec![key as u8; 20 + key as usize % 300]
}

/// A log with the records of every second key, in several files.
fn filled(path: &Path, count: u64) -> LogFiles {
    let log = open(path);
    (1..=count).for_each(|n| log.append(2 * n, &record(2 * n)).unwrap());
    log
}

fn keys(log: &LogFiles, from: u64) -> Vec<u64> {
    let mut keys = Vec::new();
    let mut each = |key: &[u8], found: &[u8]| {
        let key = u64::from_be_bytes(key.try_into().unwrap());
        assert!(found == record(key) || found.is_empty());
        keys.push(key);
        true
    };
    log.scan(from, &mut each).unwrap();
    keys
}

fn evens(range: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    range.filter(|key| *key > 0 && key % 2 == 0).collect()
}

fn last_file(path: &Path) -> PathBuf {
    path.join(files(path).unwrap().pop().unwrap())
}

#[test]
fn records_are_read_in_order_also_after_reopening() {
    let folder = folder();
    let mut log = filled(folder.path(), 400);
    for _ in 0..2 {
        assert!(files(folder.path()).unwrap().len() > 5);
        for from in [0, 1, 2, 3, 399, 400, 799, 800] {
            assert_eq!(keys(&log, from), evens(from..=800), "from {from}");
            let floor = log.floor(from).unwrap();
            let expected = (from > 1).then(|| (from / 2 * 2, record(from / 2 * 2)));
            assert_eq!(floor, expected, "at {from}");
        }
        assert!(keys(&log, 801).is_empty());
        assert_eq!(log.floor(u64::MAX).unwrap(), Some((800, record(800))));
        log = open(folder.path());
        assert!(!log.is_next(800) && log.is_next(801));
    }
    log.append(802, &record(802)).unwrap();
    assert_eq!(keys(&open(folder.path()), 0), evens(0..=802));
}

#[test]
fn a_start_reads_only_the_last_file() {
    let folder = folder();
    drop(filled(folder.path(), 400));
    let names = files(folder.path()).unwrap();
    let closed = folder.path().join(&names[1]);
    let mut bytes = std::fs::read(&closed).unwrap();
    bytes[HEAD_BYTES as usize + 5] ^= 1;
    std::fs::write(&closed, bytes).unwrap();
    let log = open(folder.path());
    assert_eq!(log.floor(u64::MAX).unwrap(), Some((800, record(800))));
    // A reader of a record in it gets an error.
    let error = log.scan(0, &mut |_, _| true).unwrap_err().to_string();
    let words = format!("{}: it is damaged at byte {HEAD_BYTES}", names[1].display());
    assert!(error.contains(&words), "{error}");
}

#[test]
fn a_frame_states_the_synced_length_of_its_file() {
    let folder = folder();
    let log = open(folder.path());
    let synced_lengths = || {
        let bytes = std::fs::read(last_file(folder.path())).unwrap();
        let salt = u64::from_le_bytes(bytes[12..20].try_into().unwrap());
        let mut at = HEAD_BYTES;
        let mut synced_lengths = Vec::new();
        while let Some(frame) = FrameHead::decode(&bytes[at as usize..], salt, at) {
            synced_lengths.push((frame.key, frame.synced_to));
            at += frame.frame_bytes();
        }
        synced_lengths
    };
    let length = FRAME_HEAD_BYTES as u64 + 3;
    log.append(1, b"one").unwrap();
    log.append(2, b"two").unwrap();
    assert_eq!(log.durable(), None);
    log.sync().unwrap();
    assert_eq!(log.durable().map(|durable| durable.at), Some(HEAD_BYTES + 2 * length));
    log.append(3, b"new").unwrap();
    assert_eq!(synced_lengths(), [(1, HEAD_BYTES), (2, HEAD_BYTES), (3, HEAD_BYTES + 2 * length)]);
}

/// A file that cannot be synced: a device that accepts every write.
#[test]
fn a_failed_sync_is_reported_and_ends_all_writing() {
    let folder = folder();
    let log = open(folder.path());
    log.append(1, b"one").unwrap();
    let null = File::options().write(true).open("/dev/null").unwrap();
    let (file, _) = log.writer().last.take().unwrap();
    log.writer().last = Some((file, Arc::new(null)));
    assert!(log.sync().unwrap_err().to_string().contains("Invalid argument"));
    assert!(log.append(2, b"two").unwrap_err().to_string().contains("an earlier write failed"));
    assert!(log.sync().is_err() && log.durable().is_none());
}

#[test]
fn a_file_is_removed_only_when_none_of_its_records_is_needed() {
    let folder = folder();
    let log = filled(folder.path(), 400);
    let firsts: Vec<u64> = log.all().map(|log| log.head.first).collect();
    let (second, third) = (firsts[1], firsts[2]);
    // The last record before `second` is still needed.
    assert_eq!(log.kept_from(second - 2).unwrap(), None);
    assert_eq!(log.kept_from(second).unwrap(), Some(second));
    assert_eq!(log.kept_from(third - 1).unwrap(), Some(second));
    let reader = log.at(2).unwrap();
    let file = reader.open(&log.folder).unwrap();
    log.remove_before(second).unwrap();
    assert_eq!(keys(&log, 0), evens(second..=800));
    assert_eq!(log.floor(second - 1).unwrap(), None);
    let mut read = 0;
    reader.scan(&file, 0, &mut |_, _| (read += 1, true).1).unwrap();
    assert_eq!(read, (second - 2) / 2, "a reader of a trimmed file can read to its end");
    // The whole log: the next record gets its own file.
    assert_eq!(log.kept_from(801).unwrap(), Some(801));
    log.append(802, &record(802)).unwrap();
    log.remove_before(801).unwrap();
    assert_eq!(keys(&log, 0), [802]);
    drop(log);
    let known = Known { begins: 801, ends: None };
    assert_eq!(keys(&try_open(folder.path(), known, false).unwrap(), 0), [802]);
}

#[test]
fn a_removal_interrupted_by_a_crash_is_completed() {
    let folder = folder();
    let log = filled(folder.path(), 400);
    let firsts: Vec<u64> = log.all().map(|log| log.head.first).collect();
    // The second of three is missing: a system may remove them in any order.
    std::fs::remove_file(folder.path().join(&files(folder.path()).unwrap()[1])).unwrap();
    let known = Known { begins: firsts[3], ends: None };
    let log = try_open(folder.path(), known, false).unwrap();
    assert_eq!(keys(&log, 0), evens(firsts[3]..=800));
    assert_eq!(files(folder.path()).unwrap().len(), firsts.len() - 3);
}

#[test]
fn a_missing_file_is_a_fault() {
    let folder = folder();
    let log = filled(folder.path(), 400);
    log.sync().unwrap();
    let known = Known { begins: 0, ends: log.durable() };
    drop(log);
    for name in files(folder.path()).unwrap() {
        let (path, away) = (folder.path().join(&name), folder.path().join("away"));
        std::fs::rename(&path, &away).unwrap();
        let fault = try_open(folder.path(), known, false).unwrap_err();
        assert_eq!(fault.to_string(), format!("{}: it is missing", name.display()));
        std::fs::rename(&away, &path).unwrap();
    }
    assert!(try_open(folder.path(), known, false).is_ok());
}

/// The last file with three synced records, and then three that are not.
fn half_synced(path: &Path) -> (Vec<u8>, u64) {
    let log = open(path);
    (1..=3).for_each(|n| log.append(2 * n, &record(2 * n)).unwrap());
    log.sync().unwrap();
    let safe = log.durable().unwrap().at;
    (4..=6).for_each(|n| log.append(2 * n, &record(2 * n)).unwrap());
    // Without the preallocated space after them.
    log.close().unwrap();
    (std::fs::read(last_file(path)).unwrap(), safe)
}

#[test]
fn a_torn_tail_is_truncated_and_a_torn_middle_is_a_fault() {
    let folder = folder();
    let (bytes, safe) = half_synced(folder.path());
    let path = last_file(folder.path());
    for place in HEAD_BYTES as usize..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let opened = try_open(folder.path(), Known::default(), false);
        match (place as u64) < safe {
            true => {
                let what = opened.unwrap_err().to_string();
                assert!(what.contains("which was synced"), "byte {place}: {what}");
            }
            false => {
                let log = opened.unwrap();
                let left = keys(&log, 0);
                assert!((3..6).contains(&left.len()), "byte {place}: {left:?}");
                log.append(20, &record(20)).unwrap();
                assert_eq!(keys(&open(folder.path()), 0), [left, vec![20]].concat());
            }
        }
        // After an orderly close no tear is normal.
        std::fs::write(&path, &damaged).unwrap();
        assert!(try_open(folder.path(), Known::default(), true).is_err(), "byte {place}");
    }
}

#[test]
fn preallocated_space_after_the_frames_is_a_fault_only_after_an_orderly_close() {
    let folder = folder();
    let log = filled(folder.path(), 3);
    let length = || std::fs::metadata(last_file(folder.path())).unwrap().len();
    assert!(length() > ROOM_BYTES);
    drop(log);
    assert!(try_open(folder.path(), Known::default(), true).is_err());
    let log = open(folder.path());
    log.append(8, &record(8)).unwrap();
    log.close().unwrap();
    assert_eq!(length(), log.bytes());
    assert_eq!(keys(&try_open(folder.path(), Known::default(), true).unwrap(), 0), [2, 4, 6, 8]);
}

#[test]
fn a_truncation_is_a_fault_only_where_the_data_was_synced() {
    let folder = folder();
    let (bytes, safe) = half_synced(folder.path());
    let path = last_file(folder.path());
    let salt = open(folder.path()).at(2).unwrap().head.salt;
    let known = Known { begins: 0, ends: Some(Durable { first: 2, salt, at: safe }) };
    for end in 0..bytes.len() {
        std::fs::write(&path, &bytes[..end]).unwrap();
        let opened = try_open(folder.path(), known, false);
        assert_eq!(opened.is_ok(), end as u64 >= safe, "cut at {end}");
        std::fs::write(&path, &bytes[..end]).unwrap();
        let opened = try_open(folder.path(), Known::default(), false);
        assert_eq!(opened.is_ok(), end as u64 >= HEAD_BYTES, "cut at {end}");
        if let Ok(log) = opened {
            log.append(20, &record(20)).unwrap();
            assert_eq!(*keys(&log, 0).last().unwrap(), 20);
        }
        // Where no record was left, a file of another name was made.
        let names = files(folder.path()).unwrap();
        names.iter().for_each(|name| std::fs::remove_file(folder.path().join(name)).unwrap());
    }
}

#[test]
fn user_data_that_looks_like_a_frame_is_not_read_as_one() {
    let folder = folder();
    let log = open(folder.path());
    log.append(1, b"one").unwrap();
    log.sync().unwrap();
    log.append(2, b"two").unwrap();
    let whole = std::fs::read(last_file(folder.path())).unwrap();
    // A value that is a log file, torn in its middle.
    log.append(3, &whole).unwrap();
    log.close().unwrap();
    let path = last_file(folder.path());
    let length = std::fs::metadata(&path).unwrap().len();
    drop(log);
    File::options().write(true).open(&path).unwrap().set_len(length - 1).unwrap();
    let log = open(folder.path());
    assert_eq!(log.floor(9).unwrap(), Some((2, b"two".to_vec())));
}

#[test]
fn a_frame_that_claims_many_bytes_allocates_no_memory_for_them() {
    let folder = folder();
    let log = open(folder.path());
    log.append(1, b"one").unwrap();
    let head = log.at(1).unwrap().head;
    log.close().unwrap();
    let path = last_file(folder.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let frame = FrameHead { key: 2, length: u32::MAX, synced_to: 0, checksum: 0 };
    bytes.extend(frame.encode(head.salt, bytes.len() as u64));
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(keys_of_one(&open(folder.path())), [1]);
}

fn keys_of_one(log: &LogFiles) -> Vec<u64> {
    let mut keys = Vec::new();
    log.scan(0, &mut |key, _| {
        keys.push(u64::from_be_bytes(key.try_into().unwrap()));
        true
    })
    .unwrap();
    keys
}

/// The keys in a view of the log: records, and holes.
fn viewed(folder: &Path, known: Known, faults: &mut Vec<FileFault>) -> (Vec<u64>, Vec<u64>) {
    let found = inspect(folder, Depth::Whole, false, faults, &mut |_| {}).unwrap();
    let view = LogView::find(folder, found, known, faults).unwrap();
    let (mut whole, mut holes) = (Vec::new(), Vec::new());
    view.scan(0, &mut |key, found| {
        let key = u64::from_be_bytes(key.try_into().unwrap());
        (if found.is_empty() { &mut holes } else { &mut whole }).push(key);
        true
    })
    .unwrap();
    (whole, holes)
}

#[test]
fn a_view_returns_every_readable_record_and_marks_the_hole() {
    let folder = folder();
    let (bytes, _) = half_synced(folder.path());
    let path = last_file(folder.path());
    let (mut damaged_places, mut all) = (0, Vec::new());
    for place in 0..=bytes.len() {
        let mut damaged = bytes.clone();
        if let Some(byte) = damaged.get_mut(place) {
            *byte ^= 1;
        }
        std::fs::write(&path, &damaged).unwrap();
        let mut faults = Vec::new();
        let (whole, holes) = viewed(folder.path(), Known::default(), &mut faults);
        assert_eq!(std::fs::read(&path).unwrap(), damaged, "a view changes nothing");
        match (faults.is_empty(), (place as u64) < HEAD_BYTES) {
            // An unsynced loss looks like the effect of a crash.
            (true, _) => assert!(holes.is_empty(), "byte {place}: {holes:?}"),
            (false, true) => assert_eq!((whole.len(), holes.len()), (6, 0), "byte {place}"),
            (false, false) => {
                damaged_places += 1;
                assert_eq!((whole.len(), holes.len()), (5, 1), "byte {place}: {whole:?}");
                assert!(!whole.contains(&holes[0]), "byte {place}: {holes:?}");
            }
        }
        all = whole;
    }
    assert!(damaged_places > 20 && all.len() == 6, "{damaged_places}, {all:?}");
    std::fs::remove_file(&path).unwrap();
    let ends = Some(Durable { first: 2, salt: 1, at: 500 });
    let mut faults = Vec::new();
    let (whole, holes) = viewed(folder.path(), Known { begins: 0, ends }, &mut faults);
    assert_eq!((whole, holes, faults.len()), (vec![], vec![2], 1));
}

/// A file without its head yields the consecutive records from its beginning.
#[test]
fn a_view_reads_a_file_without_its_head() {
    let folder = folder();
    let log = open(folder.path());
    (1..6).for_each(|key| log.append(key, b"record").unwrap());
    log.close().unwrap();
    let path = last_file(folder.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..HEAD_BYTES as usize].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let (whole, holes) = viewed(folder.path(), Known::default(), &mut Vec::new());
    assert_eq!((whole, holes), (vec![1, 2, 3, 4, 5], vec![6]));
}
