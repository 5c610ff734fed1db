//! Changes as bytes: the effect of one write, in the form that the log keeps and the publisher
//! reads.
//!
//! A write is one group: a head, then its entries. All integers are little-endian.
//!
//! ```text
//! group  level u8 | seq u64 | time_ms u64 | count u32 | bytes u32 | entry * count
//! entry  op u8 | key_len u16 | value_len u32 | [expires_at_ms u64] | key | value
//! ```
//!
//! The op's high bit says that an expiry time follows; the next bit says that an older, persisted
//! value of the key is below this change (so that a `memory` write over it must be logged as a
//! delete).

use super::Millis;
use super::{Level, Seq, Shared, writer};

const GROUP_HEAD: usize = 1 + 8 + 8 + 4 + 4;
const HAS_EXPIRY: u8 = 0x80;
const COVERS: u8 = 0x40;

/// The kind of a change to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// The key got a value.
    Set = 1,
    /// The key was deleted.
    Delete = 2,
    /// Its time to live ran out.
    Expire = 3,
    /// Its time to live was changed, but not its value.
    Touch = 4,
}

impl Op {
    /// The op's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Delete => "delete",
            Self::Expire => "expire",
            Self::Touch => "touch",
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Set, Self::Delete, Self::Expire, Self::Touch]
            .into_iter()
            .find(|op| *op as u8 == byte)
    }
}

/// One change to one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// The seq of the write; all changes of a batch share it.
    pub seq: Seq,
    /// When the write was applied.
    pub time_ms: Millis,
    /// The durability that its writer requested.
    pub level: Level,
    /// The place of this change in its write, from 0.
    pub index: u32,
    /// How many changes the write made.
    pub count: u32,
    /// The kind of change.
    pub op: Op,
    /// Whether a persisted value of the key is below.
    pub covers: bool,
    /// When the value expires.
    pub expires_at: Option<Millis>,
    /// The key.
    pub key: &'a [u8],
    /// The new value of a `set`; empty for the other ops. (Older versions wrote it for a `touch` as
    /// well.)
    pub value: &'a [u8],
}

/// The header of a change for subscribers and readers of the history. The broker's own notices have
/// one too.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// The seq of the write.
    pub seq: Seq,
    /// The kind of change.
    pub op: &'a str,
    /// The place of the change in its write, from 0.
    pub index: u32,
    /// How many changes the write made.
    pub count: u32,
    /// The seq of the reader's change before this one.
    pub prev: Seq,
    /// The time to live when it was written.
    pub ttl_ms: Option<Millis>,
    /// The durability that its writer requested.
    pub level: Level,
}

impl Header<'_> {
    /// Appends `[seq, op, index, count, prev, ttl_ms or nil, level]`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::array_len(out, 7);
        writer::uint(out, self.seq);
        writer::str(out, self.op);
        writer::uint(out, u64::from(self.index));
        writer::uint(out, u64::from(self.count));
        writer::uint(out, self.prev);
        match self.ttl_ms {
            Some(ttl_ms) => writer::uint(out, ttl_ms),
            None => writer::nil(out),
        }
        writer::str(out, self.level.name());
    }
}

impl Change<'_> {
    /// The change's header for a reader whose last change was `prev`.
    pub fn header(&self, prev: Seq) -> Header<'static> {
        let Change { seq, index, count, level, .. } = *self;
        let ttl_ms = self.expires_at.map(|at| at.saturating_sub(self.time_ms));
        Header { seq, op: self.op.name(), index, count, prev, ttl_ms, level }
    }
}

/// The least size of a value for which a buffer grows by little more than the value.
const LARGE_BYTES: usize = 256 * 1024;

/// A value of this length or more is kept by reference until the writes are moved out: a copy of
/// some MiB takes longer than thousands of writes, and the engine's lock is held here.
pub const SHARED_FROM: usize = 64 * 1024;

/// A place in a [`ChangeBuffer`] to which it can be cut back.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    bytes: usize,
    shared: usize,
    shared_bytes: usize,
    items: usize,
    last_seq: Seq,
    strongest: Level,
}

/// A buffer of whole writes, in order.
#[derive(Debug, Clone)]
pub struct ChangeBuffer {
    bytes: Vec<u8>,
    /// Large values, each before the byte at its place.
    shared: Vec<(usize, Shared)>,
    shared_bytes: usize,
    items: usize,
    first_seq: Seq,
    last_seq: Seq,
    last_time: Millis,
    strongest: Level,
    has_memory: bool,
}

impl Default for ChangeBuffer {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            shared: Vec::new(),
            shared_bytes: 0,
            items: 0,
            first_seq: 0,
            last_seq: 0,
            last_time: 0,
            strongest: Level::Memory,
            has_memory: false,
        }
    }
}

impl ChangeBuffer {
    /// Whether it holds no write.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The encoded writes, of a buffer that keeps no large value by reference.
    pub fn bytes(&self) -> &[u8] {
        debug_assert!(self.shared.is_empty(), "large values are not filled in");
        &self.bytes
    }

    /// How long the encoded writes are.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.shared_bytes
    }

    /// The encoded writes, moved out. Large values are filled in now, so call it without a lock.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.fill();
        self.bytes
    }

    /// Fills in the large values that are kept by reference. Call it without a lock.
    pub fn fill(&mut self) {
        if self.shared.is_empty() {
            return;
        }
        let (mut filled, mut done) = (Vec::with_capacity(self.len()), 0);
        for (at, value) in &self.shared {
            filled.extend_from_slice(self.bytes.get(done..*at).unwrap_or_default());
            filled.extend_from_slice(value);
            done = *at;
        }
        filled.extend_from_slice(self.bytes.get(done..).unwrap_or_default());
        (self.bytes, self.shared_bytes) = (filled, 0);
        self.shared.clear();
    }

    /// How many changes it holds.
    pub fn items(&self) -> usize {
        self.items
    }

    /// The seq of its first write.
    pub fn first_seq(&self) -> Seq {
        self.first_seq
    }

    /// The seq of its last write.
    pub fn last_seq(&self) -> Seq {
        self.last_seq
    }

    /// The time of its last write.
    pub fn last_time(&self) -> Millis {
        self.last_time
    }

    /// The strongest level among its writes.
    pub fn strongest(&self) -> Level {
        self.strongest
    }

    /// Whether a write of level `memory` is among them.
    pub fn has_memory(&self) -> bool {
        self.has_memory
    }

    /// Moves the writes out, and reserves as much memory again, so that the next writes are not
    /// copied each time the buffer grows.
    pub fn take(&mut self) -> Self {
        let mut next = Self::default();
        next.reserve(self.bytes.len() + self.bytes.len() / 16);
        std::mem::replace(self, next)
    }

    /// Reserves memory for `bytes` more.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Removes all writes, and keeps the memory.
    pub fn clear(&mut self) {
        *self = Self { bytes: std::mem::take(&mut self.bytes), ..Self::default() };
        self.bytes.clear();
    }

    /// Opens a write. Every change pushed until [`ChangeBuffer::end`] belongs to it.
    pub fn begin(&mut self, seq: Seq, level: Level, time_ms: Millis) -> Mark {
        let mark = Mark {
            bytes: self.bytes.len(),
            shared: self.shared.len(),
            shared_bytes: self.shared_bytes,
            items: self.items,
            last_seq: self.last_seq,
            strongest: self.strongest,
        };
        let mut head = [0; GROUP_HEAD];
        head[0] = level as u8;
        head[1..9].copy_from_slice(&seq.to_le_bytes());
        head[9..17].copy_from_slice(&time_ms.to_le_bytes());
        self.bytes.extend_from_slice(&head);
        if mark.bytes == 0 {
            self.first_seq = seq;
        }
        self.last_seq = seq;
        self.last_time = time_ms;
        self.strongest = self.strongest.max(level);
        mark
    }

    /// Adds a change to the open write. Only `op`, `covers`, `expires_at`, `key` and `value` of
    /// `change` are read; the group has the rest.
    pub fn push(
        &mut self,
        op: Op,
        covers: bool,
        expires_at: Option<Millis>,
        key: &[u8],
        value: &[u8],
    ) {
        self.push_head(op, covers, expires_at, key, value.len());
        if value.len() > LARGE_BYTES && self.bytes.capacity() - self.bytes.len() < value.len() {
            // Not doubled: that would be more than is counted.
            self.bytes.reserve_exact(value.len() + self.bytes.len() / 8);
        }
        self.bytes.extend_from_slice(value);
    }

    /// Adds a `set` of a large value, which is not copied now.
    pub fn push_shared(
        &mut self,
        covers: bool,
        expires_at: Option<Millis>,
        key: &[u8],
        value: &Shared,
    ) {
        self.push_head(Op::Set, covers, expires_at, key, value.len());
        self.shared.push((self.bytes.len(), Shared::clone(value)));
        self.shared_bytes += value.len();
    }

    fn push_head(
        &mut self,
        op: Op,
        covers: bool,
        expires_at: Option<Millis>,
        key: &[u8],
        value_len: usize,
    ) {
        let flags =
            if covers { COVERS } else { 0 } | if expires_at.is_some() { HAS_EXPIRY } else { 0 };
        let mut head = [op as u8 | flags; 7];
        head[1..3].copy_from_slice(&(key.len() as u16).to_le_bytes());
        head[3..].copy_from_slice(&(value_len as u32).to_le_bytes());
        self.bytes.extend_from_slice(&head);
        if let Some(expires_at) = expires_at {
            self.bytes.extend_from_slice(&expires_at.to_le_bytes());
        }
        self.bytes.extend_from_slice(key);
        self.items += 1;
    }

    /// Closes the write opened at `mark`. Returns whether it holds a change; an empty write is
    /// removed.
    pub fn end(&mut self, mark: Mark) -> bool {
        let count = self.items - mark.items;
        if count == 0 {
            self.undo(mark);
            return false;
        }
        let shared = self.shared_bytes - mark.shared_bytes;
        let body = self.bytes.len() - mark.bytes - GROUP_HEAD + shared;
        let is_memory = self.bytes.get(mark.bytes) == Some(&(Level::Memory as u8));
        self.has_memory |= is_memory;
        let sizes = u64::from(count as u32) | (body as u64) << 32;
        let sizes_at = mark.bytes + GROUP_HEAD - 8;
        if let Some(slot) = self.bytes.get_mut(sizes_at..sizes_at + 8) {
            slot.copy_from_slice(&sizes.to_le_bytes());
        }
        true
    }

    /// Adds a row of the tables as a separate write without a time. `expires_at` 0 means never.
    pub fn push_row(
        &mut self,
        seq: Seq,
        level: Level,
        expires_at: Millis,
        key: &[u8],
        value: &[u8],
    ) {
        let mark = self.begin(seq, level, 0);
        self.push(Op::Set, false, (expires_at != 0).then_some(expires_at), key, value);
        self.end(mark);
    }

    /// The number of changes since `mark`, and their bytes.
    pub fn since(&self, mark: Mark) -> (usize, usize) {
        let shared = self.shared_bytes - mark.shared_bytes;
        (self.items - mark.items, self.bytes.len() - mark.bytes + shared)
    }

    /// Removes everything since `mark`.
    pub fn undo(&mut self, mark: Mark) {
        self.bytes.truncate(mark.bytes);
        self.shared.truncate(mark.shared);
        self.shared_bytes = mark.shared_bytes;
        self.items = mark.items;
        self.last_seq = mark.last_seq;
        self.strongest = mark.strongest;
    }
}

/// Iterates over the changes in encoded writes, in order. Ends with an error at bytes that no
/// version wrote.
#[derive(Debug, Clone)]
pub struct ChangeReader<'a> {
    rest: &'a [u8],
    group: Option<Group>,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    level: Level,
    seq: Seq,
    time_ms: Millis,
    count: u32,
    next: u32,
}

/// Bytes that are not encoded changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl<'a> ChangeReader<'a> {
    /// Reads the changes in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, group: None }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn open_group(&mut self) -> Result<Group, Malformed> {
        let [level] = self.take()?;
        let level = Level::from_byte(level).ok_or(Malformed)?;
        let seq = Seq::from_le_bytes(self.take()?);
        let time_ms = Millis::from_le_bytes(self.take()?);
        let count = u32::from_le_bytes(self.take()?);
        let _bytes = u32::from_le_bytes(self.take()?);
        Ok(Group { level, seq, time_ms, count, next: 0 })
    }

    fn read(&mut self) -> Result<Change<'a>, Malformed> {
        let mut group = match self.group {
            Some(group) if group.next < group.count => group,
            _ => self.open_group()?,
        };
        let [flags] = self.take()?;
        let op = Op::from_byte(flags & !(HAS_EXPIRY | COVERS)).ok_or(Malformed)?;
        let key_len = usize::from(u16::from_le_bytes(self.take()?));
        let value_len = u32::from_le_bytes(self.take()?) as usize;
        let expires_at =
            if flags & HAS_EXPIRY != 0 { Some(Millis::from_le_bytes(self.take()?)) } else { None };
        let key = self.slice(key_len)?;
        let value = self.slice(value_len)?;
        let index = group.next;
        group.next += 1;
        self.group = Some(group);
        let Group { level, seq, time_ms, count, .. } = group;
        let covers = flags & COVERS != 0;
        Ok(Change { seq, time_ms, level, index, count, op, covers, expires_at, key, value })
    }
}

impl<'a> Iterator for ChangeReader<'a> {
    type Item = Result<Change<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            let unfinished = self.group.is_some_and(|group| group.next < group.count);
            self.group = None;
            return unfinished.then_some(Err(Malformed));
        }
        let change = self.read();
        if change.is_err() {
            self.rest = &[];
            self.group = None;
        }
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_writes_decode_unchanged() {
        let mut buffer = ChangeBuffer::default();
        let mark = buffer.begin(7, Level::Synced, 1_000);
        buffer.push(Op::Set, false, Some(5_000), b"a", b"\x01");
        buffer.push(Op::Delete, true, None, b"", b"");
        assert!(buffer.end(mark));
        let mark = buffer.begin(8, Level::Memory, 1_001);
        assert!(!buffer.end(mark), "a write without a change leaves no trace");
        let changes: Vec<_> = ChangeReader::new(buffer.bytes()).collect::<Result<_, _>>().unwrap();
        assert_eq!(changes.len(), 2);
        assert_eq!((changes[0].key, changes[0].value), (&b"a"[..], &b"\x01"[..]));
        assert_eq!(
            (changes[0].index, changes[0].count, changes[0].expires_at),
            (0, 2, Some(5_000))
        );
        assert_eq!((changes[1].op, changes[1].covers, changes[1].seq), (Op::Delete, true, 7));
        assert_eq!((buffer.first_seq(), buffer.last_seq(), buffer.items()), (7, 7, 2));
    }

    #[test]
    fn values_by_reference_are_filled_in_where_they_were_pushed() {
        let mut random = fastrand::Rng::with_seed(16);
        for _ in 0..200 {
            let (mut buffer, mut copied) = (ChangeBuffer::default(), ChangeBuffer::default());
            for seq in 1..random.u64(2..9) {
                let marks = [&mut buffer, &mut copied].map(|b| b.begin(seq, Level::Stored, seq));
                for key in 0..random.u8(0..4) {
                    let value: Shared = vec![key; random.usize(..9)].into();
                    match random.bool() {
                        true => buffer.push_shared(false, None, &[key], &value),
                        false => buffer.push(Op::Set, false, None, &[key], &value),
                    }
                    copied.push(Op::Set, false, None, &[key], &value);
                }
                assert_eq!(buffer.since(marks[0]), copied.since(marks[1]));
                let is_undone = random.u8(..4) == 0;
                for (buffer, mark) in [(&mut buffer, marks[0]), (&mut copied, marks[1])] {
                    match is_undone {
                        true => buffer.undo(mark),
                        false => _ = buffer.end(mark),
                    }
                }
                assert_eq!((buffer.len(), buffer.items()), (copied.len(), copied.items()));
            }
            assert_eq!(buffer.into_bytes(), copied.bytes());
        }
    }

    #[test]
    fn a_truncation_anywhere_is_detected() {
        let mut buffer = ChangeBuffer::default();
        let mark = buffer.begin(1, Level::Queued, 0);
        buffer.push(Op::Set, false, None, b"key", b"\xc3");
        buffer.end(mark);
        for end in 1..buffer.bytes().len() {
            let changes: Result<Vec<_>, _> = ChangeReader::new(&buffer.bytes()[..end]).collect();
            assert_eq!(changes, Err(Malformed), "cut at {end}");
        }
    }
}
