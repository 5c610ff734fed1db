//! MessagePack to JSON text, straight from bytes to bytes: whatever is stored, the answer is valid
//! JSON.
//!
//! | MessagePack | JSON |
//! |---|---|
//! | nil, booleans, integers | the same; integers up to 2^64-1 are written in full |
//! | float 32, float 64 | the number's exact value; NaN and the infinities are `null` |
//! | str in UTF-8 | a string |
//! | bin, str that is not UTF-8 | `{"base64":"…"}` |
//! | ext | `{"ext":[type,"base64"]}` |
//! | array, map | an array, an object |
//! | a map's key that is not a UTF-8 str | a string holding that key's JSON text |
//!
//! A map inside a key writes its own such keys as the base64 of their bytes: quoting quoted text
//! doubles it, so text of 64 levels would never end.

//!
//! A value is rendered in slices ([`Renderer::run`]): no value, however long, deep or divided,
//! makes a slice longer than [`SLICE_BYTES`] of work plus the excess of one step.

mod renderer;
#[cfg(test)]
mod tests;

pub use renderer::{Renderer, SLICE_BYTES, STEP_BYTES_MAX, Spent};

use std::fmt;

/// The longest JSON text of a MessagePack value, as a multiple of its length. The worst are the
/// shortest bins and maps within the key of a map.
pub const EXPANSION_MAX: usize = 16;

/// A sink of JSON text: a buffer, or a counter where only the length is needed.
pub trait Sink {
    /// Appends text.
    fn write(&mut self, text: &[u8]);

    /// The length of all text so far.
    fn len(&self) -> usize;

    /// Whether there is no text yet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Sink for Vec<u8> {
    fn write(&mut self, text: &[u8]) {
        self.extend_from_slice(text);
    }

    fn len(&self) -> usize {
        self.len()
    }
}

/// Counts the length of a text without keeping it.
#[derive(Debug, Default, Clone, Copy)]
pub struct Length(usize);

impl Sink for Length {
    fn write(&mut self, text: &[u8]) {
        self.0 = self.0.saturating_add(text.len());
    }

    fn len(&self) -> usize {
        self.0
    }
}

/// Appends a store's key as a JSON string: UTF-8 unchanged, other bytes percent-encoded as in a
/// query.
pub fn render_key(key: &[u8], out: &mut impl Sink) {
    match std::str::from_utf8(key) {
        Ok(text) => string(text, out),
        Err(_) => {
            let escaped = percent_encoding::percent_encode(key, &ESCAPED);
            out.write(b"\"");
            escaped.for_each(|part| out.write(part.as_bytes()));
            out.write(b"\"");
        }
    }
}

/// All characters except the unreserved ones of a URL.
const ESCAPED: percent_encoding::AsciiSet =
    percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Appends `text` as a JSON string.
pub fn string(text: &str, out: &mut impl Sink) {
    out.write(b"\"");
    escape(text.as_bytes(), |part| out.write(part));
    out.write(b"\"");
}

/// Appends formatted text.
pub fn print(out: &mut impl Sink, text: fmt::Arguments<'_>) {
    // Writing to memory cannot fail.
    let _ = fmt::write(&mut Printed(out), text);
}

struct Printed<'o, O>(&'o mut O);

impl<O: Sink> fmt::Write for Printed<'_, O> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// Writes `text` as it appears between the quotes of a string, piece by piece.
fn escape(text: &[u8], mut write: impl FnMut(&[u8])) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| needs_escape(*byte)) {
        let (plain, tail) = rest.split_at(at);
        write(plain);
        if let Some((byte, tail)) = tail.split_first() {
            escape_one(*byte, &mut write);
            rest = tail;
        }
    }
    write(rest);
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn escape_one(byte: u8, mut write: impl FnMut(&[u8])) {
    match byte {
        b'"' => write(b"\\\""),
        b'\\' => write(b"\\\\"),
        b'\n' => write(b"\\n"),
        b'\r' => write(b"\\r"),
        b'\t' => write(b"\\t"),
        // Below 0x20.
        other => {
            let (high, low) = (b'0' + (other >> 4), hex_digit(other & 0xF));
            write(&[b'\\', b'u', b'0', b'0', high, low]);
        }
    }
}

fn hex_digit(digit: u8) -> u8 {
    if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }
}
