//! Keys behind one prefix, built one at a time in one buffer.

/// A prefix, and room for a key behind it.
pub(super) struct PrefixedKey {
    bytes: Vec<u8>,
    prefix_len: usize,
}

impl PrefixedKey {
    pub(super) fn after(prefix: &[u8]) -> Self {
        Self { bytes: prefix.to_vec(), prefix_len: prefix.len() }
    }

    /// The prefix followed by `key`.
    pub(super) fn with<'k>(&'k mut self, key: &'k [u8]) -> &'k [u8] {
        if self.prefix_len == 0 {
            return key;
        }
        self.bytes.truncate(self.prefix_len);
        self.bytes.extend_from_slice(key);
        &self.bytes
    }
}
