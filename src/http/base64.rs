//! Base64 (RFC 4648, with padding), the way in which JSON carries bytes.

/// The letters, each at the place of what it stands for.
pub const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends the base64 text of `bytes`.
pub fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    encode_to(bytes, |letters| out.extend_from_slice(letters));
}

/// Writes the base64 text of `bytes`, piece by piece.
pub fn encode_to(bytes: &[u8], mut write: impl FnMut(&[u8])) {
    let (groups, rest) = bytes.as_chunks::<3>();
    for [first, second, third] in groups {
        write(&letters([*first, *second, *third]));
    }
    match rest {
        [first, second] => {
            let [a, b, c, _] = letters([*first, *second, 0]);
            write(&[a, b, c, b'=']);
        }
        [first] => {
            let [a, b, _, _] = letters([*first, 0, 0]);
            write(&[a, b, b'=', b'=']);
        }
        _ => {}
    }
}

fn letters([first, second, third]: [u8; 3]) -> [u8; 4] {
    let bits = u32::from_be_bytes([0, first, second, third]);
    [18, 12, 6, 0].map(|shift| letter(bits >> shift))
}

fn letter(bits: u32) -> u8 {
    ALPHABET.get((bits & 0x3F) as usize).copied().unwrap_or(b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc() {
        let examples = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (bytes, text) in examples {
            let mut out = Vec::new();
            encode(bytes.as_bytes(), &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }

    #[test]
    fn every_letter_is_used() {
        let mut out = Vec::new();
        encode(&[0xFB, 0xFF, 0xBF, 0x00, 0x10, 0x83], &mut out);
        assert_eq!(out, b"+/+/ABCD");
    }
}
