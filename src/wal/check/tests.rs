//! Which faults a check finds in stores that pass every checksum, and what it accepts.

use super::*;
use crate::limits::SEQ_RESERVE;
use crate::protocol::{ChangeBuffer, Level};
use crate::storage::{Durability, MemoryStorage, Row};

/// A change buffer of sets, without a delete.
type Write<'w> = (Seq, &'w [u8], Option<&'w [u8]>);

fn buffer(writes: &[Write<'_>]) -> ChangeBuffer {
    let mut pending = ChangeBuffer::default();
    for (seq, key, value) in writes {
        let mark = pending.begin(*seq, Level::Queued, 10);
        let op = if value.is_some() { Op::Set } else { Op::Delete };
        pending.push(op, false, None, key, value.unwrap_or_default());
        pending.end(mark);
    }
    pending
}

fn record(writes: &[Write<'_>]) -> Vec<u8> {
    Record::new(buffer(writes)).encode().unwrap()
}

/// A record with a changed header and a correct checksum.
fn resealed(mut record: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    record[at] = byte;
    let checksum = crc32fast::hash(&record[5..]).to_le_bytes();
    record[1..5].copy_from_slice(&checksum);
    record
}

/// An empty store whose tables are complete up to seq 5.
fn store() -> MemoryStorage {
    let disk = MemoryStorage::default();
    let rows = vec![
        tables::number_row(meta::FORMAT, FORMAT_VERSION),
        tables::store_id_row([7; 16]),
        tables::number_row(meta::CHECKPOINTED, 5),
        tables::ceiling_row(100),
        Segment::new(1).row(),
    ];
    disk.commit(rows, Durability::Fsynced).unwrap();
    disk
}

fn log(disk: &MemoryStorage, key: Seq, record: Vec<u8>) {
    let key = key.to_be_bytes().to_vec();
    disk.commit(
        vec![Row { space: Space::Log, key, value: Some(record.into()) }],
        Durability::Fsynced,
    )
    .unwrap();
}

fn rows(disk: &MemoryStorage, writes: &[Write<'_>]) {
    let pending = buffer(writes);
    let record = Record::new(pending);
    disk.commit(record.changes().map(|change| tables::row(&change)).collect(), Durability::Fsynced)
        .unwrap();
}

/// The faults, in words.
fn faults(disk: &MemoryStorage) -> Vec<String> {
    let checked = check(disk, &mut |_| {}).unwrap();
    checked.faults.iter().map(|fault| format!("{}: {}", fault.place, fault.what)).collect()
}

const ONE: Option<&[u8]> = Some(b"\x01");

#[test]
fn a_store_that_matches_its_log_has_no_fault() {
    let disk = store();
    log(&disk, 1, record(&[(1, b"a", ONE), (2, b"b", ONE), (3, b"a", None)]));
    rows(&disk, &[(2, b"b", ONE)]);
    assert_eq!(faults(&disk), Vec::<String>::new());
}

#[test]
fn a_record_that_contradicts_itself_is_a_fault() {
    let two = || record(&[(2, b"a", ONE), (3, b"b", ONE)]);
    let unpacked = record(&[(2, b"a", Some(b"\x91"))]);
    for (key, record, what) in [
        (3, two(), "its seqs are not where they belong"),
        (2, resealed(two(), 5, 1), "its seqs are not where they belong"),
        (2, resealed(two(), 5, 2), "its writes are not in order"),
        (
            2,
            record(&[(3, b"b", ONE), (2, b"a", ONE), (3, b"c", ONE)]),
            "its writes are not in order",
        ),
        (2, resealed(two(), 13, 3), "it has another number of changes than it says"),
        (2, unpacked, "a value in it is not MessagePack"),
    ] {
        let disk = store();
        log(&disk, key, record);
        rows(&disk, &[(2, b"a", ONE), (3, b"b", ONE)]);
        assert_eq!(faults(&disk), [format!("record {key:016x} of the log: {what}")]);
    }
}

#[test]
fn a_row_that_does_not_decode_is_a_fault() {
    let disk = store();
    rows(&disk, &[(2, b"a", Some(b"\x91"))]);
    assert_eq!(faults(&disk), ["row 0161 of the tables (key 'a'): its value is not MessagePack"]);
}

#[test]
fn a_segment_whose_end_differs_from_its_note_is_a_fault() {
    let disk = store();
    log(&disk, 1, record(&[(1, b"a", ONE), (2, b"b", ONE)]));
    rows(&disk, &[(1, b"a", ONE), (2, b"b", ONE)]);
    let note = |last_seq| Segment { id: 1, last_seq, last_time: 10, bytes: 50 }.row();
    disk.commit(vec![note(2), Segment::new(3).row()], Durability::Fsynced).unwrap();
    assert_eq!(faults(&disk), Vec::<String>::new());
    disk.commit(vec![note(4)], Durability::Fsynced).unwrap();
    let what =
        "the store's note on log segment 0000000000000001: it ends at seq 2, and should at 4";
    assert_eq!(faults(&disk), [what]);
}

#[test]
fn a_record_before_the_first_segment_is_skipped() {
    let disk = store();
    log(&disk, 1, record(&[(1, b"a", ONE), (2, b"b", ONE)]));
    // Nothing of seq 3 is left, so this record is read on the way to the next one.
    log(&disk, 4, record(&[(4, b"c", ONE)]));
    let forget = Row { value: None, ..Segment::new(1).row() };
    disk.commit(vec![forget, Segment::new(3).row()], Durability::Fsynced).unwrap();
    rows(&disk, &[(4, b"c", ONE)]);
    assert_eq!(faults(&disk), Vec::<String>::new());
    log(&disk, 1, b"damaged".to_vec());
    assert_eq!(faults(&disk).len(), 1, "an unreadable record is reported");
}

#[test]
fn a_write_after_the_last_checkpoint_may_be_missing_from_the_tables() {
    let disk = store();
    log(&disk, 1, record(&[(1, b"a", ONE), (2, b"b", ONE), (6, b"a", ONE), (7, b"c", ONE)]));
    rows(&disk, &[(2, b"b", ONE)]);
    assert_eq!(faults(&disk), Vec::<String>::new(), "writes after seq 5 may be there or not");
}

#[test]
fn a_row_that_lacks_a_touch_is_found() {
    let mut pending = buffer(&[(1, b"a", ONE)]);
    let mark = pending.begin(2, Level::Queued, 10);
    pending.push(Op::Touch, false, Some(99), b"a", b"");
    pending.end(mark);
    let disk = store();
    log(&disk, 1, Record::new(pending).encode().unwrap());
    rows(&disk, &[(1, b"a", ONE)]);
    let what = "row 0161 of the tables (key 'a'): it is of seq 1: the log has one of seq 2";
    assert_eq!(faults(&disk), [what]);
    rows(&disk, &[(2, b"a", ONE)]);
    assert_eq!(faults(&disk), Vec::<String>::new());
}

#[test]
fn rows_that_an_unreadable_record_may_have_deleted_are_no_fault() {
    let disk = store();
    log(&disk, 1, record(&[(1, b"a", ONE)]));
    log(&disk, 2, b"damaged".to_vec());
    log(&disk, 3, record(&[(3, b"c", ONE)]));
    let found = faults(&disk);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("record 0000000000000002 of the log: "), "{found:?}");
    assert!(found[1].ends_with("(key 'c'): it is missing: the log has it at seq 3"), "{found:?}");
}

#[test]
fn a_log_may_begin_right_after_the_tables_or_far_from_them() {
    let begins = |first: Seq| tables::gap(Some(first), 5).is_none();
    assert!(tables::gap(None, 5).is_none() && begins(1) && begins(5) && begins(6));
    assert!(!begins(7) && !begins(100), "something lay between");
    assert!(begins(5 + SEQ_RESERVE / 2), "a crash skips this many seqs");
}
