//! `set` and `set_multi`.

use super::Weight;
use crate::clock::Millis;
use crate::wire::options::{self, Condition};
use crate::wire::params::{Params, check_joined, join_key};
use crate::wire::refusal::Refusal;
use crate::wire::{Key, Level};
use std::borrow::Cow;

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

impl<'a> Set<'a> {
    #[inline]
    pub(super) fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let key = params.key()?;
        let value = params.value()?;
        let (mut ttl_ms, mut condition, mut durability) = (None, None, None);
        let mut prefix: &'a [u8] = &[];
        params.options(&["ttl_ms", "if", "durability", "key_prefix"], |name, reader| {
            match name {
                "ttl_ms" => ttl_ms = Some(options::ttl_ms(reader)?),
                "if" => condition = Some(options::condition(reader)?),
                "durability" => durability = Some(options::durability(reader)?),
                _ => prefix = options::key_prefix(reader)?,
            }
            Ok(())
        })?;
        Ok(Self { key: join_key(prefix, key)?, value, ttl_ms, condition, durability })
    }
}

/// `set_multi [[[key, value]…], {ttl_ms, durability, key_prefix}]`: the seq of the one atomic
/// write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetMulti<'a> {
    /// What stands before each key. It is put there when the pairs apply: a short request would
    /// be a long list of long keys otherwise, before anyone has asked whether there is room.
    pub prefix: &'a [u8],
    /// The pairs, in the order in which they apply.
    pub pairs: Vec<(Key<'a>, &'a [u8])>,
    /// The values expire after so long.
    pub ttl_ms: Option<Millis>,
    /// When the reply may be sent.
    pub durability: Option<Level>,
}

impl<'a> SetMulti<'a> {
    pub(super) fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let raw = params.list("pairs", |reader| {
            let pair = reader.array_len().map_err(|fault| fault.at("pairs"))?;
            if pair != 2 {
                return Err(Refusal::argument("pairs", "each must be [key, value]"));
            }
            let key = reader.bytes().map_err(|fault| fault.at("pairs"))?;
            let value = reader.value().map_err(|fault| fault.at("pairs"))?;
            Ok((key, value))
        })?;
        let (mut ttl_ms, mut durability) = (None, None);
        let mut prefix: &'a [u8] = &[];
        params.options(&["ttl_ms", "durability", "key_prefix"], |name, reader| {
            match name {
                "ttl_ms" => ttl_ms = Some(options::ttl_ms(reader)?),
                "durability" => durability = Some(options::durability(reader)?),
                _ => prefix = options::key_prefix(reader)?,
            }
            Ok(())
        })?;
        let pair = |(key, value)| {
            check_joined(prefix, key)?;
            Ok((Cow::Borrowed(key), value))
        };
        let pairs: Result<_, _> = raw.into_iter().map(pair).collect();
        Ok(Self { prefix, pairs: pairs?, ttl_ms, durability })
    }

    pub(super) fn weight(&self) -> Weight {
        let weights = self.pairs.iter().map(|(key, value)| Weight::of(key, value));
        weights.fold(Weight::default(), Weight::plus).with_prefix(self.prefix)
    }
}
