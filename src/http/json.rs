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
//! A map inside a key writes its own such keys as the base64 of their bytes: quoting text within
//! quoted text doubles it, so that text of 64 levels would never end.

use super::base64;
use crate::limits::DEPTH_MAX;
use crate::wire::Reader;
use crate::wire::reader::{Fault, Read};
use std::fmt;

/// JSON text is never so many times as long as the MessagePack that it is made of. The worst are
/// the shortest bins and maps within the key of a map.
pub const EXPANSION_MAX: usize = 16;

/// Where JSON text goes: into a buffer, or nowhere, where only its length is asked for.
pub trait Sink {
    /// Appends text.
    fn write(&mut self, text: &[u8]);

    /// How long all of it is.
    fn len(&self) -> usize;

    /// Whether there is none yet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all but so many bytes.
    fn truncate(&mut self, len: usize);
}

impl Sink for Vec<u8> {
    fn write(&mut self, text: &[u8]) {
        self.extend_from_slice(text);
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn truncate(&mut self, len: usize) {
        self.truncate(len);
    }
}

/// The length of a text that is not made.
#[derive(Debug, Default, Clone, Copy)]
pub struct Length(usize);

impl Sink for Length {
    fn write(&mut self, text: &[u8]) {
        self.0 = self.0.saturating_add(text.len());
    }

    fn len(&self) -> usize {
        self.0
    }

    fn truncate(&mut self, len: usize) {
        self.0 = len;
    }
}

/// Appends the JSON text of the MessagePack value that `value` holds.
///
/// Bytes that are not exactly one MessagePack value append nothing and are an error; the store
/// holds none.
pub fn render(value: &[u8], out: &mut impl Sink) -> Read<()> {
    let start = out.len();
    let mut reader = Reader::new(value);
    let rendered = Renderer { out, is_key: false }.value(&mut reader, DEPTH_MAX);
    let whole =
        rendered.and_then(|()| if reader.is_empty() { Ok(()) } else { Err(Fault::Invalid) });
    if whole.is_err() {
        out.truncate(start);
    }
    whole
}

/// Appends a store's key as a JSON string: UTF-8 as it is, other bytes percent-encoded as in a
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

/// All but the unreserved characters of a URL.
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
    // It cannot fail.
    let _ = fmt::write(&mut Printed(out), text);
}

struct Printed<'o, O>(&'o mut O);

impl<O: Sink> fmt::Write for Printed<'_, O> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// Writes `text` as it stands between the quotes of a string, piece by piece.
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

struct Renderer<'o, O> {
    out: &'o mut O,
    /// Whether what is rendered is the text of an object's key, and so stands within quotes.
    is_key: bool,
}

impl<O: Sink> Renderer<'_, O> {
    fn value(&mut self, reader: &mut Reader<'_>, depth: usize) -> Read<()> {
        match reader.peek()? {
            0xC0 => reader.value().map(|_| self.text(b"null")),
            0xC2 | 0xC3 => {
                reader.bool().map(|flag| self.text(if flag { b"true" } else { b"false" }))
            }
            0x00..=0x7F | 0xCC..=0xD3 | 0xE0..=0xFF => {
                reader.int().map(|number| print(self.out, format_args!("{number}")))
            }
            0xCA | 0xCB => reader.value().map(|bytes| self.float(bytes)),
            0xA0..=0xBF | 0xD9..=0xDB => reader.bytes().map(|bytes| self.str(bytes)),
            0xC4..=0xC6 => reader.bytes().map(|bytes| self.base64(bytes)),
            0xC7..=0xC9 | 0xD4..=0xD8 => reader.value().map(|bytes| self.ext(bytes)),
            0x90..=0x9F | 0xDC | 0xDD => self.array(reader, depth),
            0x80..=0x8F | 0xDE | 0xDF => self.map(reader, depth),
            0xC1 => Err(Fault::Invalid),
        }
    }

    fn array(&mut self, reader: &mut Reader<'_>, depth: usize) -> Read<()> {
        let depth = depth.checked_sub(1).ok_or(Fault::TooDeep)?;
        self.text(b"[");
        for index in 0..reader.array_len()? {
            if index > 0 {
                self.text(b",");
            }
            self.value(reader, depth)?;
        }
        self.text(b"]");
        Ok(())
    }

    fn map(&mut self, reader: &mut Reader<'_>, depth: usize) -> Read<()> {
        let depth = depth.checked_sub(1).ok_or(Fault::TooDeep)?;
        self.text(b"{");
        for index in 0..reader.map_len()? {
            if index > 0 {
                self.text(b",");
            }
            self.key(reader, depth)?;
            self.text(b":");
            self.value(reader, depth)?;
        }
        self.text(b"}");
        Ok(())
    }

    fn key(&mut self, reader: &mut Reader<'_>, depth: usize) -> Read<()> {
        let mut ahead = reader.clone();
        let is_str = matches!(reader.peek()?, 0xA0..=0xBF | 0xD9..=0xDB);
        if is_str && let Ok(text) = std::str::from_utf8(ahead.bytes()?) {
            *reader = ahead;
            self.string(text);
            return Ok(());
        }
        if self.is_key {
            self.quoted_base64(reader.value()?);
            return Ok(());
        }
        self.text(b"\"");
        Renderer { out: &mut *self.out, is_key: true }.value(reader, depth)?;
        self.text(b"\"");
        Ok(())
    }

    fn str(&mut self, bytes: &[u8]) {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.string(text),
            Err(_) => self.base64(bytes),
        }
    }

    fn string(&mut self, text: &str) {
        self.text(b"\"");
        escape(text.as_bytes(), |part| self.text(part));
        self.text(b"\"");
    }

    fn float(&mut self, bytes: &[u8]) {
        let number = match bytes {
            [0xCA, rest @ ..] => rest.first_chunk().map(|raw| f64::from(f32::from_be_bytes(*raw))),
            [_, rest @ ..] => rest.first_chunk().map(|raw| f64::from_be_bytes(*raw)),
            [] => None,
        };
        match number.filter(|number| number.is_finite()) {
            // Debug is the shortest text that reads back as the same number, with a point or an
            // exponent.
            Some(number) => print(self.out, format_args!("{number:?}")),
            None => self.text(b"null"),
        }
    }

    fn base64(&mut self, bytes: &[u8]) {
        self.text(b"{\"base64\":");
        self.quoted_base64(bytes);
        self.text(b"}");
    }

    fn ext(&mut self, bytes: &[u8]) {
        // The marker, the length where there is one, the type, the data.
        let skipped = match bytes.first() {
            Some(0xC7) => 2,
            Some(0xC8) => 3,
            Some(0xC9) => 5,
            _ => 1,
        };
        if let Some([kind, data @ ..]) = bytes.get(skipped..) {
            self.text(b"{\"ext\":[");
            print(self.out, format_args!("{},", kind.cast_signed()));
            self.quoted_base64(data);
            self.text(b"]}");
        }
    }

    fn quoted_base64(&mut self, bytes: &[u8]) {
        self.text(b"\"");
        base64::encode_to(bytes, |letters| self.out.write(letters));
        self.text(b"\"");
    }

    /// Text that may need to be escaped, where it stands within quotes; digits and letters are
    /// written as they are.
    fn text(&mut self, text: &[u8]) {
        match self.is_key {
            true => escape(text, |part| self.out.write(part)),
            false => self.out.write(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::writer;

    fn json(value: &[u8]) -> String {
        let mut out = b"before".to_vec();
        render(value, &mut out).expect("one MessagePack value");
        let text = String::from_utf8(out).expect("JSON is UTF-8");
        text.strip_prefix("before").expect("what was there stays").to_owned()
    }

    fn packed(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    fn str(text: &str) -> Vec<u8> {
        packed(|out| writer::str(out, text))
    }

    fn bin(bytes: &[u8]) -> Vec<u8> {
        packed(|out| writer::bin(out, bytes))
    }

    /// A map of `pairs`, each key and value already packed.
    fn map(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut out = packed(|out| writer::map_len(out, pairs.len()));
        for (key, value) in pairs {
            out.extend_from_slice(key);
            out.extend_from_slice(value);
        }
        out
    }

    #[test]
    fn nil_booleans_and_integers_of_every_width() {
        assert_eq!(json(&[0xC0]), "null");
        assert_eq!(json(&[0xC2]), "false");
        assert_eq!(json(&[0xC3]), "true");
        let numbers: [i128; 12] = [
            0,
            127,
            128,
            65_535,
            1 << 31,
            1 << 53,
            u64::MAX.into(),
            -1,
            -32,
            -33,
            -40_000,
            i64::MIN.into(),
        ];
        for number in numbers {
            assert_eq!(json(&packed(|out| writer::int(out, number))), number.to_string());
        }
        assert_eq!(json(&[0xD3, 0, 0, 0, 0, 0, 0, 0, 1]), "1", "a wide small integer");
    }

    #[test]
    fn floats_keep_their_exact_value_and_nan_is_null() {
        let single = |number: f32| json(&[&[0xCA], number.to_be_bytes().as_slice()].concat());
        let double = |number: f64| json(&[&[0xCB], number.to_be_bytes().as_slice()].concat());
        assert_eq!(double(1.0), "1.0");
        assert_eq!(double(-0.0), "-0.0");
        assert_eq!(double(0.1), "0.1");
        assert_eq!(double(1e300), "1e300");
        assert_eq!(double(5e-324), "5e-324");
        assert_eq!(single(0.5), "0.5");
        assert_eq!(single(1.1), "1.100000023841858");
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(double(number), "null");
        }
        assert_eq!(single(f32::NAN), "null");
        for number in [1.5e-7, 1e16, 123_456_789.125, f64::MAX, f64::MIN_POSITIVE] {
            assert_eq!(serde_json::from_str::<f64>(&double(number)).ok(), Some(number));
        }
    }

    #[test]
    fn strings_are_escaped_and_read_back_the_same() {
        let every_byte: String = (0..0x180).filter_map(char::from_u32).collect();
        for text in ["", "plain", "\"quotes\" and \\", "æøå 漢 🜁", every_byte.as_str()] {
            assert_eq!(
                serde_json::from_str::<String>(&json(&str(text))).ok().as_deref(),
                Some(text)
            );
        }
        assert_eq!(json(&str("a\n\u{1}\u{7f}")), "\"a\\n\\u0001\u{7f}\"");
        assert_eq!(json(&str(&"x".repeat(70_000))).len(), 70_002);
    }

    #[test]
    fn bytes_are_base64_and_so_is_text_that_is_not_utf8() {
        assert_eq!(json(&bin(b"")), r#"{"base64":""}"#);
        assert_eq!(json(&bin(b"text")), r#"{"base64":"dGV4dA=="}"#);
        assert_eq!(json(&[0xA2, 0xFF, 0xFE]), r#"{"base64":"//4="}"#);
        assert_eq!(json(&bin(&[0; 300])).len(), 413);
    }

    #[test]
    fn ext_shows_its_type() {
        assert_eq!(json(&[0xD4, 5, 0xAA]), r#"{"ext":[5,"qg=="]}"#);
        assert_eq!(json(&[0xD6, 0xFF, 0, 0, 0, 1]), r#"{"ext":[-1,"AAAAAQ=="]}"#);
        assert_eq!(json(&[0xC7, 0, 7]), r#"{"ext":[7,""]}"#);
        assert_eq!(json(&[0xC8, 0, 1, 7, 0xAA]), r#"{"ext":[7,"qg=="]}"#);
        assert_eq!(json(&[0xC9, 0, 0, 0, 1, 7, 0xAA]), r#"{"ext":[7,"qg=="]}"#);
    }

    #[test]
    fn arrays_and_maps_nest() {
        assert_eq!(json(&[0x90]), "[]");
        assert_eq!(json(&[0x80]), "{}");
        assert_eq!(json(&[0x93, 1, 0x91, 2, 0xC0]), "[1,[2],null]");
        let inner = map(&[(&str("x"), &[0x90])]);
        assert_eq!(
            json(&map(&[(&str("a"), &[1]), (&str("b"), &inner)])),
            r#"{"a":1,"b":{"x":[]}}"#
        );
    }

    #[test]
    fn keys_that_are_no_text_become_their_json_text() {
        assert_eq!(json(&map(&[(&[1], &[2])])), r#"{"1":2}"#);
        assert_eq!(json(&map(&[(&[0xC0], &[2])])), r#"{"null":2}"#);
        assert_eq!(json(&map(&[(&[0x92, 1, 0xC3], &[2])])), r#"{"[1,true]":2}"#);
        assert_eq!(json(&map(&[(&bin(b"a"), &[2])])), r#"{"{\"base64\":\"YQ==\"}":2}"#);
        assert_eq!(json(&map(&[(&[0xA1, 0xFF], &[2])])), r#"{"{\"base64\":\"/w==\"}":2}"#);
        let within = map(&[(&str("x"), &[1])]);
        assert_eq!(json(&map(&[(&within, &[2])])), r#"{"{\"x\":1}":2}"#);
    }

    #[test]
    fn maps_as_keys_of_maps_as_keys_do_not_double_without_end() {
        let mut value = str("\"");
        for _ in 0..20 {
            value = map(&[(&value, &[1])]);
        }
        let text = json(&value);
        assert!(text.len() < 1_000, "{} bytes", text.len());
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn the_longest_texts_are_not_longer_than_they_may_be() {
        let nothing = bin(b"");
        let many = [packed(|out| writer::array_len(out, 1_000)), nothing.repeat(1_000)].concat();
        let within = map(&[(&[0xC0], &nothing)]);
        let worst = [
            (packed(|out| writer::array_len(out, 0)), nothing.clone()),
            (str(&"\u{1}".repeat(1_000)), str("")),
            (many.clone(), many),
            (within.clone(), within),
            ([[0x91, 0xCA].as_slice(), &f32::MIN_POSITIVE.to_be_bytes()].concat(), vec![0xC2]),
        ];
        for (key, value) in worst {
            let packed = map(&[(&key, &value)]);
            let text = json(&packed);
            assert!(text.len() <= EXPANSION_MAX * packed.len(), "{text}");
            let mut length = Length::default();
            render(&packed, &mut length).expect("one MessagePack value");
            assert_eq!(length.len(), text.len());
        }
    }

    #[test]
    fn depth_is_bounded_and_a_failure_leaves_nothing() {
        let nested = |levels: usize| [vec![0x91; levels], vec![0xC0]].concat();
        assert_eq!(json(&nested(DEPTH_MAX)).len(), 2 * DEPTH_MAX + 4);
        let mut out = b"before".to_vec();
        assert_eq!(render(&nested(DEPTH_MAX + 1), &mut out), Err(Fault::TooDeep));
        assert_eq!(render(&[1, 2], &mut out), Err(Fault::Invalid));
        assert_eq!(render(&[0x92, 1], &mut out), Err(Fault::Truncated));
        assert_eq!(out, b"before");
    }

    #[test]
    fn any_bytes_render_to_valid_json_or_to_nothing() {
        let mut random = fastrand::Rng::with_seed(7_532);
        for round in 0..200_000 {
            let bytes: Vec<u8> = (0..random.usize(..24)).map(|_| random.u8(..)).collect();
            let (mut out, mut length) = (Vec::new(), Length::default());
            let _ = render(&bytes, &mut length);
            match render(&bytes, &mut out) {
                Ok(()) => {
                    assert_eq!(length.len(), out.len(), "round {round}: {bytes:02x?}");
                    assert!(out.len() <= EXPANSION_MAX * bytes.len(), "round {round}: {out:?}");
                    let parsed = serde_json::from_slice::<serde_json::Value>(&out);
                    assert!(parsed.is_ok(), "round {round}: {bytes:02x?} -> {out:?}: {parsed:?}");
                }
                Err(_) => {
                    assert!(out.is_empty() && length.is_empty(), "round {round}: {bytes:02x?}")
                }
            }
        }
    }

    #[test]
    fn keys_of_the_store_are_text_or_percent_encoded() {
        let key = |bytes: &[u8]| {
            let mut out = Vec::new();
            render_key(bytes, &mut out);
            String::from_utf8(out).expect("UTF-8")
        };
        assert_eq!(key(b""), r#""""#);
        assert_eq!(key("ø\"%41".as_bytes()), r#""ø\"%41""#);
        assert_eq!(key(b"a&b \xFF%~"), r#""a%26b%20%FF%25~""#);
    }
}
