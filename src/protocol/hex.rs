//! Bytes in hexadecimal for error messages.

/// The first bytes in hexadecimal digits: all of an id, enough of a key for an error.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(40).map(|byte| format!("{byte:02x}")).collect()
}
