//! Writes MessagePack into a buffer: always the shortest form; never fails.

/// Appends nil.
pub fn nil(out: &mut Vec<u8>) {
    out.push(0xC0);
}

/// Appends a boolean.
pub fn bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xC3 } else { 0xC2 });
}

/// Appends an unsigned integer.
pub fn uint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x7F => out.push(value as u8),
        0x80..=0xFF => out.extend_from_slice(&[0xCC, value as u8]),
        0x100..=0xFFFF => tagged(out, 0xCD, &(value as u16).to_be_bytes()),
        0x1_0000..=0xFFFF_FFFF => {
            let [a, b, c, d] = (value as u32).to_be_bytes();
            out.extend_from_slice(&[0xCE, a, b, c, d]);
        }
        _ => tagged(out, 0xCF, &value.to_be_bytes()),
    }
}

/// Appends an integer of MessagePack's range, -2^63 to 2^64-1; others are clamped.
pub fn int(out: &mut Vec<u8>, value: i128) {
    if value >= 0 {
        return uint(out, u64::try_from(value).unwrap_or(u64::MAX));
    }
    let value = i64::try_from(value).unwrap_or(i64::MIN);
    match value {
        -32..=-1 => out.push(value as u8),
        -0x80..=-33 => out.extend_from_slice(&[0xD0, value as u8]),
        -0x8000..=-0x81 => tagged(out, 0xD1, &(value as i16).to_be_bytes()),
        -0x8000_0000..=-0x8001 => tagged(out, 0xD2, &(value as i32).to_be_bytes()),
        _ => tagged(out, 0xD3, &value.to_be_bytes()),
    }
}

/// Appends a string.
pub fn str(out: &mut Vec<u8>, text: &str) {
    str_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Appends the head of a str of `len` bytes.
pub fn str_len(out: &mut Vec<u8>, len: usize) {
    match len {
        0..=31 => out.push(0xA0 | len as u8),
        32..=0xFF => out.extend_from_slice(&[0xD9, len as u8]),
        0x100..=0xFFFF => tagged(out, 0xDA, &(len as u16).to_be_bytes()),
        _ => tagged(out, 0xDB, &(len as u32).to_be_bytes()),
    }
}

/// Appends bytes as MessagePack bin.
pub fn bin(out: &mut Vec<u8>, bytes: &[u8]) {
    bin_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends the head of a bin of `len` bytes.
pub fn bin_len(out: &mut Vec<u8>, len: usize) {
    match len {
        0..=0xFF => out.extend_from_slice(&[0xC4, len as u8]),
        0x100..=0xFFFF => tagged(out, 0xC5, &(len as u16).to_be_bytes()),
        _ => tagged(out, 0xC6, &(len as u32).to_be_bytes()),
    }
}

/// Appends a key: str when its bytes are UTF-8, bin otherwise, so that every language gets text for
/// text.
pub fn key(out: &mut Vec<u8>, key: &[u8]) {
    match std::str::from_utf8(key) {
        Ok(text) => str(out, text),
        Err(_) => bin(out, key),
    }
}

/// Appends the head of an array of `len` elements.
pub fn array_len(out: &mut Vec<u8>, len: usize) {
    match len {
        0..=15 => out.push(0x90 | len as u8),
        16..=0xFFFF => tagged(out, 0xDC, &(len as u16).to_be_bytes()),
        _ => tagged(out, 0xDD, &(len as u32).to_be_bytes()),
    }
}

/// Appends the head of a map of `len` pairs.
pub fn map_len(out: &mut Vec<u8>, len: usize) {
    match len {
        0..=15 => out.push(0x80 | len as u8),
        16..=0xFFFF => tagged(out, 0xDE, &(len as u16).to_be_bytes()),
        _ => tagged(out, 0xDF, &(len as u32).to_be_bytes()),
    }
}

fn tagged(out: &mut Vec<u8>, tag: u8, rest: &[u8]) {
    out.push(tag);
    out.extend_from_slice(rest);
}
