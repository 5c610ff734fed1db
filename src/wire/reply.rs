//! What a command answers, before it becomes bytes.

use super::{Level, Seq, writer};
use crate::clock::Millis;

/// The result of a command. Values borrow from the map, so that one copy puts them into the reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply<'s> {
    /// Nothing.
    Nil,
    /// Yes or no.
    Bool(bool),
    /// A seq or a count.
    Uint(u64),
    /// A number that `incr` or `decr` made.
    Int(i128),
    /// A value as it was stored.
    Value(&'s [u8]),
    /// A value that is no longer in the map.
    Removed(Vec<u8>),
    /// `get` with `meta`.
    Meta(Meta<'s>),
    /// `get_multi`.
    Pairs(Vec<(&'s [u8], &'s [u8])>),
    /// `range`.
    Page {
        /// The items, in the order of travel.
        items: Vec<(&'s [u8], Shown<'s>)>,
        /// Where the next page starts, if there is one.
        next: Option<&'s [u8]>,
    },
    /// One MessagePack value made elsewhere (`batch`, `hello`, `stats`).
    Encoded(Vec<u8>),
}

/// A value with what is known of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Meta<'s> {
    /// The value as it was stored.
    pub value: &'s [u8],
    /// The seq of the write that made it.
    pub seq: Seq,
    /// What is left of its time to live.
    pub ttl_ms: Option<Millis>,
    /// The durability its writer asked for.
    pub level: Level,
}

impl Meta<'_> {
    /// Appends `[value, seq, ttl_ms or nil, level]`.
    fn encode(&self, out: &mut Vec<u8>) {
        writer::array_len(out, 4);
        out.extend_from_slice(self.value);
        writer::uint(out, self.seq);
        match self.ttl_ms {
            Some(ttl_ms) => writer::uint(out, ttl_ms),
            None => writer::nil(out),
        }
        writer::str(out, self.level.name());
    }
}

/// What a page of `range` shows of a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shown<'s> {
    /// The key alone.
    Key,
    /// Its value.
    Value(&'s [u8]),
    /// Its value with what is known of it.
    Meta(Meta<'s>),
}

impl Reply<'_> {
    /// Appends the result as one MessagePack value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nil => writer::nil(out),
            Self::Bool(value) => writer::bool(out, *value),
            Self::Uint(number) => writer::uint(out, *number),
            Self::Int(number) => writer::int(out, *number),
            Self::Value(value) => out.extend_from_slice(value),
            Self::Removed(value) | Self::Encoded(value) => out.extend_from_slice(value),
            Self::Meta(meta) => meta.encode(out),
            Self::Pairs(pairs) => {
                writer::array_len(out, pairs.len());
                for (key, value) in pairs {
                    pair(out, key, value);
                }
            }
            Self::Page { items, next } => {
                writer::array_len(out, 2);
                writer::array_len(out, items.len());
                for (key, shown) in items {
                    match shown {
                        Shown::Key => writer::key(out, key),
                        Shown::Value(value) => pair(out, key, value),
                        Shown::Meta(meta) => {
                            writer::array_len(out, 2);
                            writer::key(out, key);
                            meta.encode(out);
                        }
                    }
                }
                match next {
                    Some(next) => writer::key(out, next),
                    None => writer::nil(out),
                }
            }
        }
    }
}

fn pair(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    writer::array_len(out, 2);
    writer::key(out, key);
    out.extend_from_slice(value);
}
