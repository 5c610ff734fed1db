//! fjall's journals, read batch by batch.
//!
//! ```text
//! batch  1 | items u32 | seqno u64, then the items, then the end
//! item   2 | type u8 | compression u8 | keyspace u64 | key_len u16 | value_len u32 | stored u32
//!          | key | value, stored bytes of it
//! clear  4 | keyspace u64
//! end    3 | xxh3 u64 of the items | "FJL" 3
//! ```
//!
//! Zeros follow where the file was preallocated. A crash leaves a partial batch at the end; a power
//! failure may leave whole batches after pages that were never written, which are zeros.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

pub(in crate::storage) const START: u8 = 1;
pub(in crate::storage) const ITEM: u8 = 2;
pub(in crate::storage) const END: u8 = 3;
pub(in crate::storage) const CLEAR: u8 = 4;
pub(in crate::storage) const MAGIC: &[u8; 4] = b"FJL\x03";
/// The sizes of the types of value and of compression that fjall knows.
const TYPES: [u8; 4] = [0, 1, 2, 4];
pub(in crate::storage) const COMPRESSIONS: [u8; 2] = [0, 1];
/// The size of a page, which the system writes whole or not at all.
const PAGE_BYTES: u64 = 4096;
/// A searched batch is accepted only if its number is at most this far above the previous one.
const SEQNO_STEP_MAX: u64 = 1 << 24;

/// The content of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) struct Walk {
    /// The end of the whole batches.
    pub(in crate::storage) end: u64,
    /// A checksum over them.
    pub(in crate::storage) checksum: u32,
    /// The number of the last batch.
    pub(in crate::storage) last_seqno: Option<u64>,
    /// The bytes after the whole batches.
    pub(in crate::storage) rest: Rest,
}

/// The bytes after the whole batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Rest {
    /// Nothing, or preallocated space.
    Nothing,
    /// The remains of the last batches after a crash.
    Torn,
    /// Bytes that are no batch, followed by batches.
    Damaged {
        /// The offset of the first of them.
        resumes_at: u64,
        /// The number of them.
        whole: u64,
    },
    /// A batch with an impossible number: numbers only grow.
    OutOfOrder,
}

/// The names of the journals in `folder`, oldest first.
pub(in crate::storage) fn list(folder: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jnl"));
        if let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) {
            found.push(number);
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|number| format!("{number}.jnl")).collect())
}

/// Reads the journal at `path`, whose batches come after the one numbered `after`.
pub(in crate::storage) fn walk(path: &Path, after: Option<u64>) -> io::Result<Walk> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut input = BufReader::with_capacity(1 << 20, file);
    let mut walk = Walk { end: 0, checksum: 0, last_seqno: after, rest: Rest::Nothing };
    let mut whole = crc32fast::Hasher::new();
    while let Some(batch) = read_batch(&mut input, length)? {
        if walk.last_seqno.is_some_and(|last| batch.seqno <= last) {
            walk.rest = Rest::OutOfOrder;
            return Ok(walk);
        }
        walk.end += batch.length;
        walk.last_seqno = Some(batch.seqno);
        // The items have their own checksum, which represents them here.
        whole.update(&batch.seqno.to_le_bytes());
        whole.update(&batch.checksum.to_le_bytes());
    }
    walk.checksum = whole.finalize();
    input.seek(SeekFrom::Start(walk.end))?;
    if is_zeros(&mut input)? {
        return Ok(walk);
    }
    let mut rest = Vec::new();
    input.seek(SeekFrom::Start(walk.end))?;
    input.read_to_end(&mut rest)?;
    walk.rest = what_follows(&rest, &walk);
    Ok(walk)
}

/// Distinguishes damage from the effects of a crash.
fn what_follows(rest: &[u8], walk: &Walk) -> Rest {
    let last = walk.last_seqno.unwrap_or(0);
    let numbers = last..last.saturating_add(SEQNO_STEP_MAX);
    let Some(start) = (1..rest.len()).find(|start| {
        let found = rest.get(*start..).and_then(|from| batch_at(from, &numbers));
        found.is_some()
    }) else {
        return Rest::Torn;
    };
    let resumes_at = walk.end + start as u64;
    // A page that was never written lies between: the power failed, and nothing was changed.
    let first_page = walk.end.next_multiple_of(PAGE_BYTES);
    let pages = (first_page..resumes_at).step_by(PAGE_BYTES as usize);
    let is_hole = |page: u64| {
        let from = (page - walk.end) as usize;
        let bytes = rest.get(from..from + PAGE_BYTES as usize);
        bytes.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0))
    };
    if pages.into_iter().any(is_hole) {
        return Rest::Torn;
    }
    let (mut whole, mut at) = (0, start);
    while let Some(batch) = rest.get(at..).and_then(|from| batch_at(from, &(0..u64::MAX))) {
        whole += 1;
        at += batch.length as usize;
    }
    Rest::Damaged { resumes_at, whole }
}

fn batch_at(bytes: &[u8], numbers: &std::ops::Range<u64>) -> Option<Batch> {
    let number = bytes.get(5..13)?.try_into().ok().map(u64::from_le_bytes)?;
    if bytes.first() != Some(&START) || !numbers.contains(&number) {
        return None;
    }
    // Reading from memory cannot fail.
    let mut input = bytes;
    read_batch(&mut input, bytes.len() as u64).ok().flatten()
}

fn is_zeros(input: &mut impl Read) -> io::Result<bool> {
    let (mut buffer, zeros) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let count = input.read(&mut buffer)?;
        if count == 0 {
            return Ok(true);
        }
        if buffer.get(..count) != zeros.get(..count) {
            return Ok(false);
        }
    }
}

struct Batch {
    seqno: u64,
    checksum: u64,
    length: u64,
}

/// Reads one batch; `None` where there is no whole one.
fn read_batch(input: &mut impl Read, most: u64) -> io::Result<Option<Batch>> {
    match try_batch(&mut Counted { input, length: 0, hasher: Xxh3::new(), most }) {
        Ok(batch) => Ok(batch),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// A reader that counts bytes, and hashes those of items.
struct Counted<'r, R> {
    input: &'r mut R,
    length: u64,
    hasher: Xxh3,
    most: u64,
}

impl<R: Read> Counted<'_, R> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        self.length += N as u64;
        Ok(bytes)
    }

    fn hashed<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let bytes = self.take::<N>()?;
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    /// Skips `count` bytes, hashing them.
    fn skip(&mut self, mut count: u64) -> io::Result<()> {
        if count > self.most {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut buffer = [0; 8192];
        while count > 0 {
            let step = count.min(buffer.len() as u64) as usize;
            let Some(part) = buffer.get_mut(..step) else { break };
            self.input.read_exact(part)?;
            self.hasher.update(part);
            self.length += step as u64;
            count -= step as u64;
        }
        Ok(())
    }
}

fn try_batch<R: Read>(input: &mut Counted<'_, R>) -> io::Result<Option<Batch>> {
    if input.take()? != [START] {
        return Ok(None);
    }
    let items = u32::from_le_bytes(input.take()?);
    let seqno = u64::from_le_bytes(input.take()?);
    for _ in 0..items {
        match input.hashed()? {
            [ITEM] => {
                let [kind, compression] = input.hashed()?;
                let _keyspace: [u8; 8] = input.hashed()?;
                let key_length = u16::from_le_bytes(input.hashed()?);
                let length = u32::from_le_bytes(input.hashed()?);
                let stored = u32::from_le_bytes(input.hashed()?);
                let is_known = TYPES.contains(&kind) && COMPRESSIONS.contains(&compression);
                if !is_known || (compression == 0 && length != stored) {
                    return Ok(None);
                }
                input.skip(u64::from(key_length) + u64::from(stored))?;
            }
            [CLEAR] => {
                let _keyspace: [u8; 8] = input.hashed()?;
            }
            _ => return Ok(None),
        }
    }
    let is_end = input.take()? == [END];
    let checksum = u64::from_le_bytes(input.take()?);
    let is_whole = is_end && input.take()? == *MAGIC && checksum == input.hasher.digest();
    Ok(is_whole.then_some(Batch { seqno, checksum, length: input.length }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(seqno: u64, value: &[u8]) -> Vec<u8> {
        let mut item = vec![ITEM, 0, 0];
        item.extend_from_slice(&7_u64.to_le_bytes());
        item.extend_from_slice(&1_u16.to_le_bytes());
        item.extend_from_slice(&(value.len() as u32).to_le_bytes());
        item.extend_from_slice(&(value.len() as u32).to_le_bytes());
        item.push(b'k');
        item.extend_from_slice(value);
        let mut bytes = vec![START, 1, 0, 0, 0];
        bytes.extend_from_slice(&seqno.to_le_bytes());
        bytes.extend_from_slice(&item);
        bytes.push(END);
        bytes.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(&item).to_le_bytes());
        bytes.extend_from_slice(MAGIC);
        bytes
    }

    fn walked(bytes: &[u8]) -> Walk {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        walk(file.path(), None).unwrap()
    }

    fn three() -> Vec<u8> {
        [batch(4, b"one"), batch(5, b"two"), batch(9, b"three")].concat()
    }

    #[test]
    fn whole_batches_with_preallocated_space_have_no_fault() {
        let bytes = three();
        let end = bytes.len() as u64;
        let well = walked(&bytes);
        assert_eq!((well.end, well.last_seqno, well.rest), (end, Some(9), Rest::Nothing));
        assert_eq!(walked(&[bytes, vec![0; 100_000]].concat()), well);
        assert_eq!(walked(&[]).rest, Rest::Nothing);
    }

    #[test]
    fn a_changed_byte_before_the_last_batch_is_damage() {
        let (bytes, last) = (three(), batch(9, b"three").len());
        for position in 0..bytes.len() - last {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[position] ^= 1 << bit;
                let rest = walked(&damaged).rest;
                // No checksum covers the number of a batch: a change that keeps the order is not
                // detected, and has no effect.
                let is_number = [5..13, 5 + bytes.len() / 3..13 + bytes.len() / 3];
                let may_hide = is_number.iter().any(|number| number.contains(&position));
                assert!(rest != Rest::Torn, "bit {bit} of byte {position}");
                assert!(may_hide || rest != Rest::Nothing, "bit {bit} of byte {position}");
                let is_seen = walked(&damaged).checksum != walked(&bytes).checksum;
                assert!(rest != Rest::Nothing || is_seen, "bit {bit} of byte {position}");
            }
        }
    }

    #[test]
    fn a_truncated_batch_counts_as_a_crash() {
        let (bytes, last) = (three(), batch(9, b"three").len());
        let whole = bytes.len() - last;
        for end in whole + 1..bytes.len() {
            let walk = walked(&bytes[..end]);
            assert_eq!((walk.end, walk.rest), (whole as u64, Rest::Torn), "cut at {end}");
        }
    }

    #[test]
    fn an_unwritten_page_counts_as_a_power_failure() {
        let first = batch(4, b"one");
        let long = batch(5, &[7; 20_000]);
        let mut bytes = [first.clone(), long, batch(6, b"three")].concat();
        bytes[4096..8192].fill(0);
        let walk = walked(&bytes);
        assert_eq!((walk.end, walk.rest), (first.len() as u64, Rest::Torn));
        bytes[5000] = 1;
        assert!(matches!(walked(&bytes).rest, Rest::Damaged { whole: 1, .. }));
    }

    #[test]
    fn a_batch_number_that_does_not_grow_is_damage() {
        let walk = walked(&[batch(4, b"one"), batch(4, b"two")].concat());
        assert_eq!(walk.rest, Rest::OutOfOrder);
    }
}
