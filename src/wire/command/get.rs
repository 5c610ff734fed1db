//! `get` and `get_multi`.

use crate::wire::Key;
use crate::wire::options;
use crate::wire::params::{Params, check_key, join_key, list_key};
use crate::wire::refusal::Refusal;

/// `get [key, {meta, key_prefix}]`: the value, or nil.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Get<'a> {
    /// The key.
    pub key: Key<'a>,
    /// Answer `[value, seq, ttl_ms or nil, level]` instead of the value alone.
    pub meta: bool,
}

impl<'a> Get<'a> {
    #[inline]
    pub(super) fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let key = params.key()?;
        let (mut meta, mut prefix): (bool, &'a [u8]) = (false, &[]);
        params.options(&["meta", "key_prefix"], |name, reader| {
            match name {
                "meta" => meta = options::flag(name, reader)?,
                _ => prefix = options::key_prefix(reader)?,
            }
            Ok(())
        })?;
        Ok(Self { key: join_key(prefix, key)?, meta })
    }
}

/// `get_multi [[keys]]`: `[[key, value]…]` of those found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetMulti<'a> {
    /// The keys, in the order asked for, each once.
    pub keys: Vec<&'a [u8]>,
}

impl<'a> GetMulti<'a> {
    pub(super) fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let keys = params.list("keys", |reader| {
            let key = list_key(reader)?;
            check_key(key).map(|()| key)
        })?;
        params.options(&[], |_, _| Ok(()))?;
        Ok(Self { keys: unique(keys) })
    }
}

/// The keys without repeats, each at its first place.
pub(super) fn unique(keys: Vec<&[u8]>) -> Vec<&[u8]> {
    let mut seen = std::collections::HashSet::with_capacity(keys.len());
    let mut keys: Vec<_> = keys.into_iter().filter(|key| seen.insert(*key)).collect();
    // The library collects in place, and a list of repeats may be long.
    keys.shrink_to_fit();
    keys
}
