//! Encoded replies as they leave the engine's lock: small values copied, large ones by reference.
//!
//! A copy of some MiB takes as long as thousands of commands. So under the lock only a reference is
//! taken. The sender of the reply copies short values, and writes long ones from where they are.

use super::Shared;
use super::value::Value;
use bytes::Bytes;
use std::ops::Range;

/// A value of at least this length is written to a socket from where it is; a shorter one is copied
/// between the bytes before and after it.
pub const WRITTEN_IN_PLACE_BYTES: usize = 64 * 1024;

/// Where replies are encoded to.
pub trait Sink {
    /// Where to append bytes.
    fn bytes(&mut self) -> &mut Vec<u8>;

    /// Appends a value as it was stored.
    fn value(&mut self, value: &Value<'_>) {
        self.bytes().extend_from_slice(value.bytes);
    }

    /// Appends the contents of a buffer.
    fn append(&mut self, other: &ReplyBuffer) {
        other.fill_into(self.bytes());
    }
}

impl Sink for Vec<u8> {
    fn bytes(&mut self) -> &mut Vec<u8> {
        self
    }
}

/// Encoded bytes with holes, and the values that belong there.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct ReplyBuffer {
    bytes: Vec<u8>,
    shared: Vec<Hole>,
    shared_bytes: usize,
    /// How many bytes of these values are copied later.
    short_bytes: usize,
}

/// A value between copied bytes.
#[derive(Debug, Clone, PartialEq)]
struct Hole {
    /// How many copied bytes precede it.
    copied: usize,
    /// Its offset in the filled buffer: the copied bytes and the values before it.
    place: usize,
    value: Shared,
}

/// Some of a buffer's bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Piece<'b> {
    /// Bytes that were copied.
    Bytes(&'b [u8]),
    /// A large value.
    Shared(&'b Shared),
}

impl Piece<'_> {
    /// The bytes of the value.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Shared(value) => value,
        }
    }
}

/// A position to which a buffer can be cut back.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    bytes: usize,
    shared: usize,
}

impl Sink for ReplyBuffer {
    fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    fn value(&mut self, value: &Value<'_>) {
        match value.shared {
            Some(shared) => self.share(shared),
            None => self.bytes.extend_from_slice(value.bytes),
        }
    }

    fn append(&mut self, other: &ReplyBuffer) {
        let (start, place) = (self.bytes.len(), self.len());
        self.bytes.extend_from_slice(&other.bytes);
        self.shared_bytes += other.shared_bytes;
        self.short_bytes += other.short_bytes;
        self.shared.extend(other.shared.iter().map(|hole| Hole {
            copied: start + hole.copied,
            place: place + hole.place,
            value: Shared::clone(&hole.value),
        }));
    }
}

impl ReplyBuffer {
    /// A buffer that continues after `bytes`.
    pub fn after(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Where to append bytes.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Its length once everything is filled in.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.shared_bytes
    }

    /// Whether the buffer is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes have been copied so far.
    pub fn copied(&self) -> usize {
        self.bytes.len()
    }

    /// How many bytes of the values in it will be copied.
    pub fn to_copy(&self) -> usize {
        self.short_bytes
    }

    /// The position after its contents.
    pub fn mark(&self) -> Mark {
        Mark { bytes: self.bytes.len(), shared: self.shared.len() }
    }

    /// Removes everything after `mark`.
    pub fn truncate(&mut self, mark: Mark) {
        self.bytes.truncate(mark.bytes);
        for Hole { value, .. } in self.shared.drain(mark.shared.min(self.shared.len())..) {
            self.shared_bytes -= value.len();
            self.short_bytes -= short(&value);
        }
    }

    /// Appends a large value by reference.
    pub fn share(&mut self, value: &Shared) {
        let (copied, place) = (self.bytes.len(), self.len());
        self.shared.push(Hole { copied, place, value: Shared::clone(value) });
        self.shared_bytes += value.len();
        self.short_bytes += short(value);
    }

    /// The copied bytes, where there are no shared values.
    #[inline]
    pub fn plain(&self) -> Option<&[u8]> {
        self.shared.is_empty().then_some(&self.bytes)
    }

    /// The bytes from one position to another: copied ones, and shared values. A shared value is in
    /// the range as a whole, or outside of it.
    pub fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = Piece<'_>> {
        let (before, holes) = self.holes_in(&range);
        // The position in all bytes, and in the copied ones.
        let (mut place, mut copied) =
            before.map_or((0, 0), |hole| (hole.place + hole.value.len(), hole.copied));
        let ends = holes.iter().map(|hole| (hole.copied, Some(&hole.value)));
        let ends = ends.chain(std::iter::once((self.bytes.len(), None)));
        ends.flat_map(move |(at, value)| {
            let before = place..place + (at - copied);
            let from = copied + range.start.clamp(before.start, before.end) - before.start;
            let to = copied + range.end.clamp(before.start, before.end) - before.start;
            let bytes = self.bytes.get(from..to).filter(|bytes| !bytes.is_empty());
            place = before.end + value.map_or(0, |value| value.len());
            copied = at;
            [bytes.map(Piece::Bytes), value.map(Piece::Shared)].into_iter().flatten()
        })
    }

    /// The values in a range, and the one before them. A turn has thousands of replies in one
    /// buffer: each finds its values by a search, and not by a walk over those of the others.
    fn holes_in(&self, range: &Range<usize>) -> (Option<&Hole>, &[Hole]) {
        let first = self.shared.partition_point(|hole| hole.place < range.start);
        let (before, rest) = self.shared.split_at(first);
        let count = rest.partition_point(|hole| hole.place < range.end);
        (before.last(), rest.get(..count).unwrap_or_default())
    }

    /// The bytes, with the large values filled in.
    pub fn fill(self) -> Vec<u8> {
        if self.shared.is_empty() {
            return self.bytes;
        }
        let mut filled = Vec::with_capacity(self.len());
        self.fill_into(&mut filled);
        filled
    }

    /// The bytes from `start` on, without a copy where they are a shared value.
    pub fn into_bytes_from(self, start: usize) -> Bytes {
        match &*self.shared {
            [Hole { copied, value, .. }] if *copied == start && start == self.bytes.len() => {
                Bytes::from_owner(Shared::clone(value))
            }
            _ => {
                let filled = Bytes::from(self.fill());
                filled.slice(start.min(filled.len())..)
            }
        }
    }

    /// Removes everything, and keeps an allocation of at most this many bytes.
    pub fn clear(&mut self, kept: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(kept);
        self.shared.clear();
        (self.shared_bytes, self.short_bytes) = (0, 0);
    }

    fn fill_into(&self, out: &mut Vec<u8>) {
        let mut done = 0;
        for Hole { copied, value, .. } in &self.shared {
            out.extend_from_slice(self.bytes.get(done..*copied).unwrap_or_default());
            out.extend_from_slice(value);
            done = *copied;
        }
        out.extend_from_slice(self.bytes.get(done..).unwrap_or_default());
    }
}

fn short(value: &Shared) -> usize {
    if value.len() < WRITTEN_IN_PLACE_BYTES { value.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(buffer: &ReplyBuffer, range: Range<usize>) -> Vec<u8> {
        buffer.pieces(range).flat_map(|piece| piece.bytes().to_vec()).collect()
    }

    #[test]
    fn shared_values_are_filled_in_where_they_were_appended() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..200 {
            let (mut buffer, mut plain) = (ReplyBuffer::default(), Vec::new());
            let (mut cut, mut cut_plain) = (buffer.mark(), 0);
            for number in 0..random.u8(..20) {
                let value: Shared = vec![number; random.usize(..9)].into();
                match random.u8(..4) {
                    0 => buffer.share(&value),
                    1 => buffer.value(&Value::from(&value[..])),
                    2 => {
                        let mut other = ReplyBuffer::after(vec![9]);
                        other.share(&value);
                        buffer.append(&other);
                        plain.push(9);
                    }
                    _ => {
                        buffer.truncate(cut);
                        plain.truncate(cut_plain);
                        (cut, cut_plain) = (buffer.mark(), plain.len());
                        continue;
                    }
                }
                plain.extend_from_slice(&value);
                assert_eq!(buffer.len(), plain.len());
                if random.bool() {
                    (cut, cut_plain) = (buffer.mark(), plain.len());
                }
            }
            let start = random.usize(..=buffer.len());
            if of(&buffer, 0..start).len() == start {
                let parts = [0..start, start..plain.len()];
                assert_eq!(parts.map(|part| of(&buffer, part)).concat(), plain);
                assert_eq!(buffer.clone().into_bytes_from(start), plain[start..]);
            }
            assert_eq!(of(&buffer, 0..plain.len()), plain);
            assert_eq!(buffer.plain().is_some(), buffer.shared.is_empty());
            assert_eq!(buffer.fill(), plain);
        }
    }

    #[test]
    fn a_reply_finds_its_values_without_a_walk_over_those_of_other_replies() {
        let (mut buffer, value) = (ReplyBuffer::default(), Shared::from([7; 5]));
        let mut ranges = Vec::new();
        for number in 0..1_000_u32 {
            let start = buffer.len();
            buffer.bytes().extend_from_slice(&number.to_le_bytes());
            // Some replies have no value, some have two.
            (0..number % 3).for_each(|_| buffer.share(&value));
            ranges.push((start..buffer.len(), number));
        }
        for (range, number) in ranges {
            let count = number as usize % 3;
            assert_eq!(buffer.holes_in(&range).1.len(), count, "{number}");
            let expected = [&number.to_le_bytes()[..], &[7].repeat(5 * count)].concat();
            assert_eq!(of(&buffer, range), expected);
        }
    }
}
