//! `touch`.

use super::Weight;
use crate::clock::Millis;
use crate::wire::options;
use crate::wire::params::{Params, join_key};
use crate::wire::refusal::Refusal;
use crate::wire::{Key, Level};

/// `touch [key, ttl_ms or nil, {durability, key_prefix}]`: whether the key existed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch<'a> {
    /// The key.
    pub key: Key<'a>,
    /// The new time to live; `None` for no end.
    pub ttl_ms: Option<Millis>,
    /// When the reply may be sent.
    pub durability: Option<Level>,
}

impl<'a> Touch<'a> {
    pub(super) fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let key = params.key()?;
        let ttl_ms = params.with("ttl_ms", |reader, _| {
            let is_nil = reader.nil().map_err(|fault| fault.at("ttl_ms"))?;
            if is_nil { Ok(None) } else { options::ttl_ms(reader).map(Some) }
        })?;
        let mut durability = None;
        let mut prefix: &'a [u8] = &[];
        params.options(&["durability", "key_prefix"], |name, reader| {
            match name {
                "durability" => durability = Some(options::durability(reader)?),
                _ => prefix = options::key_prefix(reader)?,
            }
            Ok(())
        })?;
        Ok(Self { key: join_key(prefix, key)?, ttl_ms, durability })
    }

    /// The key alone: the value that is logged again is known only when the command runs.
    pub(super) fn weight(&self) -> Weight {
        Weight::of(&self.key, &[])
    }
}
