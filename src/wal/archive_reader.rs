//! Reads a backup block by block, and checks each block before it uses anything in it.

use super::archive::{ARCHIVE_VERSION, BLOCK_HEAD, Kind, MAGIC, Origin, Summary, checksum};
use crate::limits::{KEY_BYTES_MAX, KEY_RESERVED};
use crate::protocol::change::ChangeReader;
use crate::protocol::{Change, Fields, Level, Op, Reader, Seq};
use std::io::{self, Read};

/// Why a file is not a whole backup.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file is not a backup.
    #[error("it is not a backup: it does not begin as one")]
    NotABackup,
    /// A newer version of vatn wrote the file.
    #[error("its format has version {0}, and this vatn reads version {ARCHIVE_VERSION}")]
    Version(u8),
    /// The file was changed or truncated.
    #[error("block {block}, at byte {offset}: {what}")]
    Damaged {
        /// The number of the block, from 0.
        block: u64,
        /// The offset of the block.
        offset: u64,
        /// The fault.
        what: &'static str,
    },
}

const CUT_SHORT: &str = "it is cut short";

/// A block of entries or changes, complete and checked.
#[derive(Debug)]
pub struct Block {
    /// The kind of the block.
    pub kind: Kind,
    body: Vec<u8>,
}

impl Block {
    /// The changes of the block, in order.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        // The block was checked when it was read.
        ChangeReader::new(&self.body).map_while(Result::ok)
    }
}

/// Reads a backup.
#[derive(Debug)]
pub struct ArchiveReader<R> {
    input: R,
    whole: crc32fast::Hasher,
    /// The block being read, and its offset.
    block: u64,
    offset: u64,
    /// The current offset.
    bytes: u64,
    origin: Origin,
    seen: Seen,
    summary: Option<Summary>,
}

/// The counts that the trailer must match.
#[derive(Debug, Default)]
struct Seen {
    entries: u64,
    changes: u64,
    last_seq: Seq,
    last_change: Seq,
}

impl<R: Read> ArchiveReader<R> {
    /// Opens a backup: reads its first bytes and its origin.
    pub fn open(input: R) -> Result<Self, ArchiveError> {
        let origin = Origin { store_id: [0; 16], first_seq: 0, time_ms: 0 };
        let (whole, seen) = (crc32fast::Hasher::new(), Seen::default());
        let mut reader =
            Self { input, whole, block: 0, offset: 0, bytes: 0, origin, seen, summary: None };
        let head = reader.take(MAGIC.len() + 1)?;
        match head.split_last() {
            Some((version, magic)) if magic == MAGIC => match *version {
                ARCHIVE_VERSION => {}
                other => return Err(ArchiveError::Version(other)),
            },
            _ => return Err(ArchiveError::NotABackup),
        }
        let (kind, body) = reader.read_block()?;
        reader.origin = match (kind, Fields::new(&body)) {
            (Kind::Origin, fields) => reader.fields(fields, |fields| {
                let store_id = fields.take::<16>()?;
                let (first_seq, time_ms) = (fields.number()?, fields.number()?);
                Some(Origin { store_id, first_seq, time_ms })
            })?,
            _ => return Err(reader.damaged("it is not where a backup comes from")),
        };
        Ok(reader)
    }

    /// The origin of the backup.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// How many bytes of the file have been read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next block; `None` after the last block, when the whole file has been checked.
    pub fn next_block(&mut self) -> Result<Option<Block>, ArchiveError> {
        if self.summary.is_some() {
            return Ok(None);
        }
        let whole = self.whole.clone().finalize();
        let (kind, body) = self.read_block()?;
        match kind {
            Kind::Origin => Err(self.damaged("it is a second beginning")),
            Kind::Trailer => {
                self.end(&body, whole)?;
                Ok(None)
            }
            Kind::Entries | Kind::Changes => {
                for change in ChangeReader::new(&body) {
                    let change = change.map_err(|_| self.damaged("it cannot be read"))?;
                    self.check(kind, &change).map_err(|what| self.damaged(what))?;
                }
                Ok(Some(Block { kind, body }))
            }
        }
    }

    /// The contents of the backup; known after the last block.
    pub fn summary(&self) -> Option<Summary> {
        self.summary
    }

    /// Reads and checks the rest of the file.
    pub fn verify(
        mut self,
        report: &mut dyn FnMut(u64, u64),
    ) -> Result<(Origin, Summary), ArchiveError> {
        while self.next_block()?.is_some() {
            report(self.seen.entries + self.seen.changes, self.bytes);
        }
        Ok((self.origin, self.summary.unwrap_or_default()))
    }

    fn check(&mut self, kind: Kind, change: &Change<'_>) -> Result<(), &'static str> {
        let seen = &mut self.seen;
        if change.key.len() > KEY_BYTES_MAX || change.key.first() == Some(&KEY_RESERVED) {
            return Err("a key in it is none");
        }
        if change.level == Level::Memory {
            return Err("a value in it was not to be kept");
        }
        let has_value = change.op == Op::Set || !change.value.is_empty();
        if has_value && !is_value(change.value) {
            return Err("a value in it is not MessagePack");
        }
        seen.last_seq = seen.last_seq.max(change.seq);
        if kind == Kind::Changes {
            let is_next = change.seq > self.origin.first_seq && change.seq >= seen.last_change;
            seen.changes += 1;
            seen.last_change = change.seq;
            return if is_next { Ok(()) } else { Err("its changes are not in order") };
        }
        // Entries may come in any order: the last one of a key holds. The checksums show an entry
        // that is missing or out of place.
        seen.entries += 1;
        if change.op == Op::Set { Ok(()) } else { Err("an entry in it is none") }
    }

    fn end(&mut self, body: &[u8], whole: u32) -> Result<(), ArchiveError> {
        let read = |fields: &mut Fields<'_>| {
            let (seq, entries, changes) = (fields.number()?, fields.number()?, fields.number()?);
            let (time_ms, checksum) = (fields.number()?, fields.take::<4>()?);
            let bytes = 0;
            Some((Summary { seq, entries, changes, time_ms, bytes }, u32::from_le_bytes(checksum)))
        };
        let (summary, checksum) = self.fields(Fields::new(body), read)?;
        let agrees = checksum == whole
            && (summary.entries, summary.changes) == (self.seen.entries, self.seen.changes)
            && summary.seq >= self.seen.last_seq.max(self.origin.first_seq);
        if !agrees {
            return Err(self.damaged("the whole is not what it says: blocks are missing"));
        }
        if self.input.read(&mut [0])? != 0 {
            return Err(self.damaged("something follows the end"));
        }
        self.summary = Some(Summary { bytes: self.bytes, ..summary });
        Ok(())
    }

    fn read_block(&mut self) -> Result<(Kind, Vec<u8>), ArchiveError> {
        if self.bytes > MAGIC.len() as u64 + 1 {
            self.block += 1;
        }
        self.offset = self.bytes;
        let head = self.take(BLOCK_HEAD)?;
        let mut fields = Fields::new(&head);
        let (kind, len, expected) = (fields.take::<1>(), fields.take::<4>(), fields.take::<4>());
        let kind = kind.and_then(|[kind]| Kind::from_byte(kind));
        let (Some(kind), Some(len), Some(expected)) = (kind, len, expected) else {
            return Err(self.damaged("it is of no known kind"));
        };
        let body = self.take(u32::from_le_bytes(len) as usize)?;
        if checksum(kind, &body) != u32::from_le_bytes(expected) {
            return Err(self.damaged("its checksum does not match: the bytes have changed"));
        }
        Ok((kind, body))
    }

    /// Reads `len` bytes. Memory is allocated as the bytes arrive, whatever length a block claims.
    fn take(&mut self, len: usize) -> Result<Vec<u8>, ArchiveError> {
        let mut bytes = Vec::new();
        (&mut self.input).take(len as u64).read_to_end(&mut bytes)?;
        self.whole.update(&bytes);
        self.bytes += bytes.len() as u64;
        if bytes.len() < len {
            return Err(match self.bytes < (MAGIC.len() + 1) as u64 {
                true => ArchiveError::NotABackup,
                false => self.damaged(CUT_SHORT),
            });
        }
        Ok(bytes)
    }

    fn fields<T>(
        &self,
        mut fields: Fields<'_>,
        read: impl FnOnce(&mut Fields<'_>) -> Option<T>,
    ) -> Result<T, ArchiveError> {
        let value = read(&mut fields);
        value.filter(|_| fields.is_empty()).ok_or_else(|| self.damaged("it has another length"))
    }

    fn damaged(&self, what: &'static str) -> ArchiveError {
        ArchiveError::Damaged { block: self.block, offset: self.offset, what }
    }
}

/// Whether `bytes` are exactly one MessagePack value.
pub fn is_value(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    reader.value().is_ok() && reader.is_empty()
}

#[cfg(test)]
mod tests {
    use super::super::archive::ArchiveWriter;
    use super::*;

    fn set<'a>(seq: Seq, key: &'a [u8], value: &'a [u8]) -> Change<'a> {
        let (level, op) = (Level::Stored, Op::Set);
        let expires_at = (seq == 2).then_some(9_000);
        let (time_ms, index, count, covers) = (5, 0, 1, false);
        Change { seq, time_ms, level, index, count, op, covers, expires_at, key, value }
    }

    const ORIGIN: Origin = Origin { store_id: [7; 16], first_seq: 3, time_ms: 1_000 };

    fn sample() -> Vec<u8> {
        let mut writer = ArchiveWriter::begin(Vec::new(), &ORIGIN).unwrap();
        writer.entry(&set(1, b"", b"\xa1x")).unwrap();
        writer.entry(&set(2, b"b", b"\x02")).unwrap();
        writer.change(&set(4, b"b", b"\x03")).unwrap();
        let delete = Change { op: Op::Delete, value: b"", ..set(5, b"c", b"") };
        writer.change(&delete).unwrap();
        let hidden = Change { level: Level::Memory, ..set(6, b"d", b"\x01") };
        writer.change(&hidden).unwrap();
        writer.entry(&set(4, b"b", b"\x03")).unwrap();
        let (bytes, summary) = writer.finish(8, 2_000).unwrap();
        assert_eq!(summary.bytes, bytes.len() as u64);
        bytes
    }

    fn verify(bytes: &[u8]) -> Result<(Origin, Summary), ArchiveError> {
        ArchiveReader::open(bytes)?.verify(&mut |_, _| {})
    }

    #[test]
    fn entries_and_changes_are_read_back_in_order() {
        let bytes = sample();
        let mut reader = ArchiveReader::open(bytes.as_slice()).unwrap();
        assert_eq!(*reader.origin(), ORIGIN);
        let mut read = Vec::new();
        while let Some(block) = reader.next_block().unwrap() {
            for change in block.changes() {
                read.push((block.kind, change.seq, change.op, change.key.to_vec()));
            }
        }
        let want = [
            (Kind::Entries, 1, Op::Set, b"".to_vec()),
            (Kind::Entries, 2, Op::Set, b"b".to_vec()),
            (Kind::Changes, 4, Op::Set, b"b".to_vec()),
            (Kind::Changes, 5, Op::Delete, b"c".to_vec()),
            (Kind::Changes, 6, Op::Delete, b"d".to_vec()),
            (Kind::Entries, 4, Op::Set, b"b".to_vec()),
        ];
        assert_eq!(read, want);
        let bytes = bytes.len() as u64;
        let whole = Summary { seq: 8, entries: 3, changes: 3, time_ms: 2_000, bytes };
        assert_eq!(reader.summary(), Some(whole));
    }

    #[test]
    fn an_entry_may_be_repeated_after_later_keys() {
        let mut writer = ArchiveWriter::begin(Vec::new(), &ORIGIN).unwrap();
        for (seq, key) in [(1, b"a"), (1, b"b"), (2, b"a"), (2, b"c")] {
            writer.entry(&set(seq, key, b"\x02")).unwrap();
        }
        let (bytes, summary) = writer.finish(8, 2_000).unwrap();
        assert_eq!(verify(&bytes).unwrap().1, summary);
        let mut reader = ArchiveReader::open(bytes.as_slice()).unwrap();
        let blocks = std::iter::from_fn(|| reader.next_block().unwrap());
        assert_eq!(blocks.map(|block| block.changes().count()).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn entries_out_of_order_within_a_block_are_accepted() {
        let block = |kind: Kind, body: &[u8]| {
            let (length, sum) = (body.len() as u32, checksum(kind, body));
            [&[kind as u8][..], &length.to_le_bytes(), &sum.to_le_bytes(), body].concat()
        };
        let mut entries = crate::protocol::ChangeBuffer::default();
        for (seq, key) in [(1, b"b"), (2, b"a")] {
            let entry = set(seq, key, b"\x02");
            let mark = entries.begin(entry.seq, entry.level, entry.time_ms);
            entries.push(entry.op, false, entry.expires_at, entry.key, entry.value);
            entries.end(mark);
        }
        let head = &sample()[..MAGIC.len() + 1 + BLOCK_HEAD + 32];
        let mut bytes = [head, &block(Kind::Entries, entries.bytes())].concat();
        let numbers = [8_u64, 2, 0, 2_000].map(u64::to_le_bytes).concat();
        let sum = crc32fast::hash(&bytes).to_le_bytes();
        bytes.extend(block(Kind::Trailer, &[&numbers[..], &sum].concat()));
        assert_eq!(verify(&bytes).unwrap().1.entries, 2);
    }

    #[test]
    fn every_damaged_bit_and_every_cut_is_found() {
        let whole = sample();
        for position in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[position] ^= 1 << bit;
                assert!(verify(&damaged).is_err(), "bit {bit} of byte {position}");
            }
            assert!(verify(&whole[..position]).is_err(), "cut at {position}");
        }
        assert!(verify(&[&whole[..], b"\0"].concat()).is_err(), "a byte too many");
    }

    #[test]
    fn a_missing_block_and_two_swapped_blocks_are_found() {
        let whole = sample();
        let mut starts = vec![];
        let mut at = MAGIC.len() + 1;
        while at < whole.len() {
            starts.push(at);
            let len = whole[at + 1..at + 5].try_into().map(u32::from_le_bytes).unwrap();
            at += BLOCK_HEAD + len as usize;
        }
        assert_eq!(starts.len(), 5);
        for pair in starts.windows(2) {
            let without = [&whole[..pair[0]], &whole[pair[1]..]].concat();
            assert!(verify(&without).is_err(), "without the block at {}", pair[0]);
        }
        let block = |number: usize| &whole[starts[number]..starts[number + 1]];
        let parts = [&whole[..starts[1]], block(3), block(2), block(1), &whole[starts[4]..]];
        assert!(verify(&parts.concat()).is_err(), "entries are exchanged");
    }

    #[test]
    fn each_fault_has_its_own_error() {
        let said = |bytes: &[u8]| verify(bytes).unwrap_err().to_string();
        assert!(said(b"PK\x03\x04").contains("not a backup"));
        assert!(said(b"a longer file that is something else").contains("not a backup"));
        assert!(said(b"VATNBAK\x02").contains("version 2"));
        let mut damaged = sample();
        damaged[60] ^= 1;
        assert!(said(&damaged).starts_with("block 1, at byte 49: "), "{}", said(&damaged));
    }
}
