//! One of fjall's table files, read block by block, as far as possible.
//!
//! ```text
//! block   "LSM" 3 | kind u8 | xxh3 u128 of what follows | stored u32 | length u32
//!         | low u32 of the xxh3 of what comes before | stored bytes, LZ4 where that is shorter
//! data    items | 255 | indexes | trailer: restart interval u8 | 26 bytes | items u32
//! item    type u8 | seqno | key length | key | value length | value          (numbers are LEB128)
//! item    type u8 | seqno | bytes shared with the key at the last restart | length | rest of key
//!         | value length | value
//! ```
//!
//! Every block has its own checksums, so a damaged block loses only its own rows. The blocks with
//! rows come first, one after the other.

use super::tree::sections;
use crate::protocol::Fields;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_128;

const MAGIC: &[u8; 4] = b"LSM\x03";
const HEAD_BYTES: usize = 4 + 1 + 16 + 4 + 4 + 4;
const DATA: u8 = 0;
const TRAILER_BYTES: usize = 31;
const VALUE: u8 = 0;
const TOMBSTONES: [u8; 2] = [1, 2];
/// The greatest compression ratio of LZ4.
const LZ4_RATIO_MAX: u64 = 256;

/// One version of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) key: Vec<u8>,
    pub(super) seqno: u64,
    /// `None` for a deleted row.
    pub(super) value: Option<Vec<u8>>,
}

/// Two keys between which rows of a file are missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gap {
    /// The last key before the gap; `None` at the beginning of the file.
    pub after: Option<Vec<u8>>,
    /// The first key after the gap; `None` at the end of the file.
    pub before: Option<Vec<u8>>,
}

impl Gap {
    /// Whether a row of `key` may be missing.
    pub fn covers(&self, key: &[u8]) -> bool {
        // The key at an edge may have further versions in the gap.
        self.after.as_ref().is_none_or(|after| after.as_slice() <= key)
            && self.before.as_ref().is_none_or(|before| key <= before.as_slice())
    }
}

struct Head {
    kind: u8,
    checksum: u128,
    stored: u32,
    length: u32,
}

impl Head {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (sealed, _) = bytes.split_at_checked(HEAD_BYTES - 4)?;
        let mut fields = Fields::new(bytes);
        if fields.take()? != *MAGIC {
            return None;
        }
        let [kind] = fields.take()?;
        let checksum = u128::from_le_bytes(fields.take()?);
        let (stored, length) = (fields.take()?, fields.take()?);
        let seal = u32::from_le_bytes(fields.take()?);
        let (stored, length) = (u32::from_le_bytes(stored), u32::from_le_bytes(length));
        (xxh3_128(sealed) as u32 == seal).then_some(Self { kind, checksum, stored, length })
    }

    fn bytes(&self) -> u64 {
        HEAD_BYTES as u64 + u64::from(self.stored)
    }

    /// The items in the `stored` bytes of a block; `None` if their checksum does not match.
    fn items(&self, stored: &[u8]) -> Option<Vec<Item>> {
        if xxh3_128(stored) != self.checksum {
            return None;
        }
        if self.stored == self.length
            && let Some(items) = items(stored)
        {
            return Some(items);
        }
        if u64::from(self.length) > LZ4_RATIO_MAX * (u64::from(self.stored) + 1) {
            return None;
        }
        let data = lz4_flex::block::decompress(stored, self.length as usize).ok()?;
        items(&data)
    }
}

/// The items of a block.
fn items(data: &[u8]) -> Option<Vec<Item>> {
    let trailer = data.get(data.len().checked_sub(TRAILER_BYTES)?..)?;
    let interval = u32::from(*trailer.first()?);
    let count = u32::from_le_bytes(*trailer.last_chunk()?);
    let (mut found, mut base) = (Vec::new(), Vec::new());
    let mut fields = Fields::new(data);
    for number in 0..count {
        let [kind] = fields.take()?;
        let seqno = varint(&mut fields)?;
        let is_restart = number.checked_rem(interval)? == 0;
        let shared = if is_restart { 0 } else { varint(&mut fields)? };
        let rest = varint(&mut fields)?;
        let mut key = base.get(..usize::try_from(shared).ok()?)?.to_vec();
        key.extend_from_slice(fields.slice(usize::try_from(rest).ok()?)?);
        if is_restart {
            base.clone_from(&key);
        }
        let value = match kind {
            VALUE => {
                let length = varint(&mut fields)?;
                Some(fields.slice(usize::try_from(length).ok()?)?.to_vec())
            }
            kind if TOMBSTONES.contains(&kind) => None,
            _ => return None,
        };
        found.push(Item { key, seqno, value });
    }
    Some(found)
}

fn varint(fields: &mut Fields<'_>) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = fields.take()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// A table file, read from the beginning to the end.
pub(super) struct TableFile {
    file: File,
    length: u64,
    /// The offset of the next block.
    at: u64,
    /// The end of the blocks with rows, if the file states it.
    end: Option<u64>,
    is_done: bool,
    items: std::vec::IntoIter<Item>,
    last_key: Option<Vec<u8>>,
    is_in_gap: bool,
    /// The gaps so far.
    pub(super) gaps: Vec<Gap>,
}

impl TableFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let data = sections(&file)?.and_then(|list| list.get(&b"data"[..]).copied());
        let end = data.filter(|(at, _)| *at == 0).map(|(_, length)| length);
        let (items, gaps) = (Vec::new().into_iter(), Vec::new());
        let (is_done, is_in_gap, last_key) = (false, false, None);
        Ok(Self { file, length, at: 0, end, is_done, items, last_key, is_in_gap, gaps })
    }

    /// The next item, in key order; newer versions of a key come first.
    pub(super) fn next(&mut self) -> io::Result<Option<Item>> {
        loop {
            if let Some(item) = self.items.next() {
                if self.items.len() == 0 {
                    self.last_key = Some(item.key.clone());
                }
                return Ok(Some(item));
            }
            if self.is_done {
                return Ok(None);
            }
            self.next_block()?;
        }
    }

    fn next_block(&mut self) -> io::Result<()> {
        let is_at_end = self.end.is_some_and(|end| self.at >= end);
        let (head, items) = match (is_at_end, self.block(self.at)?) {
            (true, _) => {
                self.finish();
                return Ok(());
            }
            (false, Some(block)) => block,
            (false, None) => {
                self.is_in_gap = true;
                match self.search(self.at + 1)? {
                    Some(found) => self.at = found,
                    None => self.finish(),
                }
                return Ok(());
            }
        };
        if head.kind != DATA {
            self.finish();
            return Ok(());
        }
        self.at += head.bytes();
        match items {
            Some(items) => {
                if self.is_in_gap {
                    let before = items.first().map(|item| item.key.clone());
                    self.gaps.push(Gap { after: self.last_key.clone(), before });
                    self.is_in_gap = false;
                }
                self.items = items.into_iter();
            }
            None => self.is_in_gap = true,
        }
        Ok(())
    }

    fn finish(&mut self) {
        self.is_done = true;
        if self.is_in_gap {
            self.gaps.push(Gap { after: self.last_key.clone(), before: None });
        }
    }

    /// The head of the block at an offset, and its items if their checksum matches.
    fn block(&self, at: u64) -> io::Result<Option<(Head, Option<Vec<Item>>)>> {
        let left = self.length.saturating_sub(at);
        let mut head = [0; HEAD_BYTES];
        if left < HEAD_BYTES as u64 {
            return Ok(None);
        }
        self.file.read_exact_at(&mut head, at)?;
        let Some(head) = Head::decode(&head).filter(|head| head.bytes() <= left) else {
            return Ok(None);
        };
        if head.kind != DATA {
            return Ok(Some((head, None)));
        }
        let mut stored = vec![0; head.stored as usize];
        self.file.read_exact_at(&mut stored, at + HEAD_BYTES as u64)?;
        let items = head.items(&stored);
        Ok(Some((head, items)))
    }

    /// The offset of the next block, at `from` or later.
    fn search(&self, from: u64) -> io::Result<Option<u64>> {
        let end = self.end.unwrap_or(self.length).min(self.length);
        let mut rest = vec![0; end.saturating_sub(from) as usize];
        self.file.read_exact_at(&mut rest, from)?;
        let mut places = rest.windows(MAGIC.len()).enumerate();
        let found = places.find(|(place, mark)| {
            mark == MAGIC && rest.get(*place..).and_then(Head::decode).is_some()
        });
        Ok(found.map(|(place, _)| from + place as u64))
    }
}

/// The greatest item number of the file at `path`, from its metadata or else from its items.
pub(super) fn highest_seqno(path: &Path) -> io::Result<Option<u64>> {
    let mut table = TableFile::open(path)?;
    let meta = sections(&table.file)?.and_then(|list| list.get(&b"meta"[..]).copied());
    if let Some((at, length)) = meta.filter(|(at, length)| at + length <= table.length) {
        let mut bytes = vec![0; length as usize];
        table.file.read_exact_at(&mut bytes, at)?;
        let head = Head::decode(&bytes);
        let items = head.and_then(|head| head.items(bytes.get(HEAD_BYTES..)?));
        let is_highest = |item: &Item| item.key == b"seqno#max";
        let value = items.and_then(|items| items.into_iter().find(is_highest)?.value);
        if let Some(number) = value.and_then(|value| value.try_into().ok()) {
            return Ok(Some(u64::from_le_bytes(number)));
        }
    }
    let mut highest = None;
    while let Some(item) = table.next()? {
        highest = highest.max(Some(item.seqno));
    }
    Ok(highest)
}
