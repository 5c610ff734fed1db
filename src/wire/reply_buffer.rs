//! Encoded replies as they leave the engine's lock: small values copied, large ones by reference.
//!
//! A copy of some MiB takes as long as thousands of commands. So under the lock only a reference is
//! taken, and whoever has left the lock fills the bytes in, if the reply is sent at all.

use super::Shared;
use super::reply::Value;

/// Where replies are encoded to.
pub trait Sink {
    /// Where to append bytes.
    fn bytes(&mut self) -> &mut Vec<u8>;

    /// Appends a value as it was stored.
    fn value(&mut self, value: &Value<'_>) {
        self.bytes().extend_from_slice(value.bytes);
    }

    /// Appends what is in a buffer.
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
    /// Each stands before the byte at its place.
    shared: Vec<(usize, Shared)>,
    shared_bytes: usize,
}

/// A place to which a buffer can be cut back.
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
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.shared_bytes += other.shared_bytes;
        self.shared.extend(other.shared.iter().map(|(at, value)| (start + at, value.clone())));
    }
}

impl ReplyBuffer {
    /// A buffer that goes on behind `bytes`.
    pub fn after(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// How long it is when everything is filled in.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.shared_bytes
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes have been copied so far.
    pub fn copied(&self) -> usize {
        self.bytes.len()
    }

    /// The place behind what is in it.
    pub fn mark(&self) -> Mark {
        Mark { bytes: self.bytes.len(), shared: self.shared.len() }
    }

    /// Forgets everything behind `mark`.
    pub fn truncate(&mut self, mark: Mark) {
        self.bytes.truncate(mark.bytes);
        let gone = self.shared.drain(mark.shared.min(self.shared.len())..);
        self.shared_bytes -= gone.map(|(_, value)| value.len()).sum::<usize>();
    }

    /// Appends a large value by reference.
    pub fn share(&mut self, value: &Shared) {
        self.shared_bytes += value.len();
        self.shared.push((self.bytes.len(), Shared::clone(value)));
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

    fn fill_into(&self, out: &mut Vec<u8>) {
        let mut done = 0;
        for (at, value) in &self.shared {
            out.extend_from_slice(self.bytes.get(done..*at).unwrap_or_default());
            out.extend_from_slice(value);
            done = *at;
        }
        out.extend_from_slice(self.bytes.get(done..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_stands_where_it_was_appended() {
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
            assert_eq!(buffer.fill(), plain);
        }
    }
}
