//! The options of a write.

use super::raw_value::RawValue;
use super::request::Request;

pub use crate::protocol::Level;

/// The condition of a write; if it does not hold, the broker answers `CONFLICT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The key does not exist.
    Absent,
    /// The key exists.
    Present,
    /// The key was last changed by the write with this sequence number.
    Seq(u64),
}

impl From<Condition> for RawValue {
    fn from(condition: Condition) -> RawValue {
        match condition {
            Condition::Absent => "absent".into(),
            Condition::Present => "present".into(),
            Condition::Seq(seq) => seq.into(),
        }
    }
}

/// Options of a write; the default requests nothing beyond the broker's defaults.
///
/// Not every command accepts every option: the broker refuses an option that the command does not
/// have.
///
/// ```
/// use vatn::client::{Condition, Level, WriteOptions};
///
/// // Only if the key is absent, for ten minutes, answered once the kernel has it.
/// let options = WriteOptions {
///     condition: Some(Condition::Absent),
///     ttl_ms: Some(600_000),
///     ..WriteOptions::durability(Level::Stored)
/// };
/// # drop(options);
/// ```
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// The level the reply waits for; the broker's `--durability` when not given.
    pub durability: Option<Level>,
    /// The write's condition.
    pub condition: Option<Condition>,
    /// The time to live of the key, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// When the key expires, in milliseconds since 1970; not together with `ttl_ms`.
    pub expires_at_ms: Option<u64>,
    /// Bytes prefixed to each key (LeakDB's `key_prefix`).
    pub key_prefix: Option<Vec<u8>>,
}

impl WriteOptions {
    /// Options that request a level and nothing else.
    pub fn durability(level: Level) -> Self {
        WriteOptions { durability: Some(level), ..WriteOptions::default() }
    }

    pub(super) fn apply(&self, request: Request) -> Request {
        request
            .option_if("durability", self.durability.map(Level::name))
            .option_if("if", self.condition)
            .option_if("ttl_ms", self.ttl_ms)
            .option_if("expires_at_ms", self.expires_at_ms)
            .option_if("key_prefix", self.key_prefix.as_deref().map(RawValue::key))
    }
}
