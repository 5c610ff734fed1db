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
    Meta {
        /// The value as it was stored.
        value: &'s [u8],
        /// The seq of the write that made it.
        seq: Seq,
        /// What is left of its time to live.
        ttl_ms: Option<Millis>,
        /// The durability its writer asked for.
        level: Level,
    },
    /// `get_multi`.
    Pairs(Vec<(&'s [u8], &'s [u8])>),
    /// `range`; a value is `None` where only keys were asked for.
    Page {
        /// The items, in the order of travel.
        items: Vec<(&'s [u8], Option<&'s [u8]>)>,
        /// Where the next page starts, if there is one.
        next: Option<&'s [u8]>,
    },
    /// One MessagePack value made elsewhere (`batch`, `hello`, `stats`).
    Encoded(Vec<u8>),
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
            Self::Meta { value, seq, ttl_ms, level } => {
                writer::array_len(out, 4);
                out.extend_from_slice(value);
                writer::uint(out, *seq);
                match ttl_ms {
                    Some(ttl_ms) => writer::uint(out, *ttl_ms),
                    None => writer::nil(out),
                }
                writer::str(out, level.name());
            }
            Self::Pairs(pairs) => {
                writer::array_len(out, pairs.len());
                for (key, value) in pairs {
                    pair(out, key, value);
                }
            }
            Self::Page { items, next } => {
                writer::array_len(out, 2);
                writer::array_len(out, items.len());
                for (key, value) in items {
                    match value {
                        Some(value) => pair(out, key, value),
                        None => writer::key(out, key),
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
