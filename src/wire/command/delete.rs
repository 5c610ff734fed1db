//! `delete` and `delete_multi`.

use super::Weight;
use super::get::unique;
use crate::wire::options::{self, Condition};
use crate::wire::params::{Params, check_joined, join_key, list_key};
use crate::wire::refusal::Refusal;
use crate::wire::{Key, Level};
use std::borrow::Cow;

/// `delete [key, {return_value, if, durability, key_prefix}]`: whether it existed, or the old
/// value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete<'a> {
    /// The key.
    pub key: Key<'a>,
    /// Answer the old value (nil where there was none) instead of true or false.
    pub return_value: bool,
    /// The delete happens only if this holds.
    pub condition: Option<Condition>,
    /// When the reply may be sent.
    pub durability: Option<Level>,
}

impl<'a> Delete<'a> {
    pub(super) fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let key = params.key()?;
        let (mut return_value, mut condition, mut durability) = (false, None, None);
        let mut prefix: &'a [u8] = &[];
        params.options(&["return_value", "if", "durability", "key_prefix"], |name, reader| {
            match name {
                "return_value" => return_value = options::flag(name, reader)?,
                "if" => condition = Some(options::condition(reader)?),
                "durability" => durability = Some(options::durability(reader)?),
                _ => prefix = options::key_prefix(reader)?,
            }
            Ok(())
        })?;
        if condition == Some(Condition::Absent) {
            return Err(Refusal::argument("if", "must be \"present\" or a seq for a delete"));
        }
        Ok(Self { key: join_key(prefix, key)?, return_value, condition, durability })
    }
}

/// `delete_multi [[keys], {durability, key_prefix}]`: how many existed; one atomic write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteMulti<'a> {
    /// What stands before each key.
    pub prefix: &'a [u8],
    /// The keys, each once.
    pub keys: Vec<Key<'a>>,
    /// When the reply may be sent.
    pub durability: Option<Level>,
}

impl<'a> DeleteMulti<'a> {
    pub(super) fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let keys = unique(params.list("keys", list_key)?);
        let mut durability = None;
        let mut prefix: &'a [u8] = &[];
        params.options(&["durability", "key_prefix"], |name, reader| {
            match name {
                "durability" => durability = Some(options::durability(reader)?),
                _ => prefix = options::key_prefix(reader)?,
            }
            Ok(())
        })?;
        keys.iter().try_for_each(|key| check_joined(prefix, key))?;
        let keys = keys.into_iter().map(Cow::Borrowed).collect();
        Ok(Self { prefix, keys, durability })
    }

    pub(super) fn weight(&self) -> Weight {
        let weights = self.keys.iter().map(|key| Weight::of(key, &[]));
        weights.fold(Weight::default(), Weight::plus).with_prefix(self.prefix)
    }
}
