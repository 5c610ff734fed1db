//! `touch`.

use super::access::{Access, Right, Visited};
use super::cost::CommandCost;
use super::method::{Effects, Method, WriteMethod};
use super::options::{self, Expiry, WriteOptions};
use super::outcome::Outcome;
use crate::budget::Cost;
use crate::protocol::params::{Params, join_key};
use crate::protocol::{Key, Level, Refusal, Reply, WriteCost};
use crate::state::Store;
use crate::state::write::Write;

/// `touch [key, ttl_ms or nil, {expires_at_ms, durability, key_prefix}]`: whether the key existed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch<'a> {
    /// The key.
    pub key: Key<'a>,
    /// The new expiry; `None` for none.
    pub expiry: Option<Expiry>,
    /// When the reply may be sent.
    pub durability: Option<Level>,
}

impl<'a> Method<'a> for Touch<'a> {
    const NAME: &'static str = "touch";
    const EFFECTS: Effects = Effects::ADDS;

    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let key = params.key()?;
        let expiry = params.with("ttl_ms", |reader, _| {
            let is_nil = reader.nil().map_err(|fault| fault.at("ttl_ms"))?;
            if is_nil { Ok(None) } else { options::ttl_ms(reader).map(Expiry::After).map(Some) }
        })?;
        let mut given = WriteOptions { expiry, ..WriteOptions::default() };
        let known = ["expires_at_ms", "durability", "key_prefix"];
        params.options(&known, |name, reader| given.read(name, reader))?;
        let WriteOptions { expiry, durability, key_prefix, .. } = given;
        Ok(Self { key: join_key(key_prefix, key)?, expiry, durability })
    }

    #[inline]
    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        visit(Access::key(Right::Write, &self.key))
    }

    fn cost(&self) -> CommandCost {
        CommandCost { work: Cost::new(1, 0), write: WriteCost::of(self.key.len(), 0) }
    }

    fn durability(&self) -> Option<Level> {
        self.durability
    }
}

impl<'a> WriteMethod<'a> for Touch<'a> {
    fn run(&self, store: &mut Store, write: &mut Write<'_>) -> Result<Outcome<'static>, Refusal> {
        let key = store.hashed(&self.key, write.hash);
        let Some(entry) = store.current(key, write) else {
            write.barrier.join(store.removals());
            return Ok(Reply::Bool(false).into());
        };
        let old = entry.head;
        write.barrier.require(old.level, old.seq);
        options::retime(store, key, old, self.expiry, write);
        Ok(Reply::Bool(true).into())
    }

    /// A touch carries no value, so it neither persists a value nor undoes that: on a value of
    /// level `memory` it has that level, on others at least `queued`.
    fn level(&self, requested: Level, store: &Store, hash: Option<u64>) -> Level {
        match store.is_persisted(store.hashed(&self.key, hash)) {
            Some(true) => requested.max(Level::Queued),
            Some(false) => Level::Memory,
            None => requested,
        }
    }
}
