//! Makes a store from a backup: the rows of its tables, and the facts that a restart needs.
//!
//! The log of such a store is empty: its history begins after the backup's seq. The store carries a
//! mark from the first row to the last, so an unfinished restore is never opened.

use super::archive::{Origin, Summary};
use super::archive_reader::{ArchiveError, ArchiveReader};
use super::tables::{self, FORMAT_VERSION, meta};
use super::touches::Touches;
use crate::clock::Millis;
use crate::protocol::Change;
use crate::storage::{Durability, Row, Space, Storage, StorageError};
use std::collections::BTreeMap;
use std::io::Read;

/// Rows in one batch.
const BATCH_ROWS: usize = 1024;
/// Bytes of rows in one batch.
const BATCH_BYTES: usize = 4 << 20;

/// The result of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The origin of the backup.
    pub origin: Origin,
    /// The contents of the backup.
    pub summary: Summary,
    /// How many keys the new store has.
    pub items: u64,
    /// How many values had already expired, and were left out.
    pub expired: u64,
    /// The new store's own id.
    pub store_id: [u8; 16],
}

/// Why a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup is damaged or truncated.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The new store cannot be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Makes a store on `disk`, which is empty, from the backup that `archive` reads. Values expired at
/// `now` are left out. `report` receives how many keys and changes, and how many bytes, have been
/// read.
pub fn restore<R: Read>(
    archive: &mut ArchiveReader<R>,
    disk: &dyn Storage,
    now: Millis,
    report: &mut dyn FnMut(u64, u64),
) -> Result<Restored, RestoreError> {
    disk.commit(vec![tables::number_row(meta::RESTORING, 1)], Durability::Fsynced)?;
    let mut rows = Rows { disk, rows: BTreeMap::new(), bytes: 0, touches: Touches::default() };
    let mut read = 0;
    while let Some(block) = archive.next_block()? {
        for change in block.changes() {
            rows.put(&change)?;
            read += 1;
        }
        report(read, archive.bytes());
    }
    rows.finish()?;
    let summary = archive.summary().unwrap_or_default();
    // A value that had expired at the time of the backup stays expired, even if this clock is
    // behind.
    let now = now.max(summary.time_ms);
    let (items, expired) = drop_expired(disk, now)?;
    disk.sync()?;
    let store_id = tables::new_store_id();
    let facts = [
        (meta::FORMAT, FORMAT_VERSION),
        (meta::CHECKPOINTED, summary.seq),
        (meta::CEILING, summary.seq),
        (meta::CLOCK, now),
    ];
    let mut last = vec![tables::store_id_row(store_id)];
    last.extend(facts.iter().map(|(name, number)| tables::number_row(name, *number)));
    last.push(Row { space: Space::Meta, key: meta::RESTORING.into(), value: None });
    disk.commit(last, Durability::Fsynced)?;
    Ok(Restored { origin: *archive.origin(), summary, items, expired, store_id })
}

/// Rows not yet written to the tables, the last one of each key.
struct Rows<'d> {
    disk: &'d dyn Storage,
    rows: BTreeMap<Vec<u8>, Row<'static>>,
    bytes: usize,
    touches: Touches,
}

impl Rows<'_> {
    fn put(&mut self, change: &Change<'_>) -> Result<(), StorageError> {
        if self.touches.note(change) {
            return if self.touches.len() >= BATCH_ROWS { self.finish() } else { Ok(()) };
        }
        self.bytes += change.key.len() + change.value.len();
        let row = tables::row(change);
        self.rows.insert(row.key.clone(), row);
        if self.rows.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes everything, with the touches last.
    fn finish(&mut self) -> Result<(), StorageError> {
        self.flush()?;
        self.touches.apply(self.disk)
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        self.bytes = 0;
        let rows: Vec<Row<'_>> = std::mem::take(&mut self.rows).into_values().collect();
        if rows.is_empty() { Ok(()) } else { self.disk.commit(rows, Durability::Buffered) }
    }
}

/// Removes expired rows; returns how many rows stay and how many were removed. Every row is read
/// back and checked on the way.
fn drop_expired(disk: &dyn Storage, now: Millis) -> Result<(u64, u64), StorageError> {
    let (mut items, mut expired, mut fault) = (0, Vec::new(), None);
    disk.scan(Space::Table, &[], &mut |key, value| match tables::decode(key, value) {
        Ok(row) if row.expires_at != 0 && row.expires_at <= now => {
            expired.push(key.to_vec());
            true
        }
        Ok(_) => {
            items += 1;
            true
        }
        Err(what) => {
            fault = Some(StorageError::new("a restored row was not read back", what));
            false
        }
    })?;
    if let Some(fault) = fault {
        return Err(fault);
    }
    for keys in expired.chunks(BATCH_ROWS) {
        let removal = |key: &Vec<u8>| Row { space: Space::Table, key: key.clone(), value: None };
        disk.commit(keys.iter().map(removal).collect(), Durability::Buffered)?;
    }
    Ok((items, expired.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::super::archive::ArchiveWriter;
    use super::*;
    use crate::protocol::{Level, Op};
    use crate::storage::MemoryStorage;

    fn set(seq: u64, key: &'static [u8], expires_at: Option<Millis>) -> Change<'static> {
        let (level, op, value) = (Level::Stored, Op::Set, b"\x01".as_slice());
        let (time_ms, index, count, covers) = (5, 0, 1, false);
        Change { seq, time_ms, level, index, count, op, covers, expires_at, key, value }
    }

    /// The keys that a restore at `now` leaves, with their seqs, and how many had expired.
    fn restored(entries: &[Change<'_>], changes: &[Change<'_>], now: Millis) -> (Vec<String>, u64) {
        let origin = Origin { store_id: [1; 16], first_seq: 5, time_ms: 1 };
        let mut writer = ArchiveWriter::begin(Vec::new(), &origin).unwrap();
        entries.iter().for_each(|entry| writer.entry(entry).unwrap());
        changes.iter().for_each(|change| writer.change(change).unwrap());
        let (bytes, _) = writer.finish(9, 2).unwrap();
        let mut archive = ArchiveReader::open(bytes.as_slice()).unwrap();
        let disk = MemoryStorage::default();
        let restored = restore(&mut archive, &disk, now, &mut |_, _| {}).unwrap();
        let mut keys = Vec::new();
        disk.scan(Space::Table, &[], &mut |key, value| {
            let row = tables::decode(key, value).unwrap();
            keys.push(format!("{} {}", String::from_utf8_lossy(row.key), row.seq));
            true
        })
        .unwrap();
        assert_eq!(keys.len() as u64, restored.items);
        let fact = |name| tables::number(&disk, name).unwrap();
        assert_eq!((fact(meta::CHECKPOINTED), fact(meta::CEILING)), (Some(9), Some(9)));
        assert_eq!((fact(meta::FORMAT), fact(meta::RESTORING)), (Some(FORMAT_VERSION), None));
        (keys, restored.expired)
    }

    #[test]
    fn a_value_expired_at_the_backup_stays_expired_where_the_clock_is_behind() {
        let entries = [set(1, b"a", Some(2)), set(2, b"b", Some(3))];
        // The backup was finished at 2.
        assert_eq!(restored(&entries, &[], 1), (vec!["b 2".to_owned()], 1));
    }

    #[test]
    fn the_last_change_of_a_key_wins() {
        let entries = [set(1, b"a", None), set(2, b"b", None), set(7, b"c", None)];
        let delete = Change { op: Op::Delete, value: b"", ..set(8, b"b", None) };
        let changes = [set(6, b"c", None), set(7, b"c", None), delete, set(9, b"a", None)];
        assert_eq!(restored(&entries, &changes, 10).0, ["a 9", "c 7"]);
    }

    #[test]
    fn a_touch_moves_an_existing_expiry_and_creates_no_key() {
        let entries = [set(1, b"a", Some(100)), set(2, b"b", None), set(3, b"d", None)];
        let touch = |seq, key, expires_at| Change {
            op: Op::Touch,
            value: b"",
            ..set(seq, key, expires_at)
        };
        let changes = [
            touch(6, b"a", None),
            touch(6, b"b", Some(100)),
            touch(6, b"c", None),
            touch(7, b"d", Some(50)),
            set(8, b"d", None),
        ];
        assert_eq!(
            restored(&entries, &changes, 100),
            (vec!["a 6".to_owned(), "d 8".to_owned()], 1)
        );
    }

    #[test]
    fn an_expired_value_is_left_out_and_no_older_value_reappears() {
        let entries = [set(1, b"a", None), set(2, b"b", Some(100)), set(3, b"c", Some(101))];
        let changes = [set(6, b"a", Some(100))];
        assert_eq!(restored(&entries, &changes, 100), (vec!["c 3".to_owned()], 2));
    }
}
