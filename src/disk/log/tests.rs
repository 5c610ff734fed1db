//! The log files of a store, written, read, closed, trimmed, torn, damaged and mended.

use super::format::{FRAME_HEAD_BYTES, FrameHead, HEAD_BYTES};
use super::*;
use crate::disk::files::{Depth, FileFault};
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

const SMALL: u64 = 4_000;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Finds and opens the log, or says what is wrong.
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
fn what_is_appended_is_read_in_order_also_after_reopening() {
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
fn a_start_reads_the_last_file_alone() {
    let folder = folder();
    drop(filled(folder.path(), 400));
    let names = files(folder.path()).unwrap();
    let closed = folder.path().join(&names[1]);
    let mut bytes = std::fs::read(&closed).unwrap();
    bytes[HEAD_BYTES as usize + 5] ^= 1;
    std::fs::write(&closed, bytes).unwrap();
    let log = open(folder.path());
    assert_eq!(log.floor(u64::MAX).unwrap(), Some((800, record(800))));
    // Who asks for a record in it is told.
    let error = log.scan(0, &mut |_, _| true).unwrap_err().to_string();
    let words = format!("{}: it is damaged at byte {HEAD_BYTES}", names[1].display());
    assert!(error.contains(&words), "{error}");
}

#[test]
fn a_frame_tells_how_far_the_file_was_synced() {
    let folder = folder();
    let log = open(folder.path());
    let told = || {
        let bytes = std::fs::read(last_file(folder.path())).unwrap();
        let salt = u64::from_le_bytes(bytes[12..20].try_into().unwrap());
        let mut at = HEAD_BYTES;
        let mut told = Vec::new();
        while let Some(frame) = FrameHead::decode(&bytes[at as usize..], salt, at) {
            told.push((frame.key, frame.synced_to));
            at += frame.frame_bytes();
        }
        told
    };
    let length = FRAME_HEAD_BYTES as u64 + 3;
    log.append(1, b"one").unwrap();
    log.append(2, b"two").unwrap();
    assert_eq!(log.durable(), None);
    log.sync().unwrap();
    assert_eq!(log.durable().map(|durable| durable.at), Some(HEAD_BYTES + 2 * length));
    log.append(3, b"new").unwrap();
    assert_eq!(told(), [(1, HEAD_BYTES), (2, HEAD_BYTES), (3, HEAD_BYTES + 2 * length)]);
}

/// What cannot be synced: a device that takes every write.
#[test]
fn a_sync_that_fails_is_told_and_ends_all_writing() {
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
fn files_go_when_nothing_in_them_is_wanted_and_not_before() {
    let folder = folder();
    let log = filled(folder.path(), 400);
    let firsts: Vec<u64> = log.all().map(|log| log.head.first).collect();
    let (second, third) = (firsts[1], firsts[2]);
    // The last record before `second` is still wanted.
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
    assert_eq!(read, (second - 2) / 2, "whoever reads a file goes on to its end");
    // All of it: the next record has a file of its own.
    assert_eq!(log.kept_from(801).unwrap(), Some(801));
    log.append(802, &record(802)).unwrap();
    log.remove_before(801).unwrap();
    assert_eq!(keys(&log, 0), [802]);
    drop(log);
    let known = Known { begins: 801, ends: None };
    assert_eq!(keys(&try_open(folder.path(), known, false).unwrap(), 0), [802]);
}

#[test]
fn a_removal_that_a_crash_cut_short_is_finished() {
    let folder = folder();
    let log = filled(folder.path(), 400);
    let firsts: Vec<u64> = log.all().map(|log| log.head.first).collect();
    // The second of three is gone, in whatever order a system does it.
    std::fs::remove_file(folder.path().join(&files(folder.path()).unwrap()[1])).unwrap();
    let known = Known { begins: firsts[3], ends: None };
    let log = try_open(folder.path(), known, false).unwrap();
    assert_eq!(keys(&log, 0), evens(firsts[3]..=800));
    assert_eq!(files(folder.path()).unwrap().len(), firsts.len() - 3);
}

#[test]
fn a_file_that_is_missing_is_missed() {
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
    // Without the room after them.
    log.close().unwrap();
    (std::fs::read(last_file(path)).unwrap(), safe)
}

#[test]
fn a_torn_tail_is_cut_and_a_torn_middle_is_not() {
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
                assert!(what.contains("which was on the medium"), "byte {place}: {what}");
            }
            false => {
                let log = opened.unwrap();
                let left = keys(&log, 0);
                assert!((3..6).contains(&left.len()), "byte {place}: {left:?}");
                log.append(20, &record(20)).unwrap();
                assert_eq!(keys(&open(folder.path()), 0), [left, vec![20]].concat());
            }
        }
        // After an orderly end nothing is torn.
        std::fs::write(&path, &damaged).unwrap();
        assert!(try_open(folder.path(), Known::default(), true).is_err(), "byte {place}");
    }
}

#[test]
fn the_room_after_the_frames_is_no_damage_unless_the_end_was_orderly() {
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
fn a_cut_is_a_crash_unless_what_is_gone_was_on_the_medium() {
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
fn bytes_of_a_users_that_look_like_a_frame_are_none() {
    let folder = folder();
    let log = open(folder.path());
    log.append(1, b"one").unwrap();
    log.sync().unwrap();
    log.append(2, b"two").unwrap();
    let whole = std::fs::read(last_file(folder.path())).unwrap();
    // A value that is a log file, torn off in its middle.
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
fn a_claim_of_many_bytes_makes_no_room_for_them() {
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

#[test]
fn a_repair_keeps_what_can_be_read_and_marks_the_hole() {
    let folder = folder();
    let (bytes, _) = half_synced(folder.path());
    let path = last_file(folder.path());
    let name = files(folder.path()).unwrap().pop().unwrap();
    let kept = path.with_extension("log.damaged");
    for place in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        assert!(mend(folder.path(), &name).unwrap().is_some());
        assert_eq!(std::fs::read(&kept).unwrap(), damaged);
        std::fs::remove_file(&kept).unwrap();
        let log = open(folder.path());
        let (mut whole, mut holes) = (Vec::new(), Vec::new());
        log.scan(0, &mut |key, found| {
            let key = u64::from_be_bytes(key.try_into().unwrap());
            (if found.is_empty() { &mut holes } else { &mut whole }).push(key);
            true
        })
        .unwrap();
        let is_head = (place as u64) < HEAD_BYTES;
        assert_eq!(holes.len(), usize::from(!is_head), "byte {place}: {holes:?}");
        assert_eq!(whole.len(), 6 - holes.len(), "byte {place}: {whole:?}");
        let is_before = |hole: &u64| !whole.contains(hole) && *hole <= 12;
        assert!(holes.iter().all(is_before), "byte {place}: {holes:?}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(mend(folder.path(), &name).unwrap().is_some());
    assert_eq!(keys(&open(folder.path()), 0), [2]);
    assert_eq!(mend(folder.path(), Path::new("0.jnl")).unwrap(), None);
}

#[test]
fn a_record_is_taken_out_of_its_file_or_replaced() {
    let folder = folder();
    let log = filled(folder.path(), 100);
    let changes = [(4, None), (150, None), (160, Some(Vec::new())), (200, None), (900, None)];
    log.edit(BTreeMap::from(changes)).unwrap();
    let left = || evens(2..=199).into_iter().filter(|key| ![4, 150].contains(key));
    assert_eq!(keys(&log, 0), left().collect::<Vec<_>>());
    log.append(202, &record(202)).unwrap();
    let log = open(folder.path());
    assert_eq!(keys(&log, 0), left().chain([202]).collect::<Vec<_>>());
    assert_eq!(log.floor(160).unwrap(), Some((160, Vec::new())));
}

#[test]
fn readers_see_whole_records_while_others_are_appended_and_trimmed() {
    let folder = folder();
    let log = open(folder.path());
    let (end, trimmed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for key in 1..=3_000 {
                log.append(key, &record(key)).unwrap();
                end.store(key, Ordering::Release);
                if key % 500 == 0
                    && let Some(begins) = log.kept_from(key - 200).unwrap()
                {
                    trimmed.store(begins, Ordering::Release);
                    log.remove_before(begins).unwrap();
                }
            }
        });
        let mut last = 0;
        while last < 3_000 {
            last = end.load(Ordering::Acquire);
            let mut seen = keys(&log, last.saturating_sub(150));
            // What is trimmed meanwhile may be missing.
            let begins = trimmed.load(Ordering::Acquire);
            seen.retain(|key| *key >= begins);
            assert!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{seen:?}");
            assert!(last < begins.max(1) || seen.contains(&last));
        }
    });
}

fn spares(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path.join(FOLDER)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|ending| ending == "spare")).collect()
}

/// A log whose last file was another one before, with `count` records in it.
fn written_again(path: &Path, count: u64) -> LogFiles {
    let log = filled(path, 400);
    let begins = log.kept_from(801).unwrap().unwrap();
    log.remove_before(begins).unwrap();
    let kept = spares(path).len();
    assert!(kept > 5);
    (401..401 + count).for_each(|n| log.append(2 * n, &record(2 * n)).unwrap());
    assert!(spares(path).len() < kept);
    log
}

#[test]
fn a_file_that_is_written_again_shows_nothing_of_what_it_held() {
    let folder = folder();
    for count in [1, 2, 5, 30, 200] {
        let log = written_again(folder.path(), count);
        let last = 800 + 2 * count;
        assert_eq!(keys(&log, 0), evens(801..=last));
        assert_eq!(log.floor(u64::MAX).unwrap(), Some((last, record(last))));
        // The broker ends without a word.
        drop(log);
        let log = open(folder.path());
        assert_eq!(keys(&log, 0), evens(801..=last), "{count} records");
        assert!(spares(folder.path()).is_empty(), "what nobody knows any more is removed");
        log.append(last + 2, &record(last + 2)).unwrap();
        assert_eq!(keys(&log, 0), evens(801..=last + 2));
        log.close().unwrap();
        let log = try_open(folder.path(), Known::default(), true).unwrap();
        assert_eq!(keys(&log, 0), evens(801..=last + 2), "{count} records, and an orderly end");
        drop(log);
        std::fs::remove_dir_all(folder.path().join(FOLDER)).unwrap();
    }
}

#[test]
fn a_file_that_is_written_again_can_be_torn_and_damaged_as_any_other() {
    let folder = folder();
    let log = written_again(folder.path(), 3);
    log.sync().unwrap();
    let safe = log.durable().unwrap().at;
    (404..=406).for_each(|n| log.append(2 * n, &record(2 * n)).unwrap());
    let end = log.at(812).unwrap().length();
    drop(log);
    let path = last_file(folder.path());
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes.len() as u64 > end, "something of what it held is left");
    for place in HEAD_BYTES..end {
        let mut damaged = bytes.clone();
        damaged[place as usize] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let opened = try_open(folder.path(), Known::default(), false);
        assert_eq!(opened.is_ok(), place >= safe, "byte {place}");
        if let Ok(log) = opened {
            let left = keys(&log, 0);
            assert!((3..6).contains(&left.len()), "byte {place}: {left:?}");
            log.append(900, &record(900)).unwrap();
            assert_eq!(keys(&open(folder.path()), 0), [left, vec![900]].concat());
        }
    }
}

#[test]
fn a_file_that_somebody_reads_is_not_written_again() {
    let folder = folder();
    let log = filled(folder.path(), 400);
    let reader = log.at(2).unwrap();
    let file = reader.open(&log.folder).unwrap();
    let begins = log.kept_from(801).unwrap().unwrap();
    log.remove_before(begins).unwrap();
    (401..=900).for_each(|n| log.append(2 * n, &record(2 * n)).unwrap());
    assert!(spares(folder.path()).is_empty(), "all others are");
    let mut read = Vec::new();
    let mut each = |key: &[u8], _: &[u8]| {
        read.push(u64::from_be_bytes(key.try_into().unwrap()));
        true
    };
    reader.scan(&file, 0, &mut each).unwrap();
    assert_eq!(read, evens(2..=*read.last().unwrap()));
}

#[test]
fn no_more_files_are_kept_than_were_begun() {
    let folder = folder();
    let log = filled(folder.path(), 400);
    let trim = |before| log.remove_before(log.kept_from(before).unwrap().unwrap()).unwrap();
    let begun = files(folder.path()).unwrap().len();
    trim(801);
    assert_eq!(spares(folder.path()).len(), begun.min(16));
    log.append(802, &record(802)).unwrap();
    let kept: Vec<usize> = (0..5)
        .map(|n| {
            log.append(900 + 2 * n, &record(900 + 2 * n)).unwrap();
            trim(901 + 2 * n);
            spares(folder.path()).len()
        })
        .collect();
    assert_eq!(kept, [8, 4, 2, 1, 1]);
    let all: u64 = spares(folder.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert_eq!(log.bytes(), all, "they are counted");
    log.close().unwrap();
    assert!(spares(folder.path()).is_empty());
}

#[test]
fn where_every_record_is_synced_the_next_file_is_there_before_it_is_needed() {
    let folder = folder();
    let log = open(folder.path());
    let mut key = 0;
    let mut append = |is_waited_for: bool| {
        key += 1;
        log.append(key, b"").unwrap();
        if is_waited_for { log.sync_for_writers() } else { log.sync() }.unwrap();
        log.make_ahead();
        spares(folder.path()).len()
    };
    for _ in 0..30 {
        assert_eq!(append(false), 0, "nobody waits for a sync");
    }
    let made = (0..70).map(|_| append(true)).position(|count| count == 1);
    assert_eq!(made, Some(63), "so many times somebody waited");
    append(true);
    let ahead = spares(folder.path()).pop().unwrap();
    let length = ahead.metadata().unwrap().len();
    assert!(length >= SMALL + ROOM_BYTES, "it has been filled, in pieces");
    std::fs::remove_file(&ahead).unwrap();
    while files(folder.path()).unwrap().len() < 2 {
        append(true);
    }
    let without = last_file(folder.path()).metadata().unwrap().len();
    while files(folder.path()).unwrap().len() < 3 {
        append(true);
    }
    assert_eq!(last_file(folder.path()).metadata().unwrap().len(), length);
    assert_ne!(without, length, "one that was taken away is no loss");
}

#[test]
fn a_frame_that_a_file_held_before_proves_nothing() {
    let folder = folder();
    let log = open(folder.path());
    let append = |key| {
        // All of one length, so that the old ones stand where new ones would.
        log.append(key, &[7; 50]).unwrap();
        log.sync().unwrap();
    };
    (1..=60).for_each(append);
    log.remove_before(log.kept_from(61).unwrap().unwrap()).unwrap();
    (61..=65).for_each(append);
    drop(log);
    assert_eq!(keys_of_one(&open(folder.path())), [61, 62, 63, 64, 65]);
}
