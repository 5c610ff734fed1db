//! `delete_multi`.

use super::access::{Access, Right, Visited};
use super::cost::CommandCost;
use super::get_multi::unique;
use super::method::{Effects, Method, WriteMethod};
use super::options::WriteOptions;
use super::outcome::Outcome;
use super::prefixed_key::PrefixedKey;
use crate::budget::Cost;
use crate::protocol::params::{Params, check_joined, list_key};
use crate::protocol::{Key, Level, Refusal, Reply, WriteCost};
use crate::state::Store;
use crate::state::write::Write;
use std::borrow::Cow;

/// `delete_multi [[keys], {durability, key_prefix}]`: how many existed; one atomic write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteMulti<'a> {
    /// The prefix of each key.
    pub prefix: &'a [u8],
    /// The keys, each once.
    pub keys: Vec<Key<'a>>,
    /// When the reply may be sent.
    pub durability: Option<Level>,
}

impl<'a> Method<'a> for DeleteMulti<'a> {
    const NAME: &'static str = "delete_multi";
    const EFFECTS: Effects = Effects::REMOVES;

    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let keys = unique(params.list("keys", list_key)?);
        let mut given = WriteOptions::default();
        params.options(&["durability", "key_prefix"], |name, reader| given.read(name, reader))?;
        let WriteOptions { durability, key_prefix: prefix, .. } = given;
        keys.iter().try_for_each(|key| check_joined(prefix, key))?;
        let keys = keys.into_iter().map(Cow::Borrowed).collect();
        Ok(Self { prefix, keys, durability })
    }

    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        let mut keys = self.keys.iter();
        keys.try_for_each(|key| visit(Access::joined(Right::Write, self.prefix, key)))
    }

    fn cost(&self) -> CommandCost {
        let costs = self.keys.iter().map(|key| WriteCost::of(self.prefix.len() + key.len(), 0));
        let write = costs.fold(WriteCost::default(), WriteCost::plus);
        CommandCost { work: Cost::new(self.keys.len(), write.bytes), write }
    }

    fn durability(&self) -> Option<Level> {
        self.durability
    }
}

impl<'a> WriteMethod<'a> for DeleteMulti<'a> {
    fn run(&self, store: &mut Store, write: &mut Write<'_>) -> Result<Outcome<'static>, Refusal> {
        write.has_many();
        let mut joined = PrefixedKey::after(self.prefix);
        let mut existed = 0;
        for key in &self.keys {
            let key = store.hashed(joined.with(key), None);
            existed += u64::from(store.delete(key, write));
        }
        Ok(Reply::Uint(existed).into())
    }
}
