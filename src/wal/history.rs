//! The log read back: records from a seq on, checked.

use super::record::Record;
use crate::protocol::{Seq, hex};
use crate::storage::{Space, Storage, StorageError};

/// Reads the records that hold writes later than `after`, oldest first, until `each` returns false.
///
/// What is trimmed meanwhile is missing: the caller looks afterwards whether the beginning of what
/// it asked for is still held ([`super::Segments::first_seq`]).
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
