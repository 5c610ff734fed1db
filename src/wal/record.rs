//! A record: one group commit, checksummed.
//!
//! ```text
//! version u8 | crc32 u32 of what follows | last_seq u64 | items u32 | writes (see `wire::change`)
//! ```

use crate::clock::Millis;
use crate::protocol::change::{Change, ChangeReader, Op};
use crate::protocol::{ChangeBuffer, Level, Seq};

/// The version of the record's format.
pub const RECORD_VERSION: u8 = 1;
const HEAD: usize = 1 + 4 + 8 + 4;

/// One group commit, in memory: the log stores it, the checkpointer applies it and the publisher
/// sends it.
#[derive(Debug)]
pub struct Record {
    /// The seq of its first write.
    pub first_seq: Seq,
    /// The seq of its last write.
    pub last_seq: Seq,
    /// The time of its last write.
    pub last_time: Millis,
    /// How many changes the record has.
    pub items: usize,
    /// The strongest level of its writes.
    pub strongest: Level,
    has_memory: bool,
    bytes: Vec<u8>,
}

/// Why bytes do not decode to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end before the record does.
    #[error("it is cut short")]
    Truncated,
    /// A newer version of vatn wrote the record.
    #[error("its format has version {0}, and this vatn reads version {RECORD_VERSION}")]
    Version(u8),
    /// The checksum does not match.
    #[error("its checksum does not match: the bytes on disk have changed")]
    Checksum,
    /// The checksum matches, but the changes cannot be read.
    #[error("its changes cannot be read")]
    Malformed,
}

impl Record {
    /// The record of everything in `pending`.
    pub fn new(pending: ChangeBuffer) -> Self {
        Self {
            first_seq: pending.first_seq(),
            last_seq: pending.last_seq(),
            last_time: pending.last_time(),
            items: pending.items(),
            strongest: pending.strongest(),
            has_memory: pending.has_memory(),
            bytes: pending.into_bytes(),
        }
    }

    /// The bytes of its writes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the record holds no write.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Its changes, including those of level `memory`.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        // This process made the bytes, or checked them when it read them.
        ChangeReader::new(&self.bytes).map_while(Result::ok)
    }

    /// Its changes as they are persisted: a `memory` write over a persisted value deletes that
    /// value and leaves no other trace.
    pub fn persisted(&self) -> impl Iterator<Item = Change<'_>> {
        self.changes().filter_map(|change| match change.level {
            Level::Memory if !change.covers || change.op == Op::Touch => None,
            Level::Memory => {
                Some(Change { op: Op::Delete, expires_at: None, value: &[], ..change })
            }
            _ => Some(change),
        })
    }

    /// The record's bytes in the log; `None` when no change of it is persisted.
    pub fn encode(&self) -> Option<Vec<u8>> {
        if !self.has_memory {
            return Some(seal(self.last_seq, self.items, &self.bytes));
        }
        let mut kept = ChangeBuffer::default();
        let mut open = None;
        for change in self.persisted() {
            match open {
                Some((seq, _)) if seq == change.seq => {}
                _ => {
                    if let Some((_, mark)) = open.take() {
                        kept.end(mark);
                    }
                    let level = change.level.max(Level::Queued);
                    open = Some((change.seq, kept.begin(change.seq, level, change.time_ms)));
                }
            }
            kept.push(change.op, change.covers, change.expires_at, change.key, change.value);
        }
        if let Some((_, mark)) = open {
            kept.end(mark);
        }
        (!kept.is_empty()).then(|| seal(self.last_seq, kept.items(), kept.bytes()))
    }

    /// Decodes a record and checks every change in it.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (version, rest) = bytes.split_first().ok_or(RecordError::Truncated)?;
        if *version != RECORD_VERSION {
            return Err(RecordError::Version(*version));
        }
        let (checksum, sealed) = rest.split_first_chunk::<4>().ok_or(RecordError::Truncated)?;
        if crc32fast::hash(sealed) != u32::from_le_bytes(*checksum) {
            return Err(RecordError::Checksum);
        }
        let (last_seq, rest) = sealed.split_first_chunk::<8>().ok_or(RecordError::Truncated)?;
        let (items, body) = rest.split_first_chunk::<4>().ok_or(RecordError::Truncated)?;
        let (mut first_seq, mut last_time) = (None, 0);
        let mut strongest = Level::Memory;
        for change in ChangeReader::new(body) {
            let change = change.map_err(|_| RecordError::Malformed)?;
            first_seq.get_or_insert(change.seq);
            last_time = change.time_ms;
            strongest = strongest.max(change.level);
        }
        let last_seq = Seq::from_le_bytes(*last_seq);
        Ok(Self {
            first_seq: first_seq.unwrap_or(last_seq),
            last_seq,
            last_time,
            items: u32::from_le_bytes(*items) as usize,
            strongest,
            has_memory: false,
            bytes: body.to_vec(),
        })
    }
}

fn seal(last_seq: Seq, items: usize, body: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(HEAD + body.len());
    sealed.push(RECORD_VERSION);
    sealed.extend_from_slice(&[0; 4]);
    sealed.extend_from_slice(&last_seq.to_le_bytes());
    sealed.extend_from_slice(&(items as u32).to_le_bytes());
    sealed.extend_from_slice(body);
    let checksum = crc32fast::hash(sealed.get(5..).unwrap_or_default()).to_le_bytes();
    if let Some(slot) = sealed.get_mut(1..5) {
        slot.copy_from_slice(&checksum);
    }
    sealed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Record {
        let mut pending = ChangeBuffer::default();
        let mark = pending.begin(1, Level::Synced, 10);
        pending.push(Op::Set, false, None, b"a", b"\x01");
        pending.push(Op::Set, false, Some(99), b"b", b"\x02");
        pending.end(mark);
        let mark = pending.begin(2, Level::Memory, 11);
        pending.push(Op::Set, true, None, b"a", b"\x03");
        pending.push(Op::Set, false, None, b"c", b"\x04");
        pending.end(mark);
        Record::new(pending)
    }

    #[test]
    fn a_memory_write_is_logged_only_as_the_deletion_of_what_it_hides() {
        let decoded = Record::decode(&sample().encode().unwrap()).unwrap();
        let kept: Vec<_> = decoded.changes().map(|c| (c.seq, c.op, c.key.to_vec())).collect();
        let want = [
            (1, Op::Set, b"a".to_vec()),
            (1, Op::Set, b"b".to_vec()),
            (2, Op::Delete, b"a".to_vec()),
        ];
        assert_eq!(kept, want);
        assert_eq!((decoded.first_seq, decoded.last_seq, decoded.items), (1, 2, 3));
    }

    #[test]
    fn a_flipped_bit_and_a_truncated_record_are_found() {
        let sealed = sample().encode().unwrap();
        for position in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[position] ^= 0x10;
            assert!(Record::decode(&damaged).is_err(), "flipped at {position}");
            assert!(Record::decode(&sealed[..position]).is_err(), "cut at {position}");
        }
    }
}
