//! `set`.

use super::access::{Access, Right, Visited};
use super::apply::Outcome;
use super::cost::CommandCost;
use super::method::{Effects, Method, WriteMethod};
use super::options::{Condition, WriteOptions};
use crate::budget::Cost;
use crate::clock::Millis;
use crate::store::Store;
use crate::store::write::Write;
use crate::wire::change::Op;
use crate::wire::params::{Params, join_key};
use crate::wire::{Key, Level, Refusal, Reply, WriteCost};

/// `set [key, value, {ttl_ms, if, durability, key_prefix}]`: the seq of the write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set<'a> {
    /// The key.
    pub key: Key<'a>,
    /// The value: the bytes of one MessagePack value.
    pub value: &'a [u8],
    /// The value expires after so long.
    pub ttl_ms: Option<Millis>,
    /// The write happens only if this holds.
    pub condition: Option<Condition>,
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
        let known = ["ttl_ms", "if", "durability", "key_prefix"];
        params.options(&known, |name, reader| given.read(name, reader))?;
        let WriteOptions { ttl_ms, condition, durability, key_prefix, .. } = given;
        Ok(Self { key: join_key(key_prefix, key)?, value, ttl_ms, condition, durability })
    }

    #[inline]
    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        visit(Access::key(Right::Write, &self.key))
    }

    #[inline]
    fn cost(&self, _: &Store, _: Option<u64>) -> CommandCost {
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
        let expires_at = write.deadline(self.ttl_ms);
        store.put(Op::Set, key, self.value, expires_at, write);
        Ok(Reply::Uint(write.seq).into())
    }
}
