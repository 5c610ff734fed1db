//! The options that writes share.

use crate::clock::Millis;
use crate::protocol::change::Op;
use crate::protocol::reader::{Fault, Reader};
use crate::protocol::{Level, Refusal, Reply, Seq};
use crate::state::map::Head;
use crate::state::read_set::ReadSet;
use crate::state::write::Write;
use crate::state::{HashedKey, REPLY_LIMIT, Store};

/// The shared options given to a write. Each command names those that it accepts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WriteOptions<'a> {
    /// `ttl_ms` or `expires_at_ms`: when the value expires.
    pub(super) expiry: Option<Expiry>,
    /// `if`: the write happens only if this holds.
    pub(super) condition: Option<Condition>,
    /// `durability`: when the reply may be sent.
    pub(super) durability: Option<Level>,
    /// `key_prefix` (LeakDB's): bytes put before the key.
    pub(super) key_prefix: &'a [u8],
    /// `return_value`: the old value is the reply.
    pub(super) return_value: bool,
}

impl<'a> WriteOptions<'a> {
    /// Reads the option `name`.
    #[inline]
    pub(super) fn read(&mut self, name: &str, reader: &mut Reader<'a>) -> Result<(), Refusal> {
        match name {
            "durability" => self.durability = Some(durability(reader)?),
            "ttl_ms" => self.expire(Expiry::After(ttl_ms(reader)?))?,
            "expires_at_ms" => self.expire(expires_at_ms(reader)?)?,
            "if" => self.condition = Some(condition(reader)?),
            "return_value" => self.return_value = flag("return_value", reader)?,
            _ => self.key_prefix = key_prefix(reader)?,
        }
        Ok(())
    }

    fn expire(&mut self, expiry: Expiry) -> Result<(), Refusal> {
        if self.expiry.is_some() {
            let what = "is given beside ttl_ms; give one of them";
            return Err(Refusal::argument("expires_at_ms", what));
        }
        self.expiry = Some(expiry);
        Ok(())
    }
}

/// When a value expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// This many milliseconds after the write.
    After(Millis),
    /// At this time of the broker's clock, in milliseconds since 1970.
    At(Millis),
}

impl Expiry {
    /// The expiry time of a write made `now`; `None` when that has passed.
    #[inline]
    fn time(self, now: Millis) -> Option<Millis> {
        match self {
            Self::After(ttl) => Some(now.saturating_add(ttl)),
            Self::At(time) => (time > now).then_some(time),
        }
    }
}

/// Sets a key's value with the write's expiry; without one, until `kept` (0 for ever). A time that
/// has passed removes the key. Returns whether anything has changed.
#[inline]
pub(super) fn put(
    store: &mut Store,
    key: HashedKey<'_>,
    value: &[u8],
    expiry: Option<Expiry>,
    kept: Millis,
    write: &mut Write<'_>,
) -> bool {
    match expiry.map_or(Some(kept), |expiry| expiry.time(write.now())) {
        Some(expires_at) => {
            store.put(Op::Set, key, value, expires_at, write);
            true
        }
        None => store.delete(key, write),
    }
}

/// Changes the expiry time of an existing key; `None` for no end.
pub(super) fn retime(
    store: &mut Store,
    key: HashedKey<'_>,
    old: Head,
    expiry: Option<Expiry>,
    write: &mut Write<'_>,
) {
    match expiry.map_or(Some(0), |expiry| expiry.time(write.now())) {
        Some(expires_at) => store.retime(key, old, expires_at, write),
        None => drop(store.delete(key, write)),
    }
}

/// The old value of a key before a write changes it, returned as the write's reply.
pub(super) fn old_value(
    store: &mut Store,
    key: HashedKey<'_>,
    write: &mut Write<'_>,
) -> Result<Reply<'static>, Refusal> {
    let reply_bytes = write.context.reply_bytes;
    let Some(entry) = store.current(key, write) else {
        write.barrier.join(store.removals());
        return Ok(Reply::Nil);
    };
    if entry.value.len() > reply_bytes {
        return Err(Refusal::too_large(REPLY_LIMIT, reply_bytes));
    }
    write.barrier.require(entry.head.level, entry.head.seq);
    Ok(Reply::Removed(entry.kept()))
}

/// The condition on a key for a write to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The key does not exist.
    Absent,
    /// The key exists.
    Present,
    /// The key exists and was last written at this seq.
    Seq(Seq),
}

impl Condition {
    /// Refuses the write where the condition does not hold; the reply waits for the key's state
    /// that this shows.
    pub(super) fn check(
        self,
        store: &Store,
        key: HashedKey<'_>,
        write: &mut Write<'_>,
    ) -> Result<(), Refusal> {
        let mut seen = ReadSet::default();
        let seq = store.look(key, write.now(), &mut seen).map(|entry| entry.head.seq);
        write.saw(&seen);
        let holds = match self {
            Self::Absent => seq.is_none(),
            Self::Present => seq.is_some(),
            Self::Seq(wanted) => seq == Some(wanted),
        };
        if holds { Ok(()) } else { Err(Refusal::conflict(seq)) }
    }
}

/// Reads a `durability` option.
fn durability(reader: &mut Reader<'_>) -> Result<Level, Refusal> {
    let name = reader.bytes().map_err(|fault| fault.at("durability"))?;
    Level::from_name(name).ok_or_else(|| {
        Refusal::argument("durability", "must be one of memory, queued, stored, synced")
    })
}

/// Reads a time to live in milliseconds, at least 1.
pub(super) fn ttl_ms(reader: &mut Reader<'_>) -> Result<Millis, Refusal> {
    match reader.uint().map_err(|fault| fault.at("ttl_ms"))? {
        0 => Err(Refusal::argument("ttl_ms", "must be at least 1; leave it out for no end")),
        ttl => Ok(ttl),
    }
}

/// Reads a time in milliseconds since 1970.
pub(super) fn expires_at_ms(reader: &mut Reader<'_>) -> Result<Expiry, Refusal> {
    reader.uint().map(Expiry::At).map_err(|fault| fault.at("expires_at_ms"))
}

/// Reads an `if` option.
fn condition(reader: &mut Reader<'_>) -> Result<Condition, Refusal> {
    const WANTED: Fault = Fault::Wrong { wanted: "\"absent\", \"present\" or a seq" };
    if let Ok(seq) = reader.uint() {
        return Ok(Condition::Seq(seq));
    }
    match reader.bytes() {
        Ok(b"absent") => Ok(Condition::Absent),
        Ok(b"present") => Ok(Condition::Present),
        Ok(_) | Err(Fault::Wrong { .. }) => Err(WANTED.at("if")),
        Err(fault) => Err(fault.at("if")),
    }
}

/// Reads a `key_prefix` option (LeakDB's): bytes put before the key.
pub(super) fn key_prefix<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Refusal> {
    reader.bytes().map_err(|fault| fault.at("key_prefix"))
}

/// Reads a `limit` option, at least 1.
pub(super) fn limit(reader: &mut Reader<'_>) -> Result<usize, Refusal> {
    match reader.uint().map_err(|fault| fault.at("limit"))? {
        0 => Err(Refusal::argument("limit", "must be at least 1")),
        limit => Ok(usize::try_from(limit).unwrap_or(usize::MAX)),
    }
}

/// Reads an option that is a boolean.
pub(super) fn flag(name: &'static str, reader: &mut Reader<'_>) -> Result<bool, Refusal> {
    reader.bool().map_err(|fault| fault.at(name))
}
