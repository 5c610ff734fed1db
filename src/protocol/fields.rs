//! Reads fields of fixed sizes from the front of bytes. An incomplete field is `None`.

/// The bytes that are left to read.
#[derive(Debug, Clone)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Reads the fields in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes that were not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `N` bytes.
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    /// The next 8 bytes, as a little-endian number.
    pub fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// The next bytes, `len` of them.
    #[inline]
    pub fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_field_is_none_and_reads_nothing() {
        let bytes = [7, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3];
        let mut fields = Fields::new(&bytes);
        assert_eq!((fields.number(), fields.take()), (Some(7), Some([1])));
        assert_eq!((fields.number(), fields.take::<3>(), fields.slice(3)), (None, None, None));
        assert_eq!((fields.rest(), fields.is_empty()), (&[2, 3][..], false));
        assert_eq!((fields.slice(2), fields.is_empty()), (Some(&[2, 3][..]), true));
    }
}
