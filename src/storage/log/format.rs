//! The bytes of a log file: a head, written twice, and frames, each a record with its key.
//!
//! ```text
//! file   head | head | frame*
//! head   "vatn log" | version u32 | salt u64 | first key u64 | first key of the file before u64
//!        | crc32 u32 of these
//! frame  "rec:" | length u32 | key u64 | synced_to u64 | crc32 u32 of the record
//!        | crc32 u32 of salt, place and these | the record, length bytes of it
//! ```
//!
//! All numbers are little-endian. Zeros follow the frames of a file that is being written.
//! `synced_to` is the length known to be on the disk when the frame was written: a fault before
//! that offset is damage, and no effect of a crash. The checksum of a frame covers its offset and
//! the file's salt, 8 random bytes, so user data that looks like a frame is never mistaken for one.

use crate::protocol::Fields;
use std::hash::{BuildHasher, RandomState};

const MAGIC: &[u8; 8] = b"vatn log";
const VERSION: u32 = 1;
const HEAD_COPY_BYTES: usize = 8 + 4 + 8 + 8 + 8 + 4;
/// Both copies of the head.
pub(super) const HEAD_BYTES: u64 = 2 * HEAD_COPY_BYTES as u64;

/// The first bytes of a frame.
pub(super) const FRAME_MARK: &[u8; 4] = b"rec:";
pub(super) const FRAME_HEAD_BYTES: usize = 4 + 4 + 8 + 8 + 4 + 4;

/// The head of a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) struct Head {
    /// Distinguishes this file from every other, including an earlier one of the same name.
    pub(in crate::storage) salt: u64,
    /// The key of its first frame, which is its name too.
    pub(in crate::storage) first: u64,
    /// The first key of the file before it; 0 when there was none.
    pub(in crate::storage) previous: u64,
}

/// The fault in the head of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HeadFault {
    /// One copy is readable.
    OneCopy(Head),
    /// No copy is readable.
    Damaged,
    /// A newer version of vatn wrote the file.
    Version(u32),
}

impl Head {
    pub(super) fn new(first: u64, previous: u64) -> Self {
        Self { salt: RandomState::new().hash_one(first), first, previous }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut copy = MAGIC.to_vec();
        copy.extend_from_slice(&VERSION.to_le_bytes());
        for number in [self.salt, self.first, self.previous] {
            copy.extend_from_slice(&number.to_le_bytes());
        }
        copy.extend_from_slice(&crc32fast::hash(&copy).to_le_bytes());
        copy.repeat(2)
    }

    /// Reads the head of a file; both copies must be there, and equal.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeadFault> {
        let mut copies = bytes.chunks_exact(HEAD_COPY_BYTES).map(Self::decode_copy);
        let mut next = || copies.next().unwrap_or(Err(HeadFault::Damaged));
        match (next(), next()) {
            (Ok(one), Ok(other)) if one == other => Ok(one),
            (Ok(_), Ok(_)) => Err(HeadFault::Damaged),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Err(HeadFault::OneCopy(one)),
            (Err(fault), Err(_)) => Err(fault),
        }
    }

    fn decode_copy(bytes: &[u8]) -> Result<Self, HeadFault> {
        let (fields, checksum) = bytes.split_last_chunk::<4>().ok_or(HeadFault::Damaged)?;
        if crc32fast::hash(fields) != u32::from_le_bytes(*checksum) {
            return Err(HeadFault::Damaged);
        }
        let mut fields = Fields::new(fields);
        let magic = fields.take().ok_or(HeadFault::Damaged)?;
        let version = fields.take().map(u32::from_le_bytes).ok_or(HeadFault::Damaged)?;
        if magic != *MAGIC {
            return Err(HeadFault::Damaged);
        }
        if version != VERSION {
            return Err(HeadFault::Version(version));
        }
        let mut number = || fields.number().ok_or(HeadFault::Damaged);
        Ok(Self { salt: number()?, first: number()?, previous: number()? })
    }
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) key: u64,
    /// The length of the record, in bytes.
    pub(super) length: u32,
    pub(super) synced_to: u64,
    /// The checksum of the record.
    pub(super) checksum: u32,
}

impl FrameHead {
    /// `None` for a record that is too long for a frame.
    pub(super) fn of(key: u64, record: &[u8], synced_to: u64) -> Option<Self> {
        let length = u32::try_from(record.len()).ok()?;
        Some(Self { key, length, synced_to, checksum: crc32fast::hash(record) })
    }

    /// The bytes of a frame's head at `place` of the file that has `salt`.
    pub(super) fn encode(&self, salt: u64, place: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(FRAME_HEAD_BYTES);
        out.extend_from_slice(FRAME_MARK);
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.key.to_le_bytes());
        out.extend_from_slice(&self.synced_to.to_le_bytes());
        out.extend_from_slice(&self.checksum.to_le_bytes());
        let checksum = seal(&out, salt, place);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads the head of a frame at `place`; `None` when there is none.
    pub(super) fn decode(bytes: &[u8], salt: u64, place: u64) -> Option<Self> {
        let bytes = bytes.get(..FRAME_HEAD_BYTES)?;
        let (fields, checksum) = bytes.split_last_chunk::<4>()?;
        if seal(fields, salt, place) != u32::from_le_bytes(*checksum) {
            return None;
        }
        Self::decode_unsealed(fields)
    }

    /// Like `decode`, without verifying the checksum.
    pub(super) fn decode_unsealed(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        if fields.take()? != *FRAME_MARK {
            return None;
        }
        Some(Self {
            length: u32::from_le_bytes(fields.take()?),
            key: fields.number()?,
            synced_to: fields.number()?,
            checksum: u32::from_le_bytes(fields.take()?),
        })
    }

    /// The length of the whole frame, in bytes.
    pub(super) fn frame_bytes(&self) -> u64 {
        FRAME_HEAD_BYTES as u64 + u64::from(self.length)
    }
}

fn seal(fields: &[u8], salt: u64, place: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&place.to_le_bytes());
    hasher.update(fields);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_with_one_good_copy_is_still_readable() {
        let head = Head::new(7, 3);
        let bytes = head.encode();
        assert_eq!(bytes.len() as u64, HEAD_BYTES);
        assert_eq!(Head::decode(&bytes), Ok(head));
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 4;
            assert_eq!(Head::decode(&damaged), Err(HeadFault::OneCopy(head)), "byte {place}");
        }
        let mut other = bytes.clone();
        other[HEAD_COPY_BYTES..].copy_from_slice(&Head::new(8, 3).encode()[..HEAD_COPY_BYTES]);
        assert_eq!(Head::decode(&other), Err(HeadFault::Damaged));
        assert_eq!(Head::decode(&bytes[..20]), Err(HeadFault::Damaged));
    }

    #[test]
    fn a_frame_is_valid_only_at_its_own_offset_in_its_own_file() {
        let head = FrameHead::of(9, b"record", 80).unwrap();
        let bytes = head.encode(5, 80);
        assert_eq!(FrameHead::decode(&bytes, 5, 80), Some(head));
        assert_eq!(FrameHead::decode(&bytes, 5, 81), None);
        assert_eq!(FrameHead::decode(&bytes, 6, 80), None);
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            assert_eq!(FrameHead::decode(&damaged, 5, 80), None, "byte {place}");
        }
    }
}
