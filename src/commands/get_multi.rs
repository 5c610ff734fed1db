//! `get_multi`.

use super::access::{Access, Right, Visited};
use super::cost::CommandCost;
use super::method::{Effects, Method, ReadMethod};
use crate::protocol::params::{Params, check_key, list_key};
use crate::protocol::{Refusal, Reply};
use crate::state::read_set::ReadSet;
use crate::state::{Context, REPLY_LIMIT, Store};
use std::collections::HashSet;

/// `get_multi [[keys]]`: `[[key, value]…]` of those found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetMulti<'a> {
    /// The requested keys in order, each once.
    pub keys: Vec<&'a [u8]>,
}

impl<'a> Method<'a> for GetMulti<'a> {
    const NAME: &'static str = "get_multi";
    const EFFECTS: Effects = Effects::READS;

    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let keys = params.list("keys", |reader| {
            let key = list_key(reader)?;
            check_key(key).map(|()| key)
        })?;
        params.options(&[], |_, _| Ok(()))?;
        Ok(Self { keys: unique(keys) })
    }

    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        self.keys.iter().try_for_each(|key| visit(Access::key(Right::Read, key)))
    }

    fn cost(&self) -> CommandCost {
        CommandCost::read(self.keys.len(), 0)
    }
}

impl<'a> ReadMethod<'a> for GetMulti<'a> {
    fn run<'s>(
        &self,
        store: &'s Store,
        context: &Context,
        seen: &mut ReadSet,
    ) -> Result<Reply<'s>, Refusal> {
        let mut pairs = Vec::new();
        let mut bytes = 0;
        for key in &self.keys {
            let key = store.hashed(key, None);
            // The map's own key would have to live as long as the reply; the request's does not.
            let Some(entry) = store.look(key, context.now, seen) else {
                continue;
            };
            let Some(key) = store.own_key(key) else {
                continue;
            };
            bytes += key.len() + entry.value.len();
            if bytes > context.reply_bytes {
                return Err(Refusal::too_large(REPLY_LIMIT, context.reply_bytes));
            }
            pairs.push((key, entry.shown()));
        }
        Ok(Reply::Pairs(pairs))
    }
}

/// The keys without repeats, each at its first place.
pub(super) fn unique(keys: Vec<&[u8]>) -> Vec<&[u8]> {
    let mut seen = HashSet::with_capacity(keys.len());
    let mut keys: Vec<_> = keys.into_iter().filter(|key| seen.insert(*key)).collect();
    // The standard library collects in place, and a list of repeats may be long.
    keys.shrink_to_fit();
    keys
}
