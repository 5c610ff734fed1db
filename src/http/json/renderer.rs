//! Renders one value from MessagePack to JSON, and can stop and continue between any two steps.

use super::{Sink, escape, print};
use crate::limits::{DEPTH_MAX, KEY_BYTES_MAX};
use crate::protocol::Reader;
use crate::protocol::reader::{Fault, Read};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A slice ends once this many bytes have been read and written.
pub const SLICE_BYTES: usize = 64 * 1024;
/// The most by which one step exceeds [`SLICE_BYTES`]: a key of the store, each byte of which may
/// be six in JSON, and the text around it.
pub const STEP_BYTES_MAX: usize = 7 * KEY_BYTES_MAX + 1024;
/// How many bytes of a str or bin are one step; a multiple of three, for base64.
const PIECE_BYTES: usize = 3 * 1024;

/// The work of a slice, in bytes read and written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Spent(pub usize);

impl Spent {
    /// Whether the slice is over.
    pub fn is_over(self) -> bool {
        self.0 >= SLICE_BYTES
    }
}

/// A value that is being rendered.
#[derive(Debug, Clone)]
pub struct Renderer {
    /// The position of the next byte to read.
    at: usize,
    /// The arrays and maps around that position.
    around: Vec<Around>,
    part: Part,
    /// How many of these are around a map's key that is rendered as text within quotes.
    key_at: Option<usize>,
}

/// An array or a map whose parts are being rendered.
#[derive(Debug, Clone, Copy)]
struct Around {
    /// How many parts are left; a pair of a map is two.
    left: u64,
    is_map: bool,
}

/// The next part to render.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A value.
    Value,
    /// A str from `start` to `end`, checked to be UTF-8 up to the position.
    Checked { start: usize, end: usize, is_key: bool },
    /// The rest of a string.
    Text { end: usize },
    /// The rest of bytes in base64, and of the text begun with them.
    Base64 { end: usize, close: &'static str },
    /// Values to be skipped, the first of which began at `start`: a map's key in a key.
    Passed { start: usize, left: u64 },
    /// The end.
    End,
}

/// The size of a value's first part, read from its first bytes.
enum Head {
    /// A str of this many bytes.
    Str(usize),
    /// A bin of this many bytes.
    Bin(usize),
    /// An ext of this type and this many bytes.
    Ext(i8, usize),
    Array(u64),
    Map(u64),
    /// Any other value: it is complete.
    Scalar,
}

impl Renderer {
    /// A renderer of the value that begins at `at`.
    pub fn new(at: usize) -> Self {
        Self { at, around: Vec::new(), part: Part::Value, key_at: None }
    }

    /// The end of the value, once all of it is rendered.
    pub fn end(&self) -> Option<usize> {
        (self.part == Part::End).then_some(self.at)
    }

    /// Continues where the last call stopped, until the end of the slice or of the value. `input`
    /// is the same at each call.
    ///
    /// Returns an error at bytes that are no MessagePack value; the store holds none.
    pub fn run(&mut self, input: &[u8], out: &mut impl Sink, spent: &mut Spent) -> Read<()> {
        while self.part != Part::End && !spent.is_over() {
            let (at, len) = (self.at, out.len());
            self.step(input, out)?;
            // Going back over a str that turned out not to be text is a step too.
            spent.0 += (self.at.saturating_sub(at)).max(1) + (out.len() - len);
        }
        Ok(())
    }

    fn step(&mut self, input: &[u8], out: &mut impl Sink) -> Read<()> {
        match self.part {
            Part::Value => self.value(input, out)?,
            Part::Checked { start, end, is_key } => self.check(input, start, end, is_key, out)?,
            Part::Text { end } => {
                let piece = self.piece(input, end)?;
                let mut text = Text { out: &mut *out, is_key: self.key_at.is_some() };
                escape(piece, |part| text.write(part));
                if self.at == end {
                    text.write(b"\"");
                    self.end_value(out);
                }
            }
            Part::Base64 { end, close } => {
                let piece = self.piece(input, end)?;
                out.write(STANDARD.encode(piece).as_bytes());
                if self.at == end {
                    self.text(close, out);
                    self.end_value(out);
                }
            }
            Part::Passed { start, left } => self.pass(input, start, left, out)?,
            Part::End => {}
        }
        Ok(())
    }

    /// Begins the next value, or renders it whole when it is small.
    fn value(&mut self, input: &[u8], out: &mut impl Sink) -> Read<()> {
        let start = self.at;
        let is_key = self.is_at_key();
        let (head, mut reader) = head(input.get(start..).ok_or(Fault::Truncated)?)?;
        if let (true, Head::Str(len)) = (is_key, &head) {
            return self.begin_str(input, *len, reader.rest().len(), true);
        }
        if is_key {
            if self.key_at.is_some() {
                self.part = Part::Passed { start, left: 1 };
                return Ok(());
            }
            out.write(b"\"");
            self.key_at = Some(self.around.len());
        }
        let rest = reader.rest().len();
        match head {
            Head::Str(len) => self.begin_str(input, len, rest, false)?,
            Head::Bin(len) => {
                self.text("{\"base64\":", out);
                self.begin_base64(input, input.len() - rest, len, "\"}", out)?;
            }
            Head::Ext(kind, len) => {
                self.text("{\"ext\":[", out);
                print(out, format_args!("{kind},"));
                self.begin_base64(input, input.len() - rest, len, "\"]}", out)?;
            }
            Head::Array(left) => self.open(input.len() - rest, left, false, out)?,
            Head::Map(pairs) => self.open(input.len() - rest, 2 * pairs, true, out)?,
            Head::Scalar => {
                scalar(&mut reader, out)?;
                self.at = input.len() - reader.rest().len();
                self.end_value(out);
            }
        }
        Ok(())
    }

    fn begin_str(&mut self, input: &[u8], len: usize, rest: usize, is_key: bool) -> Read<()> {
        let start = input.len() - rest;
        let end = checked_end(input, start, len)?;
        // Its own bytes are checked from its first one on.
        self.part = Part::Checked { start: self.at, end, is_key };
        self.at = start;
        Ok(())
    }

    /// Checks the next piece of a str; when all of it is UTF-8, goes back and writes it.
    fn check(
        &mut self,
        input: &[u8],
        start: usize,
        end: usize,
        is_key: bool,
        out: &mut impl Sink,
    ) -> Read<()> {
        let from = self.at;
        let piece = self.piece(input, end)?;
        let is_text = match std::str::from_utf8(piece) {
            Ok(_) => true,
            // A character that the piece's end cuts in two belongs to the next one.
            Err(error) if error.error_len().is_none() && self.at < end => {
                self.at = from + error.valid_up_to();
                true
            }
            Err(_) => false,
        };
        if is_text && self.at < end {
            return Ok(());
        }
        let first = start + head_len(input, start)?;
        self.at = first;
        if is_text {
            self.text("\"", out);
            self.part = Part::Text { end };
        } else if !is_key {
            self.text("{\"base64\":", out);
            self.begin_base64(input, first, end - first, "\"}", out)?;
        } else if self.key_at.is_some() {
            self.begin_base64(input, start, end - start, "\"", out)?;
        } else {
            out.write(b"\"");
            self.key_at = Some(self.around.len());
            self.text("{\"base64\":", out);
            self.begin_base64(input, first, end - first, "\"}", out)?;
        }
        Ok(())
    }

    fn begin_base64(
        &mut self,
        input: &[u8],
        start: usize,
        len: usize,
        close: &'static str,
        out: &mut impl Sink,
    ) -> Read<()> {
        let end = checked_end(input, start, len)?;
        self.text("\"", out);
        self.at = start;
        self.part = Part::Base64 { end, close };
        Ok(())
    }

    fn open(&mut self, at: usize, left: u64, is_map: bool, out: &mut impl Sink) -> Read<()> {
        if self.around.len() >= DEPTH_MAX {
            return Err(Fault::TooDeep);
        }
        self.at = at;
        self.text(if is_map { "{" } else { "[" }, out);
        if left == 0 {
            self.text(if is_map { "}" } else { "]" }, out);
            self.end_value(out);
        } else {
            self.around.push(Around { left, is_map });
        }
        Ok(())
    }

    /// Skips the next value of a key that is not text; when all of it is skipped, writes it.
    fn pass(&mut self, input: &[u8], start: usize, left: u64, out: &mut impl Sink) -> Read<()> {
        let (head, mut reader) = head(input.get(self.at..).ok_or(Fault::Truncated)?)?;
        let inside = match head {
            Head::Array(len) => len,
            Head::Map(pairs) => 2 * pairs,
            Head::Scalar => reader.value().map(|_| 0)?,
            Head::Str(len) | Head::Bin(len) | Head::Ext(_, len) => {
                let first = input.len() - reader.rest().len();
                let end = checked_end(input, first, len)?;
                reader = Reader::new(input.get(end..).unwrap_or_default());
                0
            }
        };
        self.at = input.len() - reader.rest().len();
        let left = left - 1 + inside;
        self.part = Part::Passed { start, left };
        if left == 0 {
            self.begin_base64(input, start, self.at - start, "\"", out)?;
        }
        Ok(())
    }

    /// Whether the next value is the key of a map.
    fn is_at_key(&self) -> bool {
        let is_key = self.around.last().is_some_and(|map| map.is_map && map.left % 2 == 0);
        is_key && self.key_at != Some(self.around.len())
    }

    /// After the end of a value: writes what ends with it, or stands between it and the next one.
    fn end_value(&mut self, out: &mut impl Sink) {
        self.part = Part::Value;
        loop {
            if self.key_at == Some(self.around.len()) {
                self.key_at = None;
                out.write(b"\"");
            }
            let Some(around) = self.around.last_mut() else {
                self.part = Part::End;
                return;
            };
            around.left -= 1;
            let Around { left, is_map } = *around;
            if left > 0 {
                self.text(if is_map && left % 2 == 1 { ":" } else { "," }, out);
                return;
            }
            self.around.pop();
            self.text(if is_map { "}" } else { "]" }, out);
        }
    }

    /// Returns the bytes from here to `end`, at most one step's worth, and advances past them.
    fn piece<'i>(&mut self, input: &'i [u8], end: usize) -> Read<&'i [u8]> {
        let to = end.min(self.at + PIECE_BYTES);
        let piece = input.get(self.at..to).ok_or(Fault::Truncated)?;
        self.at = to;
        Ok(piece)
    }

    /// Writes text that may need to be escaped where it is within quotes; digits and letters are
    /// written unchanged.
    fn text(&self, text: &str, out: &mut impl Sink) {
        Text { out, is_key: self.key_at.is_some() }.write(text.as_bytes());
    }
}

/// The sink for text that may be within quotes.
struct Text<'o, O> {
    out: &'o mut O,
    is_key: bool,
}

impl<O: Sink> Text<'_, O> {
    fn write(&mut self, text: &[u8]) {
        match self.is_key {
            true => escape(text, |part| self.out.write(part)),
            false => self.out.write(text),
        }
    }
}

/// Writes a number, a boolean or nil.
fn scalar(reader: &mut Reader<'_>, out: &mut impl Sink) -> Read<()> {
    match reader.peek()? {
        0xC0 => {
            reader.nil()?;
            out.write(b"null");
        }
        0xC2 | 0xC3 => out.write(if reader.bool()? { b"true" } else { b"false" }),
        0xCA | 0xCB => float(reader.value()?, out),
        _ => {
            let number = reader.int()?;
            match u64::try_from(number) {
                Ok(number) => print(out, format_args!("{number}")),
                Err(_) => print(out, format_args!("{number}")),
            }
        }
    }
    Ok(())
}

fn float(bytes: &[u8], out: &mut impl Sink) {
    let number = match bytes {
        [0xCA, rest @ ..] => rest.first_chunk().map(|raw| f64::from(f32::from_be_bytes(*raw))),
        [_, rest @ ..] => rest.first_chunk().map(|raw| f64::from_be_bytes(*raw)),
        [] => None,
    };
    match number.filter(|number| number.is_finite()) {
        // Debug is the shortest text that reads back as the same number, with a point or an
        // exponent.
        Some(number) => print(out, format_args!("{number:?}")),
        None => out.write(b"null"),
    }
}

fn checked_end(input: &[u8], start: usize, len: usize) -> Read<usize> {
    start.checked_add(len).filter(|end| *end <= input.len()).ok_or(Fault::Truncated)
}

/// How many bytes of a str at `start` precede its text.
fn head_len(input: &[u8], start: usize) -> Read<usize> {
    let value = input.get(start..).ok_or(Fault::Truncated)?;
    Ok(value.len() - head(value)?.1.rest().len())
}

/// Returns the kind of the value at the front of `input`, and a reader of the bytes after its head,
/// or after all of a scalar.
fn head(input: &[u8]) -> Read<(Head, Reader<'_>)> {
    let number = |width: usize| {
        let bytes = input.get(1..=width).ok_or(Fault::Truncated)?;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let kind_at = |at: usize| input.get(at).map(|kind| kind.cast_signed()).ok_or(Fault::Truncated);
    let marker = *input.first().ok_or(Fault::Truncated)?;
    let low = usize::from(marker & 0x0F);
    let (head, len) = match marker {
        0xC1 => return Err(Fault::Invalid),
        0xA0..=0xBF => (Head::Str(usize::from(marker & 0x1F)), 1),
        0xD9 => (Head::Str(number(1)?), 2),
        0xDA => (Head::Str(number(2)?), 3),
        0xDB => (Head::Str(number(4)?), 5),
        0xC4 => (Head::Bin(number(1)?), 2),
        0xC5 => (Head::Bin(number(2)?), 3),
        0xC6 => (Head::Bin(number(4)?), 5),
        0xC7 => (Head::Ext(kind_at(2)?, number(1)?), 3),
        0xC8 => (Head::Ext(kind_at(3)?, number(2)?), 4),
        0xC9 => (Head::Ext(kind_at(5)?, number(4)?), 6),
        0xD4..=0xD8 => (Head::Ext(kind_at(1)?, 1 << (marker - 0xD4)), 2),
        0x90..=0x9F => (Head::Array(low as u64), 1),
        0xDC => (Head::Array(number(2)? as u64), 3),
        0xDD => (Head::Array(number(4)? as u64), 5),
        0x80..=0x8F => (Head::Map(low as u64), 1),
        0xDE => (Head::Map(number(2)? as u64), 3),
        0xDF => (Head::Map(number(4)? as u64), 5),
        _ => (Head::Scalar, 0),
    };
    Ok((head, Reader::new(input.get(len..).ok_or(Fault::Truncated)?)))
}
