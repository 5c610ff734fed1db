//! Keys in arguments and in output: any bytes, in a form that every command accepts.
//!
//! Visible characters stand for themselves. Any other byte is `\xNN`, and a backslash is `\\`.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::OsStringExt;

use clap::builder::{OsStringValueParser, TypedValueParser};

/// A key, or a prefix, as given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Key(pub(super) Vec<u8>);

impl Key {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Reads keys in arguments.
pub(super) fn parser() -> impl TypedValueParser<Value = Key> {
    OsStringValueParser::new().try_map(|text: OsString| decode(&text.into_vec()).map(Key))
}

/// The bytes of a written key. A backslash before anything but `x` and another backslash stands for
/// itself.
pub(super) fn decode(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => rest = tail,
            (b'\\', [b'x', tail @ ..]) => {
                let digits = tail.split_at_checked(2);
                let byte = digits.and_then(|(digits, _)| hexadecimal(digits));
                bytes.push(byte.ok_or(
                    "\\x needs two hexadecimal digits, as in \\x00; a backslash itself is \\\\",
                )?);
                rest = tail.get(2..).unwrap_or_default();
                continue;
            }
            _ => {}
        }
        bytes.push(*first);
    }
    Ok(bytes)
}

fn hexadecimal(digits: &[u8]) -> Option<u8> {
    let is_all = digits.iter().all(u8::is_ascii_hexdigit);
    let text = str::from_utf8(digits).ok().filter(|_| is_all)?;
    u8::from_str_radix(text, 16).ok()
}

/// A key in the form that [`decode`] reads, in one line.
pub(super) fn show(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                hidden if is_hidden(hidden) => {
                    let mut buffer = [0; 4];
                    push_bytes(hidden.encode_utf8(&mut buffer).as_bytes(), &mut text);
                }
                seen => text.push(seen),
            }
        }
        push_bytes(chunk.invalid(), &mut text);
    }
    text
}

fn push_bytes(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        // Writing into memory cannot fail.
        let _ = write!(text, "\\x{byte:02X}");
    }
}

/// Whether a terminal would interpret the character instead of showing it.
pub(super) fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(character, '\u{2060}'..='\u{206f}' | '\u{e0000}'..='\u{e007f}')
}

/// A text as one word for a shell.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        let texts = ["", "plain", "a\\b", "\\x41", "\\\\", "Ærø 🎉", "\u{202e}gnp", "a\tb\n", "-k"];
        let mut keys: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        keys.extend([all, b"\xf0\x9f".to_vec(), b"\xff\xfe".to_vec(), b"\\\xff".to_vec()]);
        for key in keys {
            let shown = show(&key);
            assert!(!shown.contains(is_hidden), "{shown}");
            assert_eq!(decode(shown.as_bytes()), Ok(key), "{shown}");
        }
    }

    #[test]
    fn bytes_and_backslashes_may_be_given_unescaped() {
        for (text, key) in [
            (b"a\\b".as_slice(), b"a\\b".as_slice()),
            (b"\\", b"\\"),
            (b"\\\\", b"\\"),
            (b"\\x00\\xfF", b"\x00\xff"),
            (b"\xff", b"\xff"),
            (b"\\\\x41", b"\\x41"),
        ] {
            assert_eq!(decode(text).unwrap(), key);
        }
        for text in ["\\x", "\\x4", "\\xg0", "\\x+1"] {
            assert!(decode(text.as_bytes()).unwrap_err().contains("two hexadecimal digits"));
        }
    }

    #[test]
    fn a_quoted_word_is_one_word() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
