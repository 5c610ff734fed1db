//! Reads MessagePack from a frame: borrowed, bounded in depth, and never trusting a length.

use super::refusal::{Code, Refusal};
use crate::limits::DEPTH_MAX;

/// Why a read failed. Small and `Copy`: the sentence is made only when a reply needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The bytes end inside a value.
    Truncated,
    /// The byte 0xC1, which MessagePack never uses.
    Invalid,
    /// Nested deeper than [`DEPTH_MAX`].
    TooDeep,
    /// A well-formed value of another type than the expected one.
    Wrong {
        /// The expected type.
        wanted: &'static str,
    },
}

impl Fault {
    /// The refusal for a fault in the argument or option called `name`.
    #[cold]
    pub fn at(self, name: &str) -> Refusal {
        let text = match self {
            Self::Truncated => "the message ends inside a value",
            Self::Invalid => "0xC1 is not MessagePack",
            Self::TooDeep => "nested deeper than 64 levels",
            Self::Wrong { wanted } => return Refusal::argument(name, format!("must be {wanted}")),
        };
        Refusal::new(Code::BadRequest, format!("{name}: {text}"))
    }

    /// The refusal for a fault in the envelope, where every fault is `BAD_REQUEST`.
    #[cold]
    pub fn in_envelope(self, name: &str) -> Refusal {
        match self {
            Self::Wrong { wanted } => {
                Refusal::new(Code::BadRequest, format!("{name} must be {wanted}"))
            }
            other => other.at(name),
        }
    }
}

/// The result of a read.
pub type Read<T> = Result<T, Fault>;

/// A cursor over MessagePack bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// The shape of a value, read from its first byte and length bytes.
enum Head {
    /// `n` more bytes follow, and no values.
    Scalar(usize),
    /// `n` values follow.
    Values(u64),
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether all has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The first byte of the next value, left in place.
    #[inline]
    pub fn peek(&self) -> Read<u8> {
        self.rest.first().copied().ok_or(Fault::Truncated)
    }

    /// Skips `bytes` if they are next; returns whether they were.
    #[inline]
    pub fn pass(&mut self, bytes: &[u8]) -> bool {
        let rest = self.rest.strip_prefix(bytes);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    #[inline]
    fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn byte(&mut self) -> Read<u8> {
        let (first, rest) = self.rest.split_first().ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    fn length(&mut self, width: usize) -> Read<usize> {
        Ok(match width {
            1 => usize::from(self.byte()?),
            2 => usize::from(u16::from_be_bytes(self.array()?)),
            _ => u32::from_be_bytes(self.array()?) as usize,
        })
    }

    /// Reads nil if the next value is nil; returns whether it was.
    #[inline]
    pub fn nil(&mut self) -> Read<bool> {
        let is_nil = self.peek()? == 0xC0;
        if is_nil {
            self.byte()?;
        }
        Ok(is_nil)
    }

    /// Reads a boolean.
    pub fn bool(&mut self) -> Read<bool> {
        match self.peek()? {
            marker @ (0xC2 | 0xC3) => {
                self.byte()?;
                Ok(marker == 0xC3)
            }
            _ => Err(Fault::Wrong { wanted: "a boolean" }),
        }
    }

    /// Reads an integer of any width, -2^63 to 2^64-1.
    #[inline]
    pub fn int(&mut self) -> Read<i128> {
        match self.small() {
            Some(number) => Ok(i128::from(number)),
            None => self.wide_int(),
        }
    }

    /// Reads an integer of one byte, the usual case, if it is next.
    fn small(&mut self) -> Option<u8> {
        let (first @ 0x00..=0x7F, rest) = self.rest.split_first()? else { return None };
        self.rest = rest;
        Some(*first)
    }

    fn wide_int(&mut self) -> Read<i128> {
        let marker = self.peek()?;
        if !matches!(marker, 0x00..=0x7F | 0xCC..=0xD3 | 0xE0..=0xFF) {
            return Err(Fault::Wrong { wanted: "an integer" });
        }
        self.byte()?;
        Ok(match marker {
            0xCC => i128::from(self.byte()?),
            0xCD => i128::from(u16::from_be_bytes(self.array()?)),
            0xCE => i128::from(u32::from_be_bytes(self.array()?)),
            0xCF => i128::from(u64::from_be_bytes(self.array()?)),
            0xD0 => i128::from(i8::from_be_bytes(self.array()?)),
            0xD1 => i128::from(i16::from_be_bytes(self.array()?)),
            0xD2 => i128::from(i32::from_be_bytes(self.array()?)),
            0xD3 => i128::from(i64::from_be_bytes(self.array()?)),
            fixint => i128::from(fixint as i8),
        })
    }

    /// Reads a non-negative integer of any width.
    #[inline]
    pub fn uint(&mut self) -> Read<u64> {
        match self.small() {
            Some(number) => Ok(u64::from(number)),
            None => self.wide_uint(),
        }
    }

    fn wide_uint(&mut self) -> Read<u64> {
        let (number, rest) = match self.rest {
            [0xCC, a, rest @ ..] => (u64::from(*a), rest),
            [0xCD, a, b, rest @ ..] => (u64::from(u16::from_be_bytes([*a, *b])), rest),
            [0xCE, a, b, c, d, rest @ ..] => {
                (u64::from(u32::from_be_bytes([*a, *b, *c, *d])), rest)
            }
            _ => return self.rare_uint(),
        };
        self.rest = rest;
        Ok(number)
    }

    fn rare_uint(&mut self) -> Read<u64> {
        let mut ahead = self.clone();
        let wrong = Fault::Wrong { wanted: "an integer from 0 to 2^64-1" };
        let number = match ahead.wide_int() {
            Err(Fault::Wrong { .. }) => return Err(wrong),
            other => other?,
        };
        let number = u64::try_from(number).map_err(|_| wrong)?;
        *self = ahead;
        Ok(number)
    }

    /// Reads a str or a bin as bytes.
    #[inline]
    pub fn bytes(&mut self) -> Read<&'a [u8]> {
        let (len, rest) = match self.rest {
            [marker @ 0xA0..=0xBF, rest @ ..] => (marker & 0x1F, rest),
            [0xC4 | 0xD9, len, rest @ ..] => (*len, rest),
            _ => return self.long_bytes(),
        };
        let (taken, rest) = rest.split_at_checked(usize::from(len)).ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn long_bytes(&mut self) -> Read<&'a [u8]> {
        let width = match self.peek()? {
            0xC4 | 0xD9 => 1,
            0xC5 | 0xDA => 2,
            0xC6 | 0xDB => 4,
            _ => return Err(Fault::Wrong { wanted: "a string or bytes" }),
        };
        self.byte()?;
        let len = self.length(width)?;
        self.take(len)
    }

    /// Reads the head of an array; its elements follow.
    #[inline]
    pub fn array_len(&mut self) -> Read<usize> {
        match self.rest {
            [marker @ 0x90..=0x9F, rest @ ..] => {
                self.rest = rest;
                Ok(usize::from(marker & 0x0F))
            }
            _ => self.long_len([0xDC, 0xDD], "an array"),
        }
    }

    /// Reads the head of a map; its keys and values follow in turn.
    #[inline]
    pub fn map_len(&mut self) -> Read<usize> {
        match self.rest {
            [marker @ 0x80..=0x8F, rest @ ..] => {
                self.rest = rest;
                Ok(usize::from(marker & 0x0F))
            }
            _ => self.long_len([0xDE, 0xDF], "a map"),
        }
    }

    /// Reads the head of an array or a map that has its length in two or in four bytes.
    fn long_len(&mut self, [two, four]: [u8; 2], wanted: &'static str) -> Read<usize> {
        let width = match self.peek()? {
            marker if marker == two => 2,
            marker if marker == four => 4,
            _ => return Err(Fault::Wrong { wanted }),
        };
        self.byte()?;
        self.length(width)
    }

    /// Reads one value of any type, fully checked, as its bytes.
    #[inline]
    pub fn value(&mut self) -> Read<&'a [u8]> {
        // Most values are short strings or bytes, whose first bytes give their length.
        let len = match self.rest {
            [marker @ 0xA0..=0xBF, ..] => 1 + usize::from(marker & 0x1F),
            [0xC4 | 0xD9, len, ..] => 2 + usize::from(*len),
            _ => {
                let mut ahead = self.clone();
                ahead.skip(DEPTH_MAX)?;
                self.rest.len() - ahead.rest.len()
            }
        };
        self.take(len)
    }

    /// Skips one value that may hold arrays and maps `depth` levels deep.
    fn skip(&mut self, depth: usize) -> Read<()> {
        match self.head()? {
            Head::Scalar(len) => self.take(len).map(|_| ()),
            Head::Values(count) => {
                let depth = depth.checked_sub(1).ok_or(Fault::TooDeep)?;
                let mut left = count;
                while left > 0 {
                    // Short elements are skipped together: a message may hold millions.
                    let singles = self.singles(left);
                    if singles == 0 {
                        self.skip(depth)?;
                    } else {
                        self.take(singles)?;
                    }
                    left -= singles.max(1) as u64;
                }
                Ok(())
            }
        }
    }

    /// How many of the next elements, at most `most`, are one byte long each.
    fn singles(&self, most: u64) -> usize {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let is_single = |byte: &&u8| matches!(byte, 0x00..=0x7F | 0xE0..=0xFF | 0xC0 | 0xC2 | 0xC3);
        self.rest.iter().take(most).take_while(is_single).count()
    }

    fn head(&mut self) -> Read<Head> {
        let marker = self.byte()?;
        Ok(match marker {
            0x00..=0x7F | 0xE0..=0xFF | 0xC0 | 0xC2 | 0xC3 => Head::Scalar(0),
            0x80..=0x8F => Head::Values(2 * u64::from(marker & 0x0F)),
            0x90..=0x9F => Head::Values(u64::from(marker & 0x0F)),
            0xA0..=0xBF => Head::Scalar(usize::from(marker & 0x1F)),
            0xC1 => return Err(Fault::Invalid),
            0xC4 | 0xD9 => Head::Scalar(self.length(1)?),
            0xC5 | 0xDA => Head::Scalar(self.length(2)?),
            0xC6 | 0xDB => Head::Scalar(self.length(4)?),
            // An ext has one byte of type before its data.
            0xC7 => Head::Scalar(self.length(1)? + 1),
            0xC8 => Head::Scalar(self.length(2)? + 1),
            0xC9 => Head::Scalar(self.length(4)? + 1),
            0xCC | 0xD0 => Head::Scalar(1),
            0xCD | 0xD1 => Head::Scalar(2),
            0xCA | 0xCE | 0xD2 => Head::Scalar(4),
            0xCB | 0xCF | 0xD3 => Head::Scalar(8),
            0xD4..=0xD8 => Head::Scalar((1 << (marker - 0xD4)) + 1),
            0xDC => Head::Values(self.length(2)? as u64),
            0xDD => Head::Values(self.length(4)? as u64),
            0xDE => Head::Values(2 * self.length(2)? as u64),
            0xDF => Head::Values(2 * self.length(4)? as u64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::writer;

    #[test]
    fn integers_of_every_width_decode_unchanged() {
        let numbers = [0, 1, 127, 128, 255, 256, 65_535, 65_536, i128::from(u32::MAX), 1 << 32];
        let ends = [i128::from(u64::MAX), i128::from(i64::MIN), -1, -32, -33, -128, -129, -32_769];
        for number in numbers.into_iter().chain(ends) {
            let mut out = Vec::new();
            writer::int(&mut out, number);
            assert_eq!(Reader::new(&out).int(), Ok(number));
        }
    }

    #[test]
    fn a_claimed_length_costs_nothing() {
        for claim in
            [[0xDD, 255, 255, 255, 255], [0xDF, 255, 255, 255, 255], [0xC6, 255, 255, 255, 255]]
        {
            assert_eq!(Reader::new(&claim).value(), Err(Fault::Truncated));
        }
    }

    #[test]
    fn sixty_four_levels_pass_and_sixty_five_do_not() {
        let nested = |levels: usize| [vec![0x91; levels], vec![0xC0]].concat();
        assert!(Reader::new(&nested(64)).value().is_ok());
        assert_eq!(Reader::new(&nested(65)).value(), Err(Fault::TooDeep));
    }
}
