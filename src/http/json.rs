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
use std::io::Write;

/// Appends the JSON text of the MessagePack value that `value` holds.
///
/// Bytes that are not exactly one MessagePack value append nothing and are an error; the store
/// holds none.
pub fn render(value: &[u8], out: &mut Vec<u8>) -> Read<()> {
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
pub fn render_key(key: &[u8], out: &mut Vec<u8>) {
    match std::str::from_utf8(key) {
        Ok(text) => string(text, out),
        Err(_) => {
            let escaped = percent_encoding::percent_encode(key, &ESCAPED);
            out.push(b'"');
            escaped.for_each(|part| out.extend_from_slice(part.as_bytes()));
            out.push(b'"');
        }
    }
}

/// All but the unreserved characters of a URL.
const ESCAPED: percent_encoding::AsciiSet =
    percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Appends `text` as a JSON string.
pub fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| needs_escape(*byte)) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        if let Some((byte, tail)) = tail.split_first() {
            escape(*byte, out);
            rest = tail;
        }
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        other => print(out, format_args!("\\u{other:04x}")),
    }
}

struct Renderer<'o> {
    out: &'o mut Vec<u8>,
    /// Whether what is rendered will become the text of an object's key.
    is_key: bool,
}

impl Renderer<'_> {
    fn value(&mut self, reader: &mut Reader<'_>, depth: usize) -> Read<()> {
        match reader.peek()? {
            0xC0 => reader.value().map(|_| self.text("null")),
            0xC2 | 0xC3 => reader.bool().map(|flag| self.text(if flag { "true" } else { "false" })),
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
        self.text("[");
        for index in 0..reader.array_len()? {
            if index > 0 {
                self.text(",");
            }
            self.value(reader, depth)?;
        }
        self.text("]");
        Ok(())
    }

    fn map(&mut self, reader: &mut Reader<'_>, depth: usize) -> Read<()> {
        let depth = depth.checked_sub(1).ok_or(Fault::TooDeep)?;
        self.text("{");
        for index in 0..reader.map_len()? {
            if index > 0 {
                self.text(",");
            }
            self.key(reader, depth)?;
            self.text(":");
            self.value(reader, depth)?;
        }
        self.text("}");
        Ok(())
    }

    fn key(&mut self, reader: &mut Reader<'_>, depth: usize) -> Read<()> {
        let mut ahead = reader.clone();
        let is_str = matches!(reader.peek()?, 0xA0..=0xBF | 0xD9..=0xDB);
        if is_str && let Ok(text) = std::str::from_utf8(ahead.bytes()?) {
            *reader = ahead;
            string(text, self.out);
        } else if self.is_key {
            self.quoted_base64(reader.value()?);
        } else {
            let mut text = Vec::new();
            Renderer { out: &mut text, is_key: true }.value(reader, depth)?;
            string(&String::from_utf8_lossy(&text), self.out);
        }
        Ok(())
    }

    fn str(&mut self, bytes: &[u8]) {
        match std::str::from_utf8(bytes) {
            Ok(text) => string(text, self.out),
            Err(_) => self.base64(bytes),
        }
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
            None => self.text("null"),
        }
    }

    fn base64(&mut self, bytes: &[u8]) {
        self.text("{\"base64\":");
        self.quoted_base64(bytes);
        self.text("}");
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
            print(self.out, format_args!("{{\"ext\":[{},", kind.cast_signed()));
            self.quoted_base64(data);
            self.text("]}");
        }
    }

    fn quoted_base64(&mut self, bytes: &[u8]) {
        self.text("\"");
        base64::encode(bytes, self.out);
        self.text("\"");
    }

    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }
}

/// Appends formatted text; writing to a vector cannot fail.
fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
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
            let mut out = Vec::new();
            match render(&bytes, &mut out) {
                Ok(()) => {
                    let parsed = serde_json::from_slice::<serde_json::Value>(&out);
                    assert!(parsed.is_ok(), "round {round}: {bytes:02x?} -> {out:?}: {parsed:?}");
                }
                Err(_) => assert!(out.is_empty(), "round {round}: {bytes:02x?}"),
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
