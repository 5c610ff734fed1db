//! A backup as a file: the state of the broker, and the changes made while it was read. Checksums
//! cover every byte.
//!
//! ```text
//! file     magic | origin | (entries or changes)* | trailer
//! magic    "VATNBAK" | version u8
//! block    kind u8 | len u32 | crc32 u32 of kind, len and body | body, len bytes
//! origin   kind 1: store_id, 16 bytes | first_seq u64 | time_ms u64
//! entries  kind 2: writes (see `wire::change`), all of them sets: keys as they were found, written
//!          in their order within a block, and read in any
//! changes  kind 3: writes later than first_seq, in the order of their seqs throughout the file
//! trailer  kind 4: seq u64 | entries u64 | changes u64 | time_ms u64 | crc32 u32 of every byte
//!          before the trailer
//! ```
//!
//! All integers are little-endian. The blocks are applied in the order of the file; the result is
//! the state right after the write `seq`. Entries are read page by page while writes go on; after
//! each page come the changes made meanwhile. So whatever a page has or lacks, the last change of a
//! key up to `seq` comes after the page. Entries at the end repeat changes, with the exact time of
//! expiry.
//!
//! No value of level `memory` is in the file: a write of that level appears as the deletion of the
//! value that it hides. Times of expiry are by the clock of the broker that made the backup.

use crate::clock::Millis;
use crate::protocol::change::Mark;
use crate::protocol::{Change, ChangeBuffer, Level, Op, Seq};
use std::io::{self, Write};

/// The first bytes of every backup; the version follows.
pub const MAGIC: &[u8; 7] = b"VATNBAK";
/// The version of the format.
pub const ARCHIVE_VERSION: u8 = 1;
/// A block is closed when it reaches about this size, in bytes.
const BLOCK_BYTES: usize = 256 * 1024;
/// The bytes before a block's body.
pub(super) const BLOCK_HEAD: usize = 1 + 4 + 4;

/// The kind of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The origin of the backup.
    Origin = 1,
    /// Keys with the values that were read.
    Entries = 2,
    /// Changes made meanwhile.
    Changes = 3,
    /// The trailer.
    Trailer = 4,
}

impl Kind {
    /// Reads the byte that encodes a kind.
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Origin, Self::Entries, Self::Changes, Self::Trailer]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// The origin of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The id of the store that was backed up.
    pub store_id: [u8; 16],
    /// All writes up to this seq are in the entries, unless a change says otherwise.
    pub first_seq: Seq,
    /// When the backup began.
    pub time_ms: Millis,
}

/// The contents of a whole backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// The backup is the state right after this write.
    pub seq: Seq,
    /// How many entries the file has.
    pub entries: u64,
    /// How many changes the file has.
    pub changes: u64,
    /// When the backup was finished.
    pub time_ms: Millis,
    /// The length of the file, in bytes.
    pub bytes: u64,
}

/// Writes a backup.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    out: W,
    /// The checksum of every byte written.
    whole: crc32fast::Hasher,
    kind: Kind,
    buffer: ChangeBuffer,
    open: Option<(Seq, Level, Mark)>,
    /// The last entry's key.
    last_key: Vec<u8>,
    summary: Summary,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins a backup.
    pub fn begin(out: W, origin: &Origin) -> io::Result<Self> {
        let mut writer = Self {
            out,
            whole: crc32fast::Hasher::new(),
            kind: Kind::Entries,
            buffer: ChangeBuffer::default(),
            open: None,
            last_key: Vec::new(),
            summary: Summary::default(),
        };
        writer.write(MAGIC)?;
        writer.write(&[ARCHIVE_VERSION])?;
        let mut body = origin.store_id.to_vec();
        body.extend_from_slice(&origin.first_seq.to_le_bytes());
        body.extend_from_slice(&origin.time_ms.to_le_bytes());
        writer.block(Kind::Origin, &body)?;
        Ok(writer)
    }

    /// Adds a key with its current value.
    pub fn entry(&mut self, entry: &Change<'_>) -> io::Result<()> {
        self.summary.entries += 1;
        // Older versions read a block of entries only in key order.
        if self.kind == Kind::Entries && entry.key <= self.last_key.as_slice() {
            self.close_write();
            self.flush_block()?;
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(entry.key);
        self.push(Kind::Entries, entry)
    }

    /// Adds a change. A change of level `memory` becomes the deletion of the value that it hides.
    pub fn change(&mut self, change: &Change<'_>) -> io::Result<()> {
        self.summary.changes += 1;
        match change.level {
            Level::Memory => {
                let (op, level) = (Op::Delete, Level::Queued);
                let removal = Change { op, level, expires_at: None, value: &[], ..*change };
                self.push(Kind::Changes, &removal)
            }
            _ => self.push(Kind::Changes, change),
        }
    }

    fn push(&mut self, kind: Kind, change: &Change<'_>) -> io::Result<()> {
        let is_same_write =
            self.open.is_some_and(|(seq, level, _)| (seq, level) == (change.seq, change.level));
        // A write whose keys were all read at once may be larger than a block; a change may not.
        let is_full = kind == Kind::Entries && self.buffer.bytes().len() >= BLOCK_BYTES;
        if !is_same_write || is_full || kind != self.kind {
            self.close_write();
            if kind != self.kind || self.buffer.bytes().len() >= BLOCK_BYTES {
                self.flush_block()?;
            }
            self.kind = kind;
            let mark = self.buffer.begin(change.seq, change.level, change.time_ms);
            self.open = Some((change.seq, change.level, mark));
        }
        self.buffer.push(change.op, false, change.expires_at, change.key, change.value);
        Ok(())
    }

    fn close_write(&mut self) {
        if let Some((_, _, mark)) = self.open.take() {
            self.buffer.end(mark);
        }
    }

    fn flush_block(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let body = std::mem::take(&mut self.buffer).into_bytes();
        self.block(self.kind, &body)
    }

    /// Ends the backup, which is the state right after `seq`.
    pub fn finish(mut self, seq: Seq, time_ms: Millis) -> io::Result<(W, Summary)> {
        self.close_write();
        self.flush_block()?;
        let mut body = Vec::new();
        for number in [seq, self.summary.entries, self.summary.changes, time_ms] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        body.extend_from_slice(&self.whole.clone().finalize().to_le_bytes());
        self.block(Kind::Trailer, &body)?;
        self.out.flush()?;
        let summary = Summary { seq, time_ms, ..self.summary };
        Ok((self.out, summary))
    }

    fn block(&mut self, kind: Kind, body: &[u8]) -> io::Result<()> {
        let len = u32::try_from(body.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.write(&[kind as u8])?;
        self.write(&len.to_le_bytes())?;
        self.write(&checksum(kind, body).to_le_bytes())?;
        self.write(body)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.whole.update(bytes);
        self.summary.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// The checksum of a block.
pub(super) fn checksum(kind: Kind, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind as u8]);
    hasher.update(&(body.len() as u32).to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}
