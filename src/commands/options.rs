//! The options that writes share.

use crate::clock::Millis;
use crate::store::read_set::ReadSet;
use crate::store::write::Write;
use crate::store::{HashedKey, Store};
use crate::wire::reader::{Fault, Reader};
use crate::wire::{Level, Refusal, Seq};

/// What a write was given of the options that writes share. Each command names those it takes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WriteOptions<'a> {
    /// `ttl_ms`: the value expires after so long.
    pub(super) ttl_ms: Option<Millis>,
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
            "ttl_ms" => self.ttl_ms = Some(ttl_ms(reader)?),
            "if" => self.condition = Some(condition(reader)?),
            "return_value" => self.return_value = flag("return_value", reader)?,
            _ => self.key_prefix = key_prefix(reader)?,
        }
        Ok(())
    }
}

/// What must be true of a key for a write to it to happen.
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
    /// Refuses the write where the condition does not hold; what that shows of the key, the reply
    /// waits for.
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
