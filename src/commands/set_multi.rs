//! `set_multi`.

use super::access::{Access, Right, Visited};
use super::cost::CommandCost;
use super::method::{Effects, Method, WriteMethod};
use super::options::{self, Expiry, WriteOptions};
use super::outcome::Outcome;
use super::prefixed_key::PrefixedKey;
use crate::budget::Cost;
use crate::protocol::params::{Params, check_joined};
use crate::protocol::{Key, Level, Refusal, Reply, WriteCost};
use crate::state::Store;
use crate::state::write::Write;
use std::borrow::Cow;

/// `set_multi [[[key, value]…], {ttl_ms, expires_at_ms, durability, key_prefix}]`: the seq of the
/// one atomic write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetMulti<'a> {
    /// The prefix of each key. It is added when the pairs apply: otherwise a short request would
    /// become a long list of long keys before the room for it is checked.
    pub prefix: &'a [u8],
    /// The pairs, in the order in which they apply.
    pub pairs: Vec<(Key<'a>, &'a [u8])>,
    /// When the values expire.
    pub expiry: Option<Expiry>,
    /// When the reply may be sent.
    pub durability: Option<Level>,
}

impl<'a> Method<'a> for SetMulti<'a> {
    const NAME: &'static str = "set_multi";
    const EFFECTS: Effects = Effects::ADDS;

    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let raw = params.list("pairs", |reader| {
            let pair = reader.array_len().map_err(|fault| fault.at("pairs"))?;
            if pair != 2 {
                return Err(Refusal::argument("pairs", "each must be [key, value]"));
            }
            let key = reader.bytes().map_err(|fault| fault.at("pairs"))?;
            let value = reader.value().map_err(|fault| fault.at("pairs"))?;
            Ok((key, value))
        })?;
        let mut given = WriteOptions::default();
        let known = ["ttl_ms", "expires_at_ms", "durability", "key_prefix"];
        params.options(&known, |name, reader| given.read(name, reader))?;
        let WriteOptions { expiry, durability, key_prefix: prefix, .. } = given;
        let pair = |(key, value)| {
            check_joined(prefix, key)?;
            Ok((Cow::Borrowed(key), value))
        };
        let pairs: Result<_, _> = raw.into_iter().map(pair).collect();
        Ok(Self { prefix, pairs: pairs?, expiry, durability })
    }

    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        let mut keys = self.pairs.iter().map(|(key, _)| key);
        keys.try_for_each(|key| visit(Access::joined(Right::Write, self.prefix, key)))
    }

    fn values<'s>(&'s self, visit: &mut dyn FnMut(&'s [u8])) {
        self.pairs.iter().for_each(|(_, value)| visit(value));
    }

    fn cost(&self) -> CommandCost {
        let one = |(key, value): &(Key<'_>, &[u8])| {
            WriteCost::of(self.prefix.len() + key.len(), value.len())
        };
        let write = self.pairs.iter().map(one).fold(WriteCost::default(), WriteCost::plus);
        CommandCost { work: Cost::new(self.pairs.len(), 2 * write.bytes), write }
    }

    fn durability(&self) -> Option<Level> {
        self.durability
    }
}

impl<'a> WriteMethod<'a> for SetMulti<'a> {
    fn run(&self, store: &mut Store, write: &mut Write<'_>) -> Result<Outcome<'static>, Refusal> {
        write.has_many();
        let mut is_written = false;
        let mut joined = PrefixedKey::after(self.prefix);
        for (key, value) in &self.pairs {
            let key = store.hashed(joined.with(key), None);
            is_written |= options::put(store, key, value, self.expiry, 0, write);
        }
        Ok(Reply::Uint(if is_written { write.seq } else { store.seq() }).into())
    }
}
