//! Bytes for people to read.

/// The first bytes in hexadecimal digits: all of an id, of a key as much as an error needs.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(40).map(|byte| format!("{byte:02x}")).collect()
}
