//! The keys that a command touches, and how. One walk serves the check of rights, the hash of keys,
//! and the prefetch of values before the command runs.

use std::ops::ControlFlow;

/// Whether the walk continues.
pub type Visited = ControlFlow<()>;

/// One access of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access<'a> {
    /// The kind of access.
    pub right: Right,
    /// The keys.
    pub keys: Keys<'a>,
}

/// The right that a client needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Right {
    /// Reading values, or learning that there are none.
    Read,
    /// Changing values. Information on the old value in the answer is included.
    Write,
    /// Reading the state of the broker.
    Observe,
    /// Making the broker do work for its operator.
    Operate,
}

/// The keys that a command touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys<'a> {
    /// One key, in two parts.
    One {
        /// The prefix before it; often empty.
        prefix: &'a [u8],
        /// The rest.
        key: &'a [u8],
    },
    /// All keys that begin with `prefix` and are between the bounds.
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
