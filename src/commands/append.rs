//! `append`.

use super::access::{Access, Right, Visited};
use super::cost::CommandCost;
use super::method::{Effects, Method, WriteMethod};
use super::options::{self, Condition, Expiry, WriteOptions};
use super::outcome::Outcome;
use crate::budget::Cost;
use crate::protocol::params::{Params, join_key};
use crate::protocol::{Code, Key, Level, Reader, Refusal, Reply, WriteCost, writer};
use crate::state::Store;
use crate::state::write::Write;

/// The longest resulting value: a change carries the whole value, however little was appended.
const BYTES_MAX: usize = 1 << 20;
const LIMIT: &str = "append_bytes";

/// The longest head of a str or bin.
const HEAD_BYTES: usize = 5;

/// `append [key, bytes, {ttl_ms, expires_at_ms, if, durability, key_prefix}]`: the length of the
/// new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append<'a> {
    /// The key.
    pub key: Key<'a>,
    /// The bytes to append to the old value; the whole value where there is none.
    pub bytes: Blob<'a>,
    /// When the value expires; without it a time to live is unchanged.
    pub expiry: Option<Expiry>,
    /// The write happens only if this holds.
    pub condition: Option<Condition>,
    /// When the reply may be sent.
    pub durability: Option<Level>,
}

/// Text or bytes, without the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob<'a> {
    /// It is a MessagePack str.
    pub is_text: bool,
    /// The bytes of its text or bin.
    pub bytes: &'a [u8],
}

impl<'a> Method<'a> for Append<'a> {
    const NAME: &'static str = "append";
    const EFFECTS: Effects = Effects { measured: true, ..Effects::ADDS };
    const LIMITS: &'static [(&'static str, usize)] = &[(LIMIT, BYTES_MAX)];

    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let key = params.key()?;
        let bytes = params.required("bytes", |reader| {
            let is_text = is_text(reader.peek()?);
            Ok(Blob { is_text, bytes: reader.bytes()? })
        })?;
        let mut given = WriteOptions::default();
        let known = ["ttl_ms", "expires_at_ms", "if", "durability", "key_prefix"];
        params.options(&known, |name, reader| given.read(name, reader))?;
        let WriteOptions { expiry, condition, durability, key_prefix, .. } = given;
        Ok(Self { key: join_key(key_prefix, key)?, bytes, expiry, condition, durability })
    }

    #[inline]
    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        visit(Access::key(Right::Write, &self.key))
    }

    /// The cost of the whole value, unless it is refused.
    fn cost(&self) -> CommandCost {
        self.cost_behind(0)
    }

    fn cost_on(&self, store: &Store, hash: Option<u64>) -> CommandCost {
        self.cost_behind(store.value_len(store.hashed(&self.key, hash)))
    }

    fn durability(&self) -> Option<Level> {
        self.durability
    }
}

impl Append<'_> {
    /// The cost with an old value of this many bytes.
    fn cost_behind(&self, old: usize) -> CommandCost {
        let len = HEAD_BYTES + old + self.bytes.bytes.len();
        let len = if len > BYTES_MAX + 2 * HEAD_BYTES { 0 } else { len };
        CommandCost {
            work: Cost::new(2, 3 * len + 2 * self.key.len()),
            write: WriteCost::of(self.key.len(), len),
        }
    }
}

impl<'a> WriteMethod<'a> for Append<'a> {
    fn run(&self, store: &mut Store, write: &mut Write<'_>) -> Result<Outcome<'static>, Refusal> {
        let key = store.hashed(&self.key, write.hash);
        if let Some(condition) = self.condition {
            condition.check(store, key, write)?;
        }
        let (value, len, kept) = match store.current(key, write) {
            Some(entry) => {
                // The length gives information on the old value, and so does a refusal.
                write.barrier.require(entry.head.level, entry.head.seq);
                let old = Blob::of(entry.value).ok_or_else(no_blob)?;
                let (value, len) = old.with(self.bytes)?;
                (value, len, entry.head.expires_at)
            }
            None => {
                write.barrier.join(store.removals());
                let none = Blob { is_text: self.bytes.is_text, bytes: &[] };
                let (value, len) = none.with(self.bytes)?;
                (value, len, 0)
            }
        };
        write.charge(0, value.len());
        options::put(store, key, &value, self.expiry, kept, write);
        Ok(Reply::Uint(len as u64).into())
    }
}

impl<'a> Blob<'a> {
    /// The bytes of a value, if it is text or bin.
    fn of(value: &'a [u8]) -> Option<Self> {
        let is_text = is_text(*value.first()?);
        Some(Self { is_text, bytes: Reader::new(value).bytes().ok()? })
    }

    /// Returns the value of these bytes and `more` in its shortest form, and its length. It is text
    /// where both are.
    fn with(self, more: Self) -> Result<(Vec<u8>, usize), Refusal> {
        let len = self.bytes.len() + more.bytes.len();
        if len > BYTES_MAX {
            return Err(Refusal::too_large(LIMIT, BYTES_MAX));
        }
        let mut value = Vec::with_capacity(HEAD_BYTES + len);
        match self.is_text && more.is_text {
            true => writer::str_len(&mut value, len),
            false => writer::bin_len(&mut value, len),
        }
        value.extend_from_slice(self.bytes);
        value.extend_from_slice(more.bytes);
        Ok((value, len))
    }
}

/// Whether a value that begins with this byte is a str.
fn is_text(marker: u8) -> bool {
    matches!(marker, 0xA0..=0xBF | 0xD9..=0xDB)
}

fn no_blob() -> Refusal {
    Refusal::new(Code::WrongType, "the value is neither text nor bytes")
}
