//! Base64 with the standard alphabet, for bytes that JSON cannot say.

use crate::http::base64::{self, ALPHABET};

/// Writes bytes as base64, padded.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    base64::encode(bytes, &mut text);
    text.into_iter().map(char::from).collect()
}

/// Reads base64, padded or not; `None` when it is not base64.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let letters = text.trim_end_matches('=').as_bytes();
    if letters.len() % 4 == 1 || text.len() - letters.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(letters.len() / 4 * 3 + 2);
    for group in letters.chunks(4) {
        let mut number = 0_u32;
        for letter in group {
            let digit = ALPHABET.iter().position(|known| known == letter)?;
            number = number << 6 | u32::try_from(digit).ok()?;
        }
        let bits = 6 * group.len();
        let whole = bits / 8;
        // The bits beyond the last whole byte must be zero, so that each text has one reading.
        let spare = bits - 8 * whole;
        if number & ((1 << spare) - 1) != 0 {
            return None;
        }
        let number = number >> spare;
        bytes.extend((0..whole).rev().map(|place| (number >> (8 * place)) as u8));
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_4648_hold() {
        let examples = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, coded) in examples {
            assert_eq!(encode(plain.as_bytes()), coded);
            assert_eq!(decode(coded).unwrap(), plain.as_bytes());
            assert_eq!(decode(coded.trim_end_matches('=')).unwrap(), plain.as_bytes());
        }
    }

    #[test]
    fn every_byte_comes_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        for length in 0..=255 {
            assert_eq!(decode(&encode(&bytes[..length])).unwrap(), &bytes[..length]);
        }
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for text in ["Z", "Zg===", "Z g=", "Zh==", "Zm9=", "Zm9v!", "Zg=a", "é"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
