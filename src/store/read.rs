//! `get` and `get_multi`.

use super::map::Entry;
use super::{Context, HashedKey, REPLY_LIMIT, Store};
use crate::budget::Cost;
use crate::clock::Millis;
use crate::wire::command::{Get, GetMulti};
use crate::wire::{Gate, Refusal, Reply};

/// What a read came to see.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// What showing it waits for.
    pub(super) gate: Gate,
    /// What it cost.
    pub(super) cost: Cost,
}

impl Sight {
    /// Counts entries that were looked up or passed over, shown or not.
    pub(super) fn pass(&mut self, entries: usize) {
        self.cost.entries += entries;
    }
}

impl Store {
    /// The live entry of `key`, and what showing it, or its absence, waits for.
    pub(super) fn look(
        &self,
        key: HashedKey<'_>,
        now: Millis,
        sight: &mut Sight,
    ) -> Option<Entry<'_>> {
        sight.pass(1);
        let found = self.map.get(key);
        if let Some(entry) = &found {
            // Also one that has expired: whoever misses it sees that it was there.
            sight.gate.require(entry.head.level, entry.head.seq);
        }
        let live = found.filter(|entry| entry.head.is_live(now));
        if live.is_none() {
            sight.gate.join(self.removals);
        }
        live
    }

    pub(super) fn get(
        &self,
        get: &Get<'_>,
        key: HashedKey<'_>,
        now: Millis,
        sight: &mut Sight,
    ) -> Reply<'_> {
        let Some(entry) = self.look(key, now, sight) else {
            return Reply::Nil;
        };
        if get.meta { Reply::Meta(entry.meta(now)) } else { Reply::Value(entry.shown()) }
    }

    pub(super) fn get_multi(
        &self,
        get: &GetMulti<'_>,
        context: &Context,
        sight: &mut Sight,
    ) -> Result<Reply<'_>, Refusal> {
        let mut pairs = Vec::new();
        let mut bytes = 0;
        for key in &get.keys {
            let key = self.hashed(key, None);
            // The map's own key would live as long as the reply; the request's does not.
            let Some(entry) = self.look(key, context.now, sight) else {
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
