//! The undo buffer: what writes have replaced that have not reached their level, to be restored if
//! they never do. A batch that is refused half way is rolled back with it too.
//!
//! One buffer, appended to, for the same writes as a buffer of changes: both are taken together,
//! and the undo buffer is dropped when the writes have reached their level. All integers are
//! little-endian.
//!
//! ```text
//! entry  write u64 | key_len u16 | key | was u8 | [head | value_len u32 | value]
//! head   seq u64 | expires_at_ms u64 | level u8
//! ```
//!
//! `was` says whether there was an entry. If so, it says whether a value was persisted, and whether
//! the value is stored outside these bytes, as the next of the values shared with the map.

use super::map::{Entry, Head};
use crate::protocol::{Fields, Level, Seq, Shared};

/// An emptied buffer of at most this size keeps its memory for the next writes.
const SPARE_BYTES: usize = 4 << 20;

const ABSENT: u8 = 0;
const UNPERSISTED: u8 = 1;
const PERSISTED: u8 = 2;
const SHARED: u8 = 4;

/// The replaced entries, in the order of the writes.
#[derive(Debug, Default)]
pub struct Undo {
    bytes: Vec<u8>,
    /// Large values, which are shared and not copied.
    shared: Vec<Shared>,
    shared_bytes: usize,
    /// The start of the open write's entries, in both buffers.
    open_at: (usize, usize),
}

/// The entry of a key before a write changed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced<'u> {
    /// The seq of that write.
    pub by: Seq,
    /// The key.
    pub key: &'u [u8],
    /// The replaced entry; `None` where there was none.
    pub old: Option<Entry<'u>>,
}

impl Undo {
    /// Records the entry that the open write `by` is about to replace.
    pub(super) fn push(&mut self, by: Seq, key: &[u8], old: Option<Entry<'_>>) {
        self.bytes.extend_from_slice(&by.to_le_bytes());
        self.bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
        self.bytes.extend_from_slice(key);
        let Some(Entry { head, value, shared }) = old else {
            self.bytes.push(ABSENT);
            return;
        };
        let was = if head.persisted { PERSISTED } else { UNPERSISTED };
        self.bytes.push(was | if shared.is_some() { SHARED } else { 0 });
        self.bytes.extend_from_slice(&head.seq.to_le_bytes());
        self.bytes.extend_from_slice(&head.expires_at.to_le_bytes());
        self.bytes.push(head.level as u8);
        match shared {
            Some(shared) => {
                self.shared_bytes += shared.len();
                self.shared.push(Shared::clone(shared));
            }
            None => {
                self.bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
                self.bytes.extend_from_slice(value);
            }
        }
    }

    /// The bytes of memory that the buffer keeps, including large values that the map may share.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len() + self.shared_bytes
    }

    /// Closes the open write. Its entries are forgotten, unless the write has not reached its
    /// level.
    pub(super) fn end(&mut self, is_on_its_way: bool) {
        if !is_on_its_way {
            drop(self.take_open());
        }
        self.open_at = (self.bytes.len(), self.shared.len());
    }

    /// Takes the entries of the open write out of the buffer.
    pub(super) fn take_open(&mut self) -> Self {
        let (bytes, shared) = self.open_at;
        if self.bytes.len() == bytes {
            return Self::default();
        }
        let shared = self.shared.split_off(shared);
        let shared_bytes = shared.iter().map(|value| value.len()).sum();
        self.shared_bytes -= shared_bytes;
        Self { bytes: self.bytes.split_off(bytes), shared, shared_bytes, open_at: (0, 0) }
    }

    /// The emptied buffer for later writes, with its memory.
    pub fn emptied(mut self) -> Self {
        self.bytes.clear();
        let bytes = if self.bytes.capacity() > SPARE_BYTES { Vec::new() } else { self.bytes };
        Self { bytes, ..Self::default() }
    }

    /// All replaced entries, in order.
    pub fn replaced(&self) -> impl Iterator<Item = Replaced<'_>> {
        let (mut fields, mut shared) = (Fields::new(&self.bytes), self.shared.iter());
        std::iter::from_fn(move || read(&mut fields, &mut shared))
    }
}

/// Reads the next replaced entry; `None` at the end.
fn read<'u>(
    fields: &mut Fields<'u>,
    shared: &mut impl Iterator<Item = &'u Shared>,
) -> Option<Replaced<'u>> {
    let by = fields.number()?;
    let key_len = usize::from(u16::from_le_bytes(fields.take()?));
    let key = fields.slice(key_len)?;
    let old = match fields.take()? {
        [ABSENT] => None,
        [was] => {
            let head = read_head(fields, was & !SHARED == PERSISTED)?;
            Some(match was & SHARED {
                0 => Entry::new(head, read_value(fields)?),
                _ => {
                    let shared = shared.next()?;
                    Entry { head, value: shared, shared: Some(shared) }
                }
            })
        }
    };
    Some(Replaced { by, key, old })
}

fn read_value<'u>(fields: &mut Fields<'u>) -> Option<&'u [u8]> {
    let len = u32::from_le_bytes(fields.take()?) as usize;
    fields.slice(len)
}

fn read_head(fields: &mut Fields<'_>, persisted: bool) -> Option<Head> {
    let (seq, expires_at) = (fields.number()?, fields.number()?);
    let [level] = fields.take()?;
    let level = Level::from_byte(level)?;
    Some(Head { seq, expires_at, level, persisted })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(by: Seq, key: &[u8], seq: Seq) -> Replaced<'_> {
        let head = Head { seq, expires_at: seq * 10, level: Level::Stored, persisted: seq > 1 };
        let old = (seq > 0).then_some(Entry::new(head, key));
        Replaced { by, key, old }
    }

    #[test]
    fn replaced_entries_are_kept_until_their_write_reaches_its_level() {
        let all = [one(5, b"a", 1), one(5, b"", 0), one(6, b"a", 4), one(8, b"bcd", 2)];
        let mut undo = Undo::default();
        for one in &all {
            undo.push(one.by, one.key, one.old);
            undo.end(one.by != 6);
        }
        let open = one(9, b"", 3);
        undo.push(open.by, open.key, open.old);
        assert!(undo.replaced().eq([all[0], all[1], all[3], open]));
        assert!(undo.take_open().replaced().eq([open]));
        assert!(undo.replaced().eq([all[0], all[1], all[3]]));
        let mut undo = undo.emptied();
        undo.push(open.by, open.key, open.old);
        assert!(undo.replaced().eq([open]));
    }
}
