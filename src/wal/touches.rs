//! Touches to be applied to rows of the tables: a touch changes the time of expiry of a value, and
//! does not carry the value.

use super::tables;
use crate::clock::Millis;
use crate::protocol::{Change, Level, Op, Seq};
use crate::storage::{Durability, Space, Storage, StorageError};
use std::collections::BTreeMap;

/// Bytes of rows in one batch; one row always fits.
const BATCH_BYTES: usize = 4 << 20;

/// The last touch of each key, where no other change followed it.
#[derive(Debug, Default)]
pub struct Touches {
    last: BTreeMap<Vec<u8>, Touch>,
}

#[derive(Debug)]
struct Touch {
    seq: Seq,
    level: Level,
    expires_at: Option<Millis>,
}

impl Touches {
    /// Notes a change; changes come in order. Returns whether the change is a touch, whose row is
    /// not known here; of any other change the caller has the row.
    pub fn note(&mut self, change: &Change<'_>) -> bool {
        // Older versions stored the value with a touch.
        if change.op != Op::Touch || !change.value.is_empty() {
            self.last.remove(change.key);
            return false;
        }
        let Change { seq, level, expires_at, .. } = *change;
        self.last.insert(change.key.to_vec(), Touch { seq, level, expires_at });
        true
    }

    /// How many keys are touched.
    pub fn len(&self) -> usize {
        self.last.len()
    }

    /// Applies the touches to the rows on `disk`, and forgets them. A key without a row stays
    /// without.
    pub fn apply(&mut self, disk: &dyn Storage) -> Result<(), StorageError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for (key, touch) in std::mem::take(&mut self.last) {
            let row_key = tables::key(&key);
            let Some(found) = disk.get(Space::Table, &row_key)? else { continue };
            let row = tables::decode(&row_key, &found);
            let row = row.map_err(|what| StorageError::new("a row that was touched", what))?;
            let Touch { seq, level, expires_at } = touch;
            let (level, value) = (level.max(Level::Queued), row.value);
            if row.seq >= seq {
                continue;
            }
            let (op, time_ms, index, count, covers) = (Op::Set, 0, 0, 1, false);
            let key = row.key;
            let change =
                Change { seq, time_ms, level, index, count, op, covers, expires_at, key, value };
            bytes += value.len();
            rows.push(tables::row(&change));
            if bytes >= BATCH_BYTES {
                bytes = 0;
                disk.commit(std::mem::take(&mut rows), Durability::Buffered)?;
            }
        }
        if rows.is_empty() { Ok(()) } else { disk.commit(rows, Durability::Buffered) }
    }
}
