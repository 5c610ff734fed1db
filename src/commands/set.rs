//! `set`.

use super::access::{Access, Right, Visited};
use super::cost::CommandCost;
use super::method::{Effects, Method, WriteMethod};
use super::options::{self, Condition, Expiry, WriteOptions};
use super::outcome::Outcome;
use crate::budget::Cost;
use crate::protocol::params::{Params, join_key};
use crate::protocol::{Key, Level, Refusal, Reply, WriteCost};
use crate::state::Store;
use crate::state::write::Write;

/// `set [key, value, {ttl_ms, expires_at_ms, if, return_value, durability, key_prefix}]`: the seq
/// of the write, or the old value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set<'a> {
    /// The key.
    pub key: Key<'a>,
    /// The value: the bytes of one MessagePack value.
    pub value: &'a [u8],
    /// When the value expires.
    pub expiry: Option<Expiry>,
    /// The write happens only if this holds.
    pub condition: Option<Condition>,
    /// Answer the old value (nil where there was none) instead of the seq.
    pub return_value: bool,
    /// When the reply may be sent.
    pub durability: Option<Level>,
}

impl<'a> Method<'a> for Set<'a> {
    const NAME: &'static str = "set";
    const EFFECTS: Effects = Effects::ADDS;

    #[inline]
    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let key = params.key()?;
        let value = params.value()?;
        let mut given = WriteOptions::default();
        let known = ["ttl_ms", "expires_at_ms", "if", "durability", "key_prefix", "return_value"];
        params.options(&known, |name, reader| given.read(name, reader))?;
        let WriteOptions { expiry, condition, durability, key_prefix, return_value } = given;
        Ok(Self {
            key: join_key(key_prefix, key)?,
            value,
            expiry,
            condition,
            return_value,
            durability,
        })
    }

    #[inline]
    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        visit(Access::key(Right::Write, &self.key))
    }

    fn values<'s>(&'s self, visit: &mut dyn FnMut(&'s [u8])) {
        visit(self.value);
    }

    #[inline]
    fn cost(&self) -> CommandCost {
        CommandCost {
            work: Cost::new(1, 2 * (self.key.len() + self.value.len())),
            write: WriteCost::of(self.key.len(), self.value.len()),
        }
    }

    #[inline]
    fn durability(&self) -> Option<Level> {
        self.durability
    }
}

impl<'a> WriteMethod<'a> for Set<'a> {
    #[inline]
    fn run(&self, store: &mut Store, write: &mut Write<'_>) -> Result<Outcome<'static>, Refusal> {
        let key = store.hashed(&self.key, write.hash);
        if let Some(condition) = self.condition {
            condition.check(store, key, write)?;
        }
        let old = match self.return_value {
            true => Some(options::old_value(store, key, write)?),
            false => None,
        };
        let is_written = options::put(store, key, self.value, self.expiry, 0, write);
        let seq = if is_written { write.seq } else { store.seq() };
        Ok(old.unwrap_or(Reply::Uint(seq)).into())
    }
}
