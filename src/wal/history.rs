//! Reads the history from the log: records from a seq on, checked.

use super::record::Record;
use crate::protocol::{Seq, hex};
use crate::storage::{Space, Storage, StorageError};

/// Reads the records that hold writes later than `after`, oldest first, until `each` returns false.
///
/// Records trimmed meanwhile are missing: the caller checks afterwards whether the log still holds
/// the beginning of the requested range ([`super::Segments::first_seq`]).
pub fn read(
    disk: &dyn Storage,
    after: Seq,
    each: &mut dyn FnMut(Record, usize) -> bool,
) -> Result<(), StorageError> {
    let key = after.saturating_add(1).to_be_bytes();
    // The write after `after` may be in the middle of a record that began before it.
    let first = disk.floor(Space::Log, &key)?.map_or_else(Vec::new, |(key, _)| key);
    let mut fault = None;
    disk.scan(Space::Log, &first, &mut |key, value| match Record::decode(value) {
        Ok(record) => record.last_seq <= after || each(record, value.len()),
        Err(error) => {
            fault = Some(StorageError::new(&format!("record {} of the log", hex(key)), error));
            false
        }
    })?;
    fault.map_or(Ok(()), Err)
}
