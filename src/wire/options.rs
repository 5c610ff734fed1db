//! The options that writes share.

use super::Seq;
use super::level::Level;
use super::reader::{Fault, Reader};
use super::refusal::Refusal;
use crate::clock::Millis;

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

/// Reads a `durability` option.
pub fn durability(reader: &mut Reader<'_>) -> Result<Level, Refusal> {
    let name = reader.bytes().map_err(|fault| fault.at("durability"))?;
    Level::from_name(name).ok_or_else(|| {
        Refusal::argument("durability", "must be one of memory, queued, stored, synced")
    })
}

/// Reads a time to live in milliseconds, at least 1.
pub fn ttl_ms(reader: &mut Reader<'_>) -> Result<Millis, Refusal> {
    match reader.uint().map_err(|fault| fault.at("ttl_ms"))? {
        0 => Err(Refusal::argument("ttl_ms", "must be at least 1; leave it out for no end")),
        ttl => Ok(ttl),
    }
}

/// Reads an `if` option.
pub fn condition(reader: &mut Reader<'_>) -> Result<Condition, Refusal> {
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
pub fn key_prefix<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Refusal> {
    reader.bytes().map_err(|fault| fault.at("key_prefix"))
}

/// Reads an option that is a boolean.
pub fn flag(name: &'static str, reader: &mut Reader<'_>) -> Result<bool, Refusal> {
    reader.bool().map_err(|fault| fault.at(name))
}
