//! The log read back: records from a seq on, checked.

use super::record::Record;
use super::segments::Segments;
use crate::disk::{Disk, DiskError, Space};
use crate::wire::Seq;

/// Reads the records that hold writes later than `after`, oldest first, until `each` returns false.
///
/// A segment that was trimmed meanwhile ends the reading early: the caller compares what it got
/// with [`Segments::first_seq`].
pub fn read(
    disk: &dyn Disk,
    segments: &Segments,
    after: Seq,
    each: &mut dyn FnMut(Record) -> bool,
) -> Result<(), DiskError> {
    for id in segments.later_than(after) {
        let space = Space::Log(id);
        let key = after.saturating_add(1).to_be_bytes();
        // The write after `after` may be in the middle of a record that began before it.
        let first = disk.floor(space, &key)?.map_or_else(Vec::new, |(key, _)| key);
        let (mut goes_on, mut fault) = (true, None);
        disk.scan(space, &first, &mut |key, value| match Record::decode(value) {
            Ok(record) => {
                if record.last_seq > after {
                    goes_on = each(record);
                }
                goes_on
            }
            Err(error) => {
                let what = format!("record {} of log segment {id:016x}", hex(key));
                fault = Some(DiskError::new(&what, error));
                false
            }
        })?;
        match fault {
            Some(fault) => return Err(fault),
            None if !goes_on => return Ok(()),
            None => {}
        }
    }
    Ok(())
}

/// A key in words, for errors.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(40).map(|byte| format!("{byte:02x}")).collect()
}
