//! `get` and `get_multi`.

use super::map::Entry;
use super::{Context, HashedKey, REPLY_LIMIT, Store};
use crate::clock::Millis;
use crate::wire::command::{Get, GetMulti};
use crate::wire::{Gate, Refusal, Reply};

/// What a read came to see.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// What showing it waits for.
    pub(super) gate: Gate,
    /// How many entries it passed over in their order, shown or not.
    pub(super) looks: usize,
}

impl Store {
    /// The live entry of `key`, and what showing it, or its absence, waits for.
    pub(super) fn look(
        &self,
        key: HashedKey<'_>,
        now: Millis,
        gate: &mut Gate,
    ) -> Option<Entry<'_>> {
        let found = self.map.get(key);
        if let Some(entry) = &found {
            // Also one that has expired: whoever misses it sees that it was there.
            gate.require(entry.head.level, entry.head.seq);
        }
        let live = found.filter(|entry| entry.head.is_live(now));
        if live.is_none() {
            gate.join(self.removals);
        }
        live
    }

    pub(super) fn get(
        &self,
        get: &Get<'_>,
        key: HashedKey<'_>,
        now: Millis,
        gate: &mut Gate,
    ) -> Reply<'_> {
        let Some(entry) = self.look(key, now, gate) else {
            return Reply::Nil;
        };
        if get.meta { Reply::Meta(entry.meta(now)) } else { Reply::Value(entry.shown()) }
    }

    pub(super) fn get_multi(
        &self,
        get: &GetMulti<'_>,
        context: &Context,
        gate: &mut Gate,
    ) -> Result<Reply<'_>, Refusal> {
        let mut pairs = Vec::new();
        let mut bytes = 0;
        for key in &get.keys {
            let key = self.hashed(key, None);
            // The map's own key would live as long as the reply; the request's does not.
            let Some(entry) = self.look(key, context.now, gate) else {
                continue;
            };
            let Some((key, _)) = self.map.get_key_value(key) else {
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
