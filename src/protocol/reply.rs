//! The result of a command before it is encoded.

use super::reply_buffer::{ReplyBuffer, Sink};
use super::value::Value;
use super::{Level, Millis, Seq, writer};

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
    Value(Value<'s>),
    /// A value that is no longer in the map.
    Removed(ReplyBuffer),
    /// `get` with `meta`.
    Meta(Meta<'s>),
    /// `get_multi`.
    Pairs(Vec<(&'s [u8], Value<'s>)>),
    /// `range`.
    Page {
        /// The items, in the order of travel.
        items: Vec<(&'s [u8], Shown<'s>)>,
        /// Where the next page starts, if there is one.
        next: Option<&'s [u8]>,
    },
    /// One MessagePack value made elsewhere (`hello`, `stats`).
    Encoded(Vec<u8>),
    /// The same with large values in it (`batch`).
    Results(ReplyBuffer),
}

/// A value with its properties.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Meta<'s> {
    /// The value as it was stored.
    pub value: Value<'s>,
    /// The seq of the write that made it.
    pub seq: Seq,
    /// The rest of its time to live.
    pub ttl_ms: Option<Millis>,
    /// The durability that its writer requested.
    pub level: Level,
}

impl Meta<'_> {
    /// Appends `[value, seq, ttl_ms or nil, level]`.
    fn encode(&self, sink: &mut impl Sink) {
        writer::array_len(sink.bytes(), 4);
        sink.value(&self.value);
        let out = sink.bytes();
        writer::uint(out, self.seq);
        match self.ttl_ms {
            Some(ttl_ms) => writer::uint(out, ttl_ms),
            None => writer::nil(out),
        }
        writer::str(out, self.level.name());
    }
}

/// The part of an entry that a page of `range` returns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shown<'s> {
    /// The key alone.
    Key,
    /// Its value.
    Value(Value<'s>),
    /// The value with its properties.
    Meta(Meta<'s>),
}

impl Shown<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::Key => 0,
            Self::Value(value) | Self::Meta(Meta { value, .. }) => value.bytes.len(),
        }
    }
}

impl Reply<'_> {
    /// The bytes of keys and values in it: at most the encoded length.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Value(value) | Self::Meta(Meta { value, .. }) => value.bytes.len(),
            Self::Removed(buffer) | Self::Results(buffer) => buffer.len(),
            Self::Encoded(bytes) => bytes.len(),
            Self::Pairs(pairs) => {
                pairs.iter().map(|(key, value)| key.len() + value.bytes.len()).sum()
            }
            Self::Page { items, .. } => {
                items.iter().map(|(key, shown)| key.len() + shown.bytes()).sum()
            }
            Self::Nil | Self::Bool(_) | Self::Uint(_) | Self::Int(_) => 1,
        }
    }

    /// Appends the result as one MessagePack value.
    pub fn encode<S: Sink>(&self, sink: &mut S) {
        match self {
            Self::Nil => writer::nil(sink.bytes()),
            Self::Bool(value) => writer::bool(sink.bytes(), *value),
            Self::Uint(number) => writer::uint(sink.bytes(), *number),
            Self::Int(number) => writer::int(sink.bytes(), *number),
            Self::Value(value) => sink.value(value),
            Self::Encoded(value) => sink.bytes().extend_from_slice(value),
            Self::Removed(value) | Self::Results(value) => sink.append(value),
            Self::Meta(meta) => meta.encode(sink),
            Self::Pairs(pairs) => {
                writer::array_len(sink.bytes(), pairs.len());
                for (key, value) in pairs {
                    pair(sink, key, value);
                }
            }
            Self::Page { items, next } => page(items, *next, sink),
        }
    }
}

fn page(items: &[(&[u8], Shown<'_>)], next: Option<&[u8]>, sink: &mut impl Sink) {
    writer::array_len(sink.bytes(), 2);
    writer::array_len(sink.bytes(), items.len());
    for (key, shown) in items {
        match shown {
            Shown::Key => writer::key(sink.bytes(), key),
            Shown::Value(value) => pair(sink, key, value),
            Shown::Meta(meta) => {
                writer::array_len(sink.bytes(), 2);
                writer::key(sink.bytes(), key);
                meta.encode(sink);
            }
        }
    }
    match next {
        Some(next) => writer::key(sink.bytes(), next),
        None => writer::nil(sink.bytes()),
    }
}

fn pair(sink: &mut impl Sink, key: &[u8], value: &Value<'_>) {
    writer::array_len(sink.bytes(), 2);
    writer::key(sink.bytes(), key);
    sink.value(value);
}
