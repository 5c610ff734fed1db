//! The two protocols, as far as a load generator needs them.

use crate::{Fallible, Target};
use clap::ValueEnum;

/// The protocol of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// RESP.
    Redis,
    /// ZMTP and MessagePack.
    Vatn,
    /// ZMTP; every request comes back as it went.
    Echo,
}

/// The kind of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Value,
    Absent,
    /// vatn's write queue had no room for it.
    Refused,
}

const MORE: u8 = 1;
const LONG: u8 = 2;

impl Protocol {
    /// The length and shape of the reply at the front of `bytes`; `None` when it is not whole.
    pub fn reply(self, bytes: &[u8]) -> Fallible<Option<(usize, Shape)>> {
        match self {
            Protocol::Redis => resp_reply(bytes),
            Protocol::Vatn => match zmtp_message(bytes)? {
                None => Ok(None),
                Some(length) => Ok(Some((length, response_shape(bytes)?))),
            },
            Protocol::Echo => Ok(zmtp_message(bytes)?.map(|length| (length, Shape::Value))),
        }
    }
}

/// The length of the whole message at the front.
fn zmtp_message(bytes: &[u8]) -> Fallible<Option<usize>> {
    let mut rest = bytes;
    loop {
        let Some((flags, content_at, length)) = zmtp_frame(rest)? else { return Ok(None) };
        let Some(after) = rest.get(content_at + length..) else { return Ok(None) };
        rest = after;
        if flags & MORE == 0 {
            return Ok(Some(bytes.len() - rest.len()));
        }
    }
}

/// Flags, where the content begins, and how long it is.
fn zmtp_frame(bytes: &[u8]) -> Fallible<Option<(u8, usize, usize)>> {
    match bytes {
        [flags, rest @ ..] if flags & LONG != 0 => match rest.first_chunk() {
            Some(length) => Ok(Some((*flags, 9, u64::from_be_bytes(*length) as usize))),
            None => Ok(None),
        },
        [flags @ (0 | MORE), length, ..] => Ok(Some((*flags, 2, usize::from(*length)))),
        [0 | MORE] | [] => Ok(None),
        [flags, ..] => Err(format!("a frame with flags {flags}").into()),
    }
}

/// The content of the first frame of a message.
pub fn zmtp_content(message: &[u8]) -> &[u8] {
    match zmtp_frame(message) {
        Ok(Some((_, at, length))) => message.get(at..at + length).unwrap_or_default(),
        _ => &[],
    }
}

/// All requests have the id 1, so a response begins with `94 01 01`, and nil when it is no error.
fn response_shape(message: &[u8]) -> Fallible<Shape> {
    match zmtp_content(message) {
        [0x94, 1, 1, 0xc0, 0xc0] => Ok(Shape::Absent),
        [0x94, 1, 1, 0xc0, ..] => Ok(Shape::Value),
        // An error is an array that begins with its code, here a string of sixteen bytes.
        [0x94, 1, 1, _, 0xb0, code @ ..] if code.starts_with(b"WRITE_QUEUE_FULL") => {
            Ok(Shape::Refused)
        }
        other => Err(format!("an error: {}", String::from_utf8_lossy(other)).into()),
    }
}

fn resp_reply(bytes: &[u8]) -> Fallible<Option<(usize, Shape)>> {
    let Some((kind, line, mut length)) = resp_line(bytes) else { return Ok(None) };
    match kind {
        b'+' | b':' => Ok(Some((length, Shape::Value))),
        b'$' if line == b"-1" => Ok(Some((length, Shape::Absent))),
        b'$' => {
            length += resp_number(line)? + 2;
            Ok((bytes.len() >= length).then_some((length, Shape::Value)))
        }
        b'*' => {
            for _ in 0..resp_number(line)? {
                let rest = bytes.get(length..).unwrap_or_default();
                let Some((item, _)) = resp_reply(rest)? else { return Ok(None) };
                length += item;
            }
            Ok(Some((length, Shape::Value)))
        }
        _ => Err(format!("an error: {}", String::from_utf8_lossy(line)).into()),
    }
}

/// The first byte, the rest of its line, and the length of both with the line's end.
fn resp_line(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (kind, rest) = bytes.split_first()?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    Some((*kind, rest.get(..end)?, end + 3))
}

fn resp_number(line: &[u8]) -> Fallible<usize> {
    Ok(std::str::from_utf8(line)?.parse()?)
}

/// The elements of an array of strings.
pub fn resp_strings(mut bytes: &[u8]) -> Fallible<Vec<&[u8]>> {
    let (_, line, length) = resp_line(bytes).ok_or("an array was expected")?;
    let mut strings = Vec::with_capacity(resp_number(line)?);
    bytes = bytes.get(length..).unwrap_or_default();
    while let Some((_, line, length)) = resp_line(bytes) {
        let end = length + resp_number(line)?;
        strings.push(bytes.get(length..end).ok_or("a string was cut short")?);
        bytes = bytes.get(end + 2..).unwrap_or_default();
    }
    Ok(strings)
}

/// A redis command.
pub fn resp_command<B: AsRef<[u8]>>(words: impl ExactSizeIterator<Item = B>) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// A ZMTP message of one frame.
pub fn zmtp_single(content: &[u8]) -> Vec<u8> {
    let mut bytes = match u8::try_from(content.len()) {
        Ok(length) => vec![0, length],
        Err(_) => [&[LONG][..], &(content.len() as u64).to_be_bytes()].concat(),
    };
    bytes.extend(content);
    bytes
}

/// A request that is sent again and again, with another number in its key.
#[derive(Debug, Clone)]
pub struct Template {
    bytes: Vec<u8>,
    digits_at: usize,
    digits: usize,
}

impl Template {
    /// A frame of `content`, in which the key's digits stand before `tail`.
    fn new(target: &Target, bytes: Vec<u8>, tail: usize) -> Self {
        let digits_at = bytes.len() - tail - target.digits;
        Template { bytes, digits_at, digits: target.digits }
    }

    pub fn get(target: &Target) -> Self {
        match target.protocol {
            Protocol::Redis => {
                let command = resp_command([b"GET".to_vec(), key(target)].into_iter());
                Self::new(target, command, 2)
            }
            Protocol::Vatn | Protocol::Echo => {
                let content = [b"\x94\0\x01\xa3get\x91".to_vec(), str(&key(target))].concat();
                Self::new(target, zmtp_single(&content), 0)
            }
        }
    }

    pub fn set(target: &Target) -> Self {
        let value = vec![b'x'; target.value_size];
        match target.protocol {
            Protocol::Redis => Self::before_value(target, "SET", &value),
            Protocol::Vatn | Protocol::Echo => {
                let mut tail = bin(&value);
                tail.push(0x81);
                tail.extend(str(b"durability"));
                tail.extend(str(target.level.as_bytes()));
                let head = [b"\x94\0\x01\xa3set\x93".to_vec(), str(&key(target))].concat();
                let content = [head, tail.clone()].concat();
                Self::new(target, zmtp_single(&content), tail.len())
            }
        }
    }

    /// `ZADD index 0 key`.
    pub fn index(target: &Target) -> Self {
        let words = [b"ZADD".to_vec(), b"index".to_vec(), b"0".to_vec(), key(target)];
        Self::new(target, resp_command(words.into_iter()), 2)
    }

    /// `COMMAND key value`.
    pub fn before_value(target: &Target, command: &str, value: &[u8]) -> Self {
        let words = [command.as_bytes().to_vec(), key(target), value.to_vec()];
        let tail = resp_command([value].into_iter()).len() - "*1\r\n".len() + 2;
        Self::new(target, resp_command(words.into_iter()), tail)
    }

    pub fn append(&self, out: &mut Vec<u8>, mut key: u64) {
        let start = out.len() + self.digits_at;
        out.extend_from_slice(&self.bytes);
        if let Some(digits) = out.get_mut(start..start + self.digits) {
            for digit in digits.iter_mut().rev() {
                *digit = b'0' + (key % 10) as u8;
                key /= 10;
            }
        }
    }
}

/// A key with zeros for its number.
fn key(target: &Target) -> Vec<u8> {
    format!("{}{:0width$}", target.prefix, 0, width = target.digits).into_bytes()
}

/// A MessagePack str of less than 256 bytes.
pub fn str(bytes: &[u8]) -> Vec<u8> {
    let head = match bytes.len() {
        length @ 0..32 => vec![0xa0 | length as u8],
        length => vec![0xd9, length as u8],
    };
    [head, bytes.to_vec()].concat()
}

fn bin(bytes: &[u8]) -> Vec<u8> {
    let head = match u8::try_from(bytes.len()) {
        Ok(length) => vec![0xc4, length],
        Err(_) => [&[0xc6][..], &(bytes.len() as u32).to_be_bytes()].concat(),
    };
    [head, bytes.to_vec()].concat()
}
