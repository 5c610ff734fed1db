//! What writes on their way to their level have replaced: the way back, should they never get
//! there. A batch that is refused half way goes back by it too.
//!
//! One buffer, appended to, for the same writes as a buffer of changes: whoever takes those along
//! takes this too, and drops it when they have reached their level. All integers are little-endian.
//!
//! ```text
//! write  seq u64 | stored u64 | synced u64 | bytes u64 | entry *
//! entry  key_len u16 | key | was u8 | [head | value_len u32 | value]
//! head   seq u64 | expires_at_ms u64 | level u8
//! ```
//!
//! `was` says whether there was an entry, and if so, whether something of it was persisted.

use super::map::{Entry, Head};
use crate::clock::Millis;
use crate::wire::{Gate, Level, Seq};

const WRITE_HEAD: usize = 8 + 8 + 8 + 8;
/// What an open write waits for: it may never be closed.
const NEVER: Seq = Seq::MAX;

const ABSENT: u8 = 0;
const UNPERSISTED: u8 = 1;
const PERSISTED: u8 = 2;

/// What writes have replaced, in the order in which they did.
#[derive(Debug, Default)]
pub struct Undo {
    bytes: Vec<u8>,
    /// Where the open write begins, or will when it replaces something.
    open_at: usize,
}

/// What was at a key before a write changed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced<'u> {
    /// The write that changed it.
    pub seq: Seq,
    /// What that write waits for.
    pub gate: Gate,
    /// The key.
    pub key: &'u [u8],
    /// What was there; `None` where nothing was.
    pub old: Option<Entry<'u>>,
}

impl Undo {
    /// Keeps what the open write `seq` is about to replace.
    pub(super) fn push(&mut self, seq: Seq, key: &[u8], old: Option<Entry<'_>>) {
        if self.bytes.len() == self.open_at {
            for number in [seq, NEVER, NEVER, u64::MAX] {
                self.bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        self.bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
        self.bytes.extend_from_slice(key);
        let Some(Entry { head, value }) = old else {
            self.bytes.push(ABSENT);
            return;
        };
        self.bytes.push(if head.persisted { PERSISTED } else { UNPERSISTED });
        self.bytes.extend_from_slice(&head.seq.to_le_bytes());
        self.bytes.extend_from_slice(&head.expires_at.to_le_bytes());
        self.bytes.push(head.level as u8);
        self.bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(value);
    }

    /// Closes the open write, which waits for `gate`. One that waits for nothing leaves no trace.
    pub(super) fn end(&mut self, gate: Gate) {
        let body = self.bytes.len().saturating_sub(self.open_at + WRITE_HEAD);
        if gate == Gate::OPEN {
            self.bytes.truncate(self.open_at);
        } else if let Some(head) = self.bytes.get_mut(self.open_at + 8..)
            && let Some(head) = head.first_chunk_mut::<{ WRITE_HEAD - 8 }>()
        {
            head[..8].copy_from_slice(&gate.stored.to_le_bytes());
            head[8..16].copy_from_slice(&gate.synced.to_le_bytes());
            head[16..].copy_from_slice(&(body as u64).to_le_bytes());
        }
        self.open_at = self.bytes.len();
    }

    /// What the open write has replaced; it is forgotten here.
    pub(super) fn take_open(&mut self) -> Self {
        Self { bytes: self.bytes.split_off(self.open_at), open_at: 0 }
    }

    /// Everything that was replaced, in that order.
    pub fn replaced(&self) -> impl Iterator<Item = Replaced<'_>> {
        Reader { rest: &self.bytes, write: None }
    }
}

struct Reader<'u> {
    rest: &'u [u8],
    /// The write that is read: its seq, its gate, and the bytes that follow it.
    write: Option<(Seq, Gate, usize)>,
}

impl<'u> Reader<'u> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    fn slice(&mut self, len: usize) -> Option<&'u [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn open_write(&mut self) -> Option<(Seq, Gate, usize)> {
        let seq = Seq::from_le_bytes(self.take()?);
        let stored = Seq::from_le_bytes(self.take()?);
        let synced = Seq::from_le_bytes(self.take()?);
        let bytes = u64::from_le_bytes(self.take()?) as usize;
        Some((seq, Gate { stored, synced, ..Gate::OPEN }, self.rest.len().saturating_sub(bytes)))
    }

    fn entry(&mut self) -> Option<Option<Entry<'u>>> {
        let [was] = self.take()?;
        if was == ABSENT {
            return Some(None);
        }
        let seq = Seq::from_le_bytes(self.take()?);
        let expires_at = Millis::from_le_bytes(self.take()?);
        let [level] = self.take()?;
        let level = Level::from_byte(level)?;
        let value_len = u32::from_le_bytes(self.take()?) as usize;
        let head = Head { seq, expires_at, level, persisted: was == PERSISTED };
        Some(Some(Entry { head, value: self.slice(value_len)? }))
    }
}

impl<'u> Iterator for Reader<'u> {
    type Item = Replaced<'u>;

    fn next(&mut self) -> Option<Replaced<'u>> {
        let write = self.write.filter(|(.., after)| self.rest.len() > *after);
        let (seq, gate, after) = write.or_else(|| self.open_write())?;
        self.write = Some((seq, gate, after));
        let key_len = usize::from(u16::from_le_bytes(self.take()?));
        let key = self.slice(key_len)?;
        Some(Replaced { seq, gate, key, old: self.entry()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: Seq, value: &[u8]) -> Entry<'_> {
        let head = Head { seq, expires_at: seq * 10, level: Level::Stored, persisted: seq > 1 };
        Entry { head, value }
    }

    #[test]
    fn what_was_replaced_comes_back_with_what_its_write_waits_for() {
        let mut undo = Undo::default();
        undo.push(5, b"a", Some(entry(1, b"one")));
        undo.push(5, b"", None);
        undo.end(Gate { synced: 5, ..Gate::OPEN });
        undo.push(6, b"a", Some(entry(2, b"")));
        undo.end(Gate::OPEN);
        undo.end(Gate { synced: 7, ..Gate::OPEN });
        undo.push(8, b"b", Some(entry(3, b"three")));
        undo.end(Gate { stored: 8, ..Gate::OPEN });
        undo.push(9, b"c", None);
        let replaced: Vec<_> = undo.replaced().collect();
        let (synced, stored) = (Gate { synced: 5, ..Gate::OPEN }, Gate { stored: 8, ..Gate::OPEN });
        let never = Gate { stored: NEVER, synced: NEVER, ..Gate::OPEN };
        let one = |seq, gate, key, old| Replaced { seq, gate, key, old };
        let want = [
            one(5, synced, &b"a"[..], Some(entry(1, b"one"))),
            one(5, synced, b"", None),
            one(8, stored, b"b", Some(entry(3, b"three"))),
            one(9, never, b"c", None),
        ];
        assert_eq!(replaced, want);
        assert_eq!(undo.take_open().replaced().collect::<Vec<_>>(), want[3..]);
        assert_eq!(undo.replaced().collect::<Vec<_>>(), want[..3]);
    }
}
