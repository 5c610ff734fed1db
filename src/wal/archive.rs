//! A backup as a file: what the broker held, and what changed while it was read, every byte of it
//! under a checksum.
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
//! All integers are little-endian. The blocks are applied in the order of the file; what comes out
//! is the state right after the write `seq`. Entries are read page by page while writes go on, and
//! after each page what changed meanwhile: whatever a page has or lacks, the last change of a key
//! up to `seq` comes after it. Entries at the end say again what a change said, with its time of
//! expiry to the point.
//!
//! Nothing of level `memory` is in it: a write of that level is there as the deletion of what it
//! hides. Times of expiry are by the clock of whoever made the backup.

use crate::clock::Millis;
use crate::protocol::change::Mark;
use crate::protocol::{Change, ChangeBuffer, Level, Op, Seq};
use std::io::{self, Write};

/// What every backup begins with; the version follows.
pub const MAGIC: &[u8; 7] = b"VATNBAK";
/// The version of the format.
pub const ARCHIVE_VERSION: u8 = 1;
/// A block is closed when it has about this size, in bytes.
const BLOCK_BYTES: usize = 256 * 1024;
/// The bytes before a block's body.
pub(super) const BLOCK_HEAD: usize = 1 + 4 + 4;

/// What is in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Where the backup comes from.
    Origin = 1,
    /// Keys as they were found.
    Entries = 2,
    /// What changed meanwhile.
    Changes = 3,
    /// The end.
    Trailer = 4,
}

impl Kind {
    /// Reads the byte that stands for a kind.
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Origin, Self::Entries, Self::Changes, Self::Trailer]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Where a backup comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The store it was made of.
    pub store_id: [u8; 16],
    /// The seq up to which all that was written is in the entries, unless a change says otherwise.
    pub first_seq: Seq,
    /// When it was begun.
    pub time_ms: Millis,
}

/// What a whole backup holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// It is the state right after this write.
    pub seq: Seq,
    /// How many entries are in it.
    pub entries: u64,
    /// How many changes are in it.
    pub changes: u64,
    /// When it was finished.
    pub time_ms: Millis,
    /// How long the file is.
    pub bytes: u64,
}

/// Writes a backup.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    out: W,
    /// Over every byte written.
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

    /// Adds a key as it was found.
    pub fn entry(&mut self, entry: &Change<'_>) -> io::Result<()> {
        self.summary.entries += 1;
        // Older readers take a block of entries only in the order of its keys.
        if self.kind == Kind::Entries && entry.key <= self.last_key.as_slice() {
            self.close_write();
            self.flush_block()?;
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(entry.key);
        self.push(Kind::Entries, entry)
    }

    /// Adds a change. One of level `memory` becomes the deletion of what it hides.
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
        // A write whose keys were all found at once may be larger than a block; a change may not.
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

    /// Ends the backup: it is the state right after `seq`.
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
