//! A value as replies return it.

use super::Shared;

/// A stored value, and the allocation that holds it, where that can be shared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Value<'s> {
    /// The bytes of one MessagePack value.
    pub bytes: &'s [u8],
    /// The allocation of a large value.
    pub shared: Option<&'s Shared>,
}

impl<'s> From<&'s [u8]> for Value<'s> {
    fn from(bytes: &'s [u8]) -> Self {
        Self { bytes, shared: None }
    }
}
