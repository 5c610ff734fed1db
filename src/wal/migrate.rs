//! A store of format 1 becomes one of format 2: its log, which was rows among the others, goes to
//! where the log is now.
//!
//! A crash at any step leaves a store that the next start goes on with: until the format says 2 the
//! rows are all there, and a copy of the first of them is only longer afterwards.

use super::segments::Segment;
use super::tables::{self, FORMAT_VERSION, meta};
use crate::storage::{Durability, Row, Space, Storage, StorageError};

/// The format whose log was rows.
pub(super) const FORMAT_ROWS: u64 = 1;
/// Rows in one batch, and their bytes.
const BATCH_ROWS: usize = 256;
const BATCH_BYTES: usize = 1 << 20;

/// Brings the store on `disk` to this format, if it has the one before. Others are refused
/// elsewhere.
pub fn migrate(disk: &dyn Storage) -> Result<(), StorageError> {
    match tables::number(disk, meta::FORMAT)? {
        Some(FORMAT_ROWS) => {
            copy(disk)?;
            disk.sync()?;
            let format = tables::number_row(meta::FORMAT, FORMAT_VERSION);
            disk.commit(vec![format], Durability::Fsynced)?;
            tracing::info!("the store has format {FORMAT_VERSION} now, and had {FORMAT_ROWS}");
            clear(disk)
        }
        Some(FORMAT_VERSION) => clear(disk),
        _ => Ok(()),
    }
}

/// Copies the records that were not copied before a crash.
fn copy(disk: &dyn Storage) -> Result<(), StorageError> {
    let copied = disk.floor(Space::Log, &u64::MAX.to_be_bytes())?.map(|(key, _)| key);
    let is_new = |key: &[u8]| copied.as_ref().is_none_or(|copied| key > copied.as_slice());
    let (mut has_rows, mut batch, mut bytes) = (false, Vec::new(), 0);
    let mut done = Ok(());
    disk.scan(Space::OldLog, &[], &mut |key, record| {
        has_rows = true;
        if is_new(key) {
            bytes += record.len();
            batch.push(row(key, Some(record), Space::Log));
        }
        if batch.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
            bytes = 0;
            done = disk.commit(std::mem::take(&mut batch), Durability::Buffered);
        }
        done.is_ok()
    })?;
    done?;
    if !batch.is_empty() {
        disk.commit(batch, Durability::Buffered)?;
    }
    match if has_rows { None } else { fault(disk)? } {
        Some(what) => Err(StorageError::new("the store", format!("is damaged: {what}"))),
        None => Ok(()),
    }
}

/// What is wrong with the log of a store of that format.
pub(super) fn fault(disk: &dyn Storage) -> Result<Option<&'static str>, StorageError> {
    let mut has_rows = false;
    disk.scan(Space::OldLog, &[], &mut |_, _| {
        has_rows = true;
        false
    })?;
    let noted = Segment::read_all(disk)?;
    let is_gone = noted.iter().any(|segment| segment.bytes > 0) && !has_rows;
    Ok(is_gone.then_some("the files of the log are gone"))
}

/// Removes the rows, which are copied now.
fn clear(disk: &dyn Storage) -> Result<(), StorageError> {
    loop {
        let mut rows = Vec::new();
        disk.scan(Space::OldLog, &[], &mut |key, _| {
            rows.push(row(key, None, Space::OldLog));
            rows.len() < BATCH_ROWS
        })?;
        match rows.is_empty() {
            true => return Ok(()),
            false => disk.commit(rows, Durability::Buffered)?,
        }
    }
}

fn row(key: &[u8], value: Option<&[u8]>, space: Space) -> Row<'static> {
    Row { space, key: key.to_vec(), value: value.map(|value| value.to_vec().into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;
    use crate::storage::memory::Batches;

    /// A store of format 1 with `count` records.
    fn old(count: u64) -> MemoryStorage {
        let disk = MemoryStorage::default();
        let record = |n: u64| row(&n.to_be_bytes(), Some(&n.to_le_bytes()), Space::OldLog);
        let mut rows: Vec<_> = (1..=count).map(record).collect();
        rows.push(tables::number_row(meta::FORMAT, FORMAT_ROWS));
        disk.commit(rows, Durability::Fsynced).unwrap();
        disk
    }

    fn keys(disk: &MemoryStorage, space: Space) -> Vec<u64> {
        let mut keys = Vec::new();
        disk.scan(space, &[], &mut |key, record| {
            keys.push(u64::from_be_bytes(key.try_into().unwrap()));
            assert_eq!(keys.last().unwrap().to_le_bytes(), record);
            true
        })
        .unwrap();
        keys
    }

    #[test]
    fn a_crash_at_any_step_loses_no_record() {
        let all: Vec<u64> = (1..=2_000).collect();
        for after in 0.. {
            let disk = old(2_000);
            disk.fail_after(after);
            let passed = migrate(&disk).is_ok();
            for log in 0..=disk.unsynced_batches().log {
                for rows in 0..=disk.unsynced_batches().rows {
                    let left = disk.after_power_loss(Batches { log, rows });
                    if tables::number(&left, meta::FORMAT).unwrap() == Some(FORMAT_ROWS) {
                        assert_eq!(keys(&left, Space::OldLog), all, "failed after {after}");
                    }
                    migrate(&left).unwrap();
                    assert_eq!(keys(&left, Space::Log), all, "failed after {after}");
                    assert!(keys(&left, Space::OldLog).is_empty());
                    let format = tables::number(&left, meta::FORMAT).unwrap();
                    assert_eq!(format, Some(FORMAT_VERSION));
                }
            }
            if passed {
                return assert!(after > 10);
            }
        }
    }
}
