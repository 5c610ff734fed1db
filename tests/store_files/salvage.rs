//! How a repair treats rows that are in the tables, in the log, or in only one of them; and how it
//! reports rows that may be older than a lost one.

use super::check::{build, flipped, said, table_file, tamper, value_of, well};
use crate::support::offline::{run, serve, state};
use rmpv::Value;
use std::path::Path;
use vatn::protocol::{Change, Level, Op};
use vatn::storage::{Row, Space};
use vatn::wal::tables;

/// The report where it is not known which rows are missing.
const UNKNOWN: &str = "lost: rows of the tables, it is not known which";

fn damage_record(folder: &Path, seq: u64) {
    tamper(folder, vec![flipped(folder, Space::Log, &seq.to_be_bytes(), 30)]);
}

/// Removes the journal too, which has the same rows.
fn remove_tables(folder: &Path) {
    std::fs::remove_file(folder.join("0.jnl")).unwrap();
    std::fs::remove_file(folder.join(table_file(folder))).unwrap();
}

#[test]
fn a_key_whose_deletion_the_log_lost_does_not_reappear() {
    let folder = tempfile::tempdir().unwrap();
    let whole = build(folder.path());
    assert!(!whole.contains_key(&b"k19"[..]), "the log has it at seq 40, and its removal at 41");
    damage_record(folder.path(), 41);
    let (code, out, _) = said(folder.path(), &["--repair"]);
    assert_eq!(code, 3, "{out}");
    well(folder.path());
    assert_eq!(state(folder.path()).unwrap(), whole);
}

#[test]
fn a_row_that_a_lost_record_may_have_replaced_is_kept_and_listed() {
    let folder = tempfile::tempdir().unwrap();
    let mut whole = build(folder.path());
    // The row of `k17`, which the log has at seq 18 too.
    damage_record(folder.path(), 38);
    remove_tables(folder.path());
    let (code, out, _) = said(folder.path(), &["--repair"]);
    assert_eq!(code, 3, "{out}");
    let is_listed = |key: &str| {
        out.contains(&format!("(key '{key}'): what it has may be older than what was lost"))
    };
    assert!(is_listed("k17") && is_listed("k10"), "{out}");
    assert!(!is_listed("k18") && !is_listed("k19"), "nothing after them is lost: {out}");
    assert!(out.contains("mended: ") && out.contains(UNKNOWN), "{out}");
    well(folder.path());
    let left = state(folder.path()).unwrap();
    let value = |bytes: &[u8]| rmpv::decode::read_value(&mut &bytes[..]).unwrap();
    assert_eq!(value(&left[&b"k17"[..]].0), "value 17".into());
    whole.remove(&b"k17"[..]).unwrap();
    assert!(whole.iter().all(|(key, row)| left.get(key) == Some(row)), "{out}");
}

#[test]
fn a_hundred_possibly_outdated_rows_are_listed_and_the_others_counted() {
    let folder = tempfile::tempdir().unwrap();
    serve(folder.path(), |engine| {
        let pair = |number: u64| Value::Array(vec![format!("k{number:03}").into(), number.into()]);
        let pairs: Vec<Value> = (0..150).map(pair).collect();
        run(engine, "set_multi", vec![Value::Array(pairs)]);
        run(engine, "set", vec!["other".into(), 1.into()]);
    })
    .unwrap();
    damage_record(folder.path(), 2);
    remove_tables(folder.path());
    let (code, out, _) = said(folder.path(), &["--repair"]);
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("mended: 150 rows of the tables: from the log"), "{out}");
    let listed = out.lines().filter(|line| line.contains("what it has may be older")).count();
    assert_eq!(listed, 100, "{out}");
    assert!(out.contains("lost: 50 more rows may be older than what was lost"), "{out}");
    well(folder.path());
    assert_eq!(state(folder.path()).unwrap().len(), 150);
}

#[test]
fn a_row_with_an_invalid_value_is_rebuilt_from_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let whole = build(folder.path());
    let (level, op, key) = (Level::Stored, Op::Set, b"k18".as_slice());
    let (seq, time_ms, index, count, covers, expires_at) = (39, 0, 0, 1, false, None);
    // The checksum is right, and the value is an array without its element.
    let value = b"\x91".as_slice();
    let change = Change { seq, time_ms, level, index, count, op, covers, expires_at, key, value };
    let row = tables::row(&change);
    let bytes = row.value.as_ref().unwrap().clone().into_owned();
    tamper(folder.path(), vec![Row { value: Some(bytes.clone().into()), ..row }]);
    assert_eq!(value_of(folder.path(), Space::Table, &tables::key(b"k18")), bytes);
    let (code, out, _) = said(folder.path(), &["--repair"]);
    assert_eq!(code, 0, "{out}");
    well(folder.path());
    let values = |state: &crate::support::offline::State| -> Vec<_> {
        state.iter().map(|(key, row)| (key.clone(), row.0.clone())).collect()
    };
    assert_eq!(values(&state(folder.path()).unwrap()), values(&whole));
}
