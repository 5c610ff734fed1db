//! What a command touches, and what it does there: one walk for whoever checks rights, hashes keys,
//! or brings values into memory before the command runs.

use std::ops::ControlFlow;

/// Whether the walk goes on.
pub type Visited = ControlFlow<()>;

/// Something that a command touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access<'a> {
    /// What it does there.
    pub right: Right,
    /// Where.
    pub keys: Keys<'a>,
}

/// What a client must be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Right {
    /// To see values, or that there is none.
    Read,
    /// To change values. What an answer tells of the old value comes with it.
    Write,
    /// To see how the broker is doing.
    Observe,
    /// To have the broker do work for its operator.
    Operate,
}

/// The keys that a command touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys<'a> {
    /// One key, in two parts.
    One {
        /// What stands before it; often empty.
        prefix: &'a [u8],
        /// The rest.
        key: &'a [u8],
    },
    /// All keys that begin with `prefix` and lie between the bounds.
    Range {
        /// Empty for all keys.
        prefix: &'a [u8],
        /// The first key.
        from: Option<&'a [u8]>,
        /// The end, exclusive.
        to: Option<&'a [u8]>,
    },
    /// No key: the broker itself.
    Broker,
}

impl<'a> Access<'a> {
    /// One key.
    #[inline]
    pub fn key(right: Right, key: &'a [u8]) -> Self {
        Self::joined(right, &[], key)
    }

    /// One key behind a prefix.
    #[inline]
    pub fn joined(right: Right, prefix: &'a [u8], key: &'a [u8]) -> Self {
        Self { right, keys: Keys::One { prefix, key } }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(right: Right, prefix: &'a [u8]) -> Self {
        Self { right, keys: Keys::Range { prefix, from: None, to: None } }
    }

    /// The broker itself.
    pub fn broker(right: Right) -> Self {
        Self { right, keys: Keys::Broker }
    }
}
