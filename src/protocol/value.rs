//! A value as replies show it.

use super::Shared;

/// A value as it was stored, and the allocation that holds it, where that can be shared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Value<'s> {
    /// The bytes of one MessagePack value.
    pub bytes: &'s [u8],
    /// What holds them, where they are many.
    pub shared: Option<&'s Shared>,
}

impl<'s> From<&'s [u8]> for Value<'s> {
    fn from(bytes: &'s [u8]) -> Self {
        Self { bytes, shared: None }
    }
}
