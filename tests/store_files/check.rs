//! `vatn check`: a wrong row or record is named and repaired as far as possible, and losses are
//! listed; every case with its text and its exit code.

use crate::support::offline::{NOW, State, run, serve, state};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use vatn::limits::SEQ_RESERVE;
use vatn::storage::files::CLOSED;
use vatn::storage::{Durability, FjallStorage, Row, Space, Storage};
use vatn::wal::Segment;
use vatn::wal::tables::{self, meta};

/// Keys `k00` to `k19`, twice each, in a store with several log segments.
pub fn build(folder: &Path) -> State {
    serve(folder, |engine| {
        for number in 0..40 {
            let key = format!("k{:02}", number % 20);
            run(engine, "set", vec![key.into(), format!("value {number}").into()]);
        }
        run(engine, "delete", vec!["k19".into()]);
    })
    .unwrap();
    let state = state(folder).unwrap();
    assert_eq!(state.len(), 19);
    state
}

/// Changes rows directly in the store.
pub fn tamper(folder: &Path, rows: Vec<Row<'_>>) {
    FjallStorage::open(folder).unwrap().commit(rows, Durability::Fsynced).unwrap();
}

pub fn value_of(folder: &Path, space: Space, key: &[u8]) -> Vec<u8> {
    FjallStorage::open(folder).unwrap().get(space, key).unwrap().unwrap()
}

/// The keys of the log's records.
pub fn records(folder: &Path) -> Vec<Vec<u8>> {
    let disk = FjallStorage::open(folder).unwrap();
    let mut keys = Vec::new();
    disk.scan(Space::Log, &[], &mut |key, _| {
        keys.push(key.to_vec());
        true
    })
    .unwrap();
    keys
}

/// A row with one bit of its value flipped.
pub fn flipped(folder: &Path, space: Space, key: &[u8], at: usize) -> Row<'static> {
    let mut value = value_of(folder, space, key);
    value[at] ^= 1;
    Row { space, key: key.to_vec(), value: Some(value.into()) }
}

fn check(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vatn"));
    command.arg("check").arg(folder).args(arguments).output().unwrap()
}

/// Checks; returns the exit code, the output and the messages.
pub fn said(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = check(folder, arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

pub fn well(folder: &Path) {
    let (code, out, error) = said(folder, &[]);
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
}

#[test]
fn an_undamaged_store_is_reported_as_such() {
    let folder = tempfile::tempdir().unwrap();
    build(folder.path());
    let (code, out, error) = said(folder.path(), &[]);
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(out.starts_with("19 items in the tables, "), "{out}");
    assert!(out.ends_with(", up to seq 41\n"), "{out}");
    let (_, json, _) = said(folder.path(), &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["ok"], &json["items"]), (&true.into(), &19.into()));
    assert_eq!((&json["seq"], &json["checkpointed"]), (&41.into(), &41.into()));
    well(folder.path());
}

#[test]
fn tables_newer_than_their_noted_seq_are_no_fault() {
    let folder = tempfile::tempdir().unwrap();
    build(folder.path());
    // The state after a crash between a checkpoint's rows and its facts.
    tamper(folder.path(), vec![tables::number_row(meta::CHECKPOINTED, 40)]);
    well(folder.path());
}

#[test]
fn a_flipped_row_is_named_never_served_and_repaired_from_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let whole = build(folder.path());
    let key = tables::key(b"k18");
    tamper(folder.path(), vec![flipped(folder.path(), Space::Table, &key, 25)]);
    let refusal = serve(folder.path(), |_| ()).unwrap_err().to_string();
    assert!(refusal.starts_with("row 016b3138 of the tables: its checksum"), "{refusal}");
    let (code, out, error) = said(folder.path(), &[]);
    assert_eq!(code, 1);
    let line = "wrong: row 016b3138 of the tables (key 'k18'): its checksum does not match";
    assert!(out.starts_with(line), "{out}");
    assert!(error.ends_with(": 1 fault; --repair keeps what can be read\n"), "{error}");
    let (code, out, error) = said(folder.path(), &["--repair"]);
    assert_eq!((code, error.as_str()), (0, ""), "nothing is lost");
    assert!(out.contains("mended: row 016b3138 of the tables (key 'k18'): from the log"), "{out}");
    assert!(out.contains("kept: the damaged store, in "), "{out}");
    well(folder.path());
    assert_eq!(state(folder.path()).unwrap(), whole);
}

#[test]
fn a_damaged_row_that_the_log_no_longer_has_is_listed_as_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut whole = build(folder.path());
    // Its writes are older than the retained history.
    serve(folder.path(), |engine| {
        for _ in 0..60 {
            run(engine, "set", vec!["other".into(), "x".repeat(60).into()]);
        }
    })
    .unwrap();
    let is_old = |key: &Vec<u8>| key.as_slice() < &42_u64.to_be_bytes()[..];
    let old = records(folder.path()).into_iter().filter(is_old);
    tamper(folder.path(), old.map(|key| Row { space: Space::Log, key, value: None }).collect());
    let key = tables::key(b"k03");
    tamper(folder.path(), vec![flipped(folder.path(), Space::Table, &key, 0)]);
    let (code, out, error) = said(folder.path(), &["--repair", "--json"]);
    assert_eq!(code, 3);
    assert!(error.ends_with(": 1 fault repaired: 0 mended, 1 lost\n"), "{error}");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    let lost = json["lost"].as_array().unwrap();
    assert_eq!(lost.len(), 1, "{json}");
    assert!(lost[0].as_str().unwrap().starts_with("row 016b3033 of the tables (key 'k03')"));
    well(folder.path());
    whole.remove(&b"k03"[..]).unwrap();
    let mut left = state(folder.path()).unwrap();
    left.remove(&b"other"[..]).unwrap();
    assert_eq!(left, whole);
}

#[test]
fn missing_outdated_and_resurrected_rows_are_found_by_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let whole = build(folder.path());
    let path = folder.path();
    let row = |key: &[u8], value: Option<Vec<u8>>| Row {
        space: Space::Table,
        key: tables::key(key),
        value: value.map(Into::into),
    };
    // A whole row of another key passes every checksum.
    let old = value_of(path, Space::Table, &tables::key(b"k12"));
    let rows = vec![row(b"k17", None), row(b"k18", Some(old.clone())), row(b"k19", Some(old))];
    tamper(path, rows);
    let (code, out, _) = said(path, &[]);
    assert_eq!(code, 1);
    for fault in [
        "(key 'k17'): it is missing: the log has it at seq 38",
        "(key 'k18'): it is of seq 33: the log has one of seq 39",
        "(key 'k19'): it was deleted: the log says so at seq 41",
    ] {
        assert!(out.contains(fault), "{out}");
    }
    assert_eq!(said(path, &["--repair"]).0, 0);
    well(path);
    assert_eq!(state(path).unwrap(), whole);
}

#[test]
fn a_flipped_record_is_named_and_leaves_a_hole_in_the_history() {
    let folder = tempfile::tempdir().unwrap();
    let whole = build(folder.path());
    let keys = records(folder.path());
    let key = &keys[keys.len() / 2];
    let seq = u64::from_be_bytes(key.as_slice().try_into().unwrap());
    tamper(folder.path(), vec![flipped(folder.path(), Space::Log, key, 30)]);
    let (code, out, _) = said(folder.path(), &[]);
    assert_eq!(code, 1);
    assert!(out.starts_with(&format!("wrong: record {seq:016x} of the log: its check")), "{out}");
    let (code, out, _) = said(folder.path(), &["--repair"]);
    assert_eq!(code, 3);
    let lost = format!("lost: the records of seq {seq} to {seq} from the history; the tables have");
    assert!(out.contains(&lost), "{out}");
    well(folder.path());
    assert_eq!(state(folder.path()).unwrap(), whole, "the tables have its writes");
    let left: Vec<_> = records(folder.path());
    let others: Vec<_> = keys.iter().filter(|other| *other != key).cloned().collect();
    assert!(others.ends_with(&left) && left.first() < Some(key), "the records before it stay too");
    serve(folder.path(), |engine| {
        let next = run(engine, "set", vec!["k00".into(), 1.into()]);
        assert_eq!(next, 42.into(), "no number is lost");
    })
    .unwrap();
    well(folder.path());
}

/// Removes from the tables what the log has after `seq`.
fn forget_tables(folder: &Path, seq: u64, keys: &[&[u8]]) {
    let mut rows = vec![tables::number_row(meta::CHECKPOINTED, seq)];
    for key in keys {
        rows.push(Row { space: Space::Table, key: tables::key(key), value: None });
    }
    tamper(folder, rows);
}

#[test]
fn a_damaged_record_missing_from_the_tables_is_lost_and_later_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut whole = build(folder.path());
    let path = folder.path();
    forget_tables(path, 37, &[b"k17", b"k18", b"k19"]);
    assert_eq!(state(path).unwrap(), whole, "the log has them");
    let key = 38_u64.to_be_bytes();
    tamper(path, vec![flipped(path, Space::Log, &key, 2)]);
    let refusal = serve(path, |_| ()).unwrap_err().to_string();
    assert!(refusal.starts_with("record 0000000000000026 of the log: its checksum"), "{refusal}");
    let (code, out, _) = said(path, &["--repair"]);
    assert_eq!(code, 3);
    assert!(out.contains("lost: the records of seq 38 to 38; keys that they wrote may"), "{out}");
    well(path);
    whole.remove(&b"k17"[..]).unwrap();
    assert_eq!(state(path).unwrap(), whole);
}

#[test]
fn impossible_facts_are_found_and_reset() {
    let folder = tempfile::tempdir().unwrap();
    let whole = build(folder.path());
    let path = folder.path();
    let fact = |name: &str, value: Option<&'static [u8]>| Row {
        space: Space::Meta,
        key: name.into(),
        value: value.map(Into::into),
    };
    let short: Option<&[u8]> = Some(b"short");
    tamper(path, vec![fact(meta::FORMAT, None), fact(meta::STORE_ID, short)]);
    let refusal = serve(path, |_| ()).unwrap_err().to_string();
    assert!(refusal.contains("the version of its format is missing"), "{refusal}");
    tamper(path, vec![fact(meta::CEILING, short), fact(meta::CLOCK, short)]);
    let (_, out, _) = said(path, &[]);
    for fault in ["format: it is missing", "store_id: it is not 16", "ceiling: it is not a number"]
    {
        assert!(out.contains(&format!("wrong: the store's {fault}")), "{out}");
    }
    let (code, out, _) = said(path, &["--repair"]);
    assert_eq!(code, 3);
    assert!(out.contains("lost: the store's id: it has a new one"), "{out}");
    well(path);
    assert_eq!(state(path).unwrap(), whole);
    tamper(path, vec![tables::ceiling_row(5)]);
    let (_, out, _) = said(path, &[]);
    assert!(out.contains("the store's ceiling: it is 5, and seq 41 was used"), "{out}");
}

#[test]
fn a_repair_keeps_the_facts_of_the_store() {
    let folder = tempfile::tempdir().unwrap();
    build(folder.path());
    let path = folder.path();
    let (ahead, ceiling) = (NOW + 86_400_000, 5_000);
    tamper(path, vec![tables::number_row(meta::CLOCK, ahead), tables::ceiling_row(ceiling)]);
    let fact = |name: &str| value_of(path, Space::Meta, name.as_bytes());
    let id = fact(meta::STORE_ID);
    let begins = || Segment::read_all(&FjallStorage::open(path).unwrap()).unwrap()[0].id;
    let begun = begins();
    let repair = || {
        let key = tables::key(b"k18");
        tamper(path, vec![flipped(path, Space::Table, &key, 25)]);
        assert_eq!(said(path, &["--repair"]).0, 0);
    };
    repair();
    assert_eq!(fact(meta::STORE_ID), id);
    assert_eq!(begins(), begun, "the history begins where it did");
    assert!(records(path)[0] >= begun.to_be_bytes().to_vec(), "what was trimmed is gone");
    assert_eq!(fact(meta::CLOCK), ahead.to_le_bytes(), "no time is seen twice");
    assert_eq!(fact(meta::CEILING), ceiling.to_le_bytes(), "and no number");
    tamper(path, vec![Row { space: Space::Meta, key: meta::CLOCK.into(), value: None }]);
    repair();
    assert_eq!(fact(meta::CLOCK), NOW.to_le_bytes(), "the time is set from the log");
    for kept in ["damaged-1/keyspaces", "damaged-2/keyspaces"] {
        assert!(path.join(kept).exists(), "{kept}");
    }
}

#[test]
fn a_repair_applies_touches_to_rows_of_the_log_and_of_the_tables() {
    let folder = tempfile::tempdir().unwrap();
    build(folder.path());
    let path = folder.path();
    serve(path, |engine| {
        for (key, ttl_ms) in [("k17", 1_000_000), ("k18", 2_000_000), ("k16", 3_000_000)] {
            assert_eq!(run(engine, "touch", vec![key.into(), ttl_ms.into()]), true.into());
        }
        // A change after a touch has its own time of expiry.
        run(engine, "set", vec!["k16".into(), 1.into()]);
    })
    .unwrap();
    let whole = state(path).unwrap();
    assert_eq!(whole[&b"k18"[..]].3, NOW + 2_000_000);
    let key = tables::key(b"k18");
    tamper(path, vec![flipped(path, Space::Table, &key, 25)]);
    assert_eq!(said(path, &["--repair"]).0, 0);
    well(path);
    assert_eq!(state(path).unwrap(), whole);
}

#[test]
fn a_store_with_lost_facts_assigns_no_seq_twice() {
    let folder = tempfile::tempdir().unwrap();
    let whole = build(folder.path());
    std::fs::remove_dir_all(folder.path().join("keyspaces/1")).unwrap();
    std::fs::remove_file(folder.path().join("0.jnl")).unwrap();
    let (code, out, _) = said(folder.path(), &["--repair"]);
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("lost: the store's id: it has a new one"), "{out}");
    well(folder.path());
    assert_eq!(state(folder.path()).unwrap(), whole);
    let ceiling = value_of(folder.path(), Space::Meta, meta::CEILING.as_bytes());
    let ceiling = u64::from_le_bytes(ceiling.try_into().unwrap());
    assert!(ceiling >= 41 + SEQ_RESERVE, "{ceiling}");
}

#[test]
fn a_gap_between_the_tables_and_the_log_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    build(folder.path());
    forget_tables(folder.path(), 3, &[]);
    let refusal = serve(folder.path(), |_| ()).unwrap_err().to_string();
    assert!(refusal.contains("the tables end at seq 3 and the log begins at seq"), "{refusal}");
    assert_eq!(said(folder.path(), &[]).0, 1);
}

#[test]
fn a_store_of_a_newer_format_is_refused_with_its_version() {
    let folder = tempfile::tempdir().unwrap();
    build(folder.path());
    tamper(folder.path(), vec![tables::number_row(meta::FORMAT, 3)]);
    let sentence = "the store: its format has version 3; this vatn reads version 2: \
                    use the vatn that made it";
    assert_eq!(serve(folder.path(), |_| ()).unwrap_err().to_string(), sentence);
    for arguments in [&[][..], &["--repair"]] {
        let (code, _, error) = said(folder.path(), arguments);
        assert_eq!((code, error), (1, format!("vatn: error: {sentence}\n")));
    }
}

#[test]
fn a_store_of_an_unfinished_restore_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    tamper(folder.path(), vec![tables::number_row(meta::RESTORING, 1)]);
    let sentence = "the store: it was being restored and is not whole: \
                    remove it, and restore it again";
    assert_eq!(serve(folder.path(), |_| ()).unwrap_err().to_string(), sentence);
    assert_eq!(said(folder.path(), &[]).2, format!("vatn: error: {sentence}\n"));
}

#[test]
fn the_store_of_a_running_broker_is_not_checked() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FjallStorage::open(folder.path()).unwrap();
    let (code, _, error) = said(folder.path(), &[]);
    assert_eq!(code, 1);
    assert!(error.contains("is in use: another broker has it open; stop that one"), "{error}");
    drop(disk);
}

#[test]
fn a_directory_without_a_store_is_left_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, error) = said(folder.path(), &["--repair"]);
    assert_eq!(code, 1);
    assert!(error.ends_with(": there is no store in it\n"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let (code, _, error) = said(&folder.path().join("nothing"), &[]);
    assert_eq!(code, 1);
    assert!(error.contains("it cannot be read: No such file"), "{error}");
}

/// Flips a bit in the middle of a file; returns the old and the new bytes.
fn flip_middle(file: &Path) -> (Vec<u8>, Vec<u8>) {
    let whole = std::fs::read(file).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, &bytes).unwrap();
    (whole, bytes)
}

#[test]
fn a_damaged_journal_is_named_and_loses_nothing_that_the_tables_have() {
    let folder = tempfile::tempdir().unwrap();
    let whole = build(folder.path());
    let journal = folder.path().join("0.jnl");
    let (_, bytes) = flip_middle(&journal);
    let (code, out, error) = said(folder.path(), &[]);
    assert_eq!(code, 1, "{error}");
    assert!(out.starts_with("wrong: 0.jnl: damaged at byte "), "{out}");
    assert!(out.contains("whole batches of writes follow from byte "), "{out}");
    assert_eq!(std::fs::read(&journal).unwrap(), bytes, "a check changes nothing");
    let refusal = serve(folder.path(), |_| ()).unwrap_err().to_string();
    assert!(refusal.contains("is damaged: 0.jnl: damaged at byte "), "{refusal}");
    assert_eq!(std::fs::read(&journal).unwrap(), bytes, "nor does a broker that does not start");
    let (code, out, error) = said(folder.path(), &["--repair"]);
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    assert_eq!(std::fs::read(folder.path().join("damaged-1/0.jnl")).unwrap(), bytes);
    well(folder.path());
    assert_eq!(state(folder.path()).unwrap(), whole);
}

/// The newest table file of the tables.
pub fn table_file(folder: &Path) -> PathBuf {
    let tables = Path::new("keyspaces/2/tables");
    let names = std::fs::read_dir(folder.join(tables)).unwrap();
    let ids = names.map(|name| name.unwrap().file_name().to_str().unwrap().parse::<u64>());
    tables.join(ids.map(Result::unwrap).max().unwrap().to_string())
}

#[test]
fn a_damaged_table_is_named_and_rebuilt_from_the_log_and_its_readable_rows() {
    for is_removed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let whole = build(folder.path());
        let name = table_file(folder.path());
        let file = folder.path().join(&name);
        let words = if is_removed { "it is missing" } else { "its checksum does not match" };
        match is_removed {
            true => std::fs::remove_file(&file).unwrap(),
            false => drop(flip_middle(&file)),
        }
        let (code, out, _) = said(folder.path(), &[]);
        assert_eq!(code, 1);
        assert!(out.starts_with(&format!("wrong: {}: {words}", name.display())), "{out}");
        let (code, out, _) = said(folder.path(), &["--repair"]);
        assert!(out.contains(&format!("mended: {}: made anew", name.display())), "{out}");
        assert!([0, 3].contains(&code), "{out}");
        well(folder.path());
        let ceiling = value_of(folder.path(), Space::Meta, meta::CEILING.as_bytes());
        let ceiling = u64::from_le_bytes(ceiling.try_into().unwrap());
        let is_lost = out.contains("lost: rows of the tables");
        assert!(!is_lost || ceiling >= 41 + SEQ_RESERVE, "they may have had later numbers");
        let left = state(folder.path()).unwrap();
        for (key, row) in &whole {
            let is_kept = left.get(key) == Some(row);
            assert!(is_kept || out.contains("lost: rows of the tables"), "{key:?}: {out}");
        }
    }
}

/// The only file of the log, relative to the store.
fn log_file(folder: &Path) -> PathBuf {
    let mut names = std::fs::read_dir(folder.join("log")).unwrap();
    let name = names.next().unwrap().unwrap().file_name();
    assert!(names.next().is_none());
    Path::new("log").join(name)
}

#[test]
fn a_damaged_log_keeps_every_readable_record() {
    for is_crashed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let whole = build(folder.path());
        let keys = records(folder.path());
        if is_crashed {
            std::fs::remove_file(folder.path().join(CLOSED)).unwrap();
        }
        let name = log_file(folder.path());
        let file = folder.path().join(&name);
        let (_, bytes) = flip_middle(&file);
        let (code, out, _) = said(folder.path(), &[]);
        assert_eq!(code, 1);
        assert!(out.starts_with(&format!("wrong: {}: damaged at byte ", name.display())), "{out}");
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "a check changes nothing");
        let refusal = serve(folder.path(), |_| ()).unwrap_err().to_string();
        assert!(refusal.contains(&format!("is damaged: {}: ", name.display())), "{refusal}");
        let (code, out, _) = said(folder.path(), &["--repair"]);
        assert_eq!(code, 3);
        assert!(out.contains("from the history; the tables have their writes"), "{out}");
        assert_eq!(std::fs::read(folder.path().join("damaged-1").join(&name)).unwrap(), bytes);
        well(folder.path());
        assert_eq!(state(folder.path()).unwrap(), whole, "the tables have its writes");
        let left = records(folder.path());
        assert!(left.iter().all(|key| keys.contains(key)), "{left:?} of {keys:?}");
    }
}

#[test]
fn an_interrupted_repair_is_restarted_or_completed() {
    let folder = tempfile::tempdir().unwrap();
    let whole = build(folder.path());
    let path = folder.path();
    flip_middle(&path.join("0.jnl"));
    std::fs::create_dir(path.join("repairing")).unwrap();
    std::fs::write(path.join("repairing/0.jnl"), "half").unwrap();
    assert_eq!(said(path, &["--repair"]).0, 0);
    well(path);
    // The state after a crash when the new store is complete.
    let ready = path.join("repaired-2");
    std::fs::create_dir(&ready).unwrap();
    for name in ["0.jnl", "closed", "keyspaces", "log", "version"] {
        std::fs::rename(path.join(name), ready.join(name)).unwrap();
    }
    let (code, out, _) = said(path, &[]);
    assert_eq!(code, 1);
    assert!(out.starts_with("wrong: repaired-2: a repair was cut short"), "{out}");
    assert_eq!(state(path).unwrap(), whole, "a start ends it");
    well(path);
    assert!(!ready.exists());
}

/// A loss that only the rest of the store reveals.
#[test]
fn a_log_shorter_than_its_noted_end_is_found_and_restarted() {
    for is_removed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let whole = build(folder.path());
        std::fs::remove_file(folder.path().join(CLOSED)).unwrap();
        let name = log_file(folder.path());
        let file = folder.path().join(&name);
        match is_removed {
            true => std::fs::remove_file(&file).unwrap(),
            false => {
                let length = std::fs::metadata(&file).unwrap().len();
                let file = std::fs::File::options().write(true).open(&file).unwrap();
                file.set_len(length - 1).unwrap();
            }
        }
        let words = if is_removed { "it is missing" } else { "it ends at byte " };
        let (code, out, _) = said(folder.path(), &[]);
        assert_eq!(code, 1);
        assert!(out.starts_with(&format!("wrong: {}: {words}", name.display())), "{out}");
        let (code, out, _) = said(folder.path(), &["--repair"]);
        assert_eq!(code, 3);
        assert!(out.contains("lost: the records of seq "), "{out}");
        well(folder.path());
        assert_eq!(state(folder.path()).unwrap(), whole);
        let checkpointed = value_of(folder.path(), Space::Meta, meta::CHECKPOINTED.as_bytes());
        assert_eq!(checkpointed, 41_u64.to_le_bytes(), "also what the log has not");
        assert_eq!(records(folder.path()).is_empty(), is_removed, "what can be read stays");
        serve(folder.path(), |engine| {
            run(engine, "set", vec!["k00".into(), 1.into()]);
        })
        .unwrap();
        well(folder.path());
    }
}

#[test]
fn a_read_only_directory_can_be_checked() {
    let folder = tempfile::tempdir().unwrap();
    build(folder.path());
    let permit = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(folder.path(), permissions).unwrap();
    };
    permit(0o555);
    let found = said(folder.path(), &[]);
    permit(0o755);
    assert_eq!(found.0, 0, "{found:?}");
}
