//! The read set of a read: what it has seen, and the lookups of entries.

use super::map::Entry;
use super::{HashedKey, Store};
use crate::budget::Cost;
use crate::clock::Millis;
use crate::protocol::DurabilityBarrier;
use std::ops::Bound;

/// What a read has seen.
#[derive(Debug, Default)]
pub(crate) struct ReadSet {
    /// The barrier of the reply.
    pub(crate) barrier: DurabilityBarrier,
    /// The cost of the read.
    pub(crate) cost: Cost,
    /// The hash of the only key that the command names, where it is known.
    pub(crate) hash: Option<u64>,
}

impl ReadSet {
    /// Counts entries that were looked up or skipped.
    pub(crate) fn pass(&mut self, entries: usize) {
        self.cost.entries += entries;
    }
}

impl Store {
    /// The live entry of `key`; adds the barrier of showing the entry, or its absence.
    pub(crate) fn look(
        &self,
        key: HashedKey<'_>,
        now: Millis,
        seen: &mut ReadSet,
    ) -> Option<Entry<'_>> {
        seen.pass(1);
        let found = self.map.get(key);
        if let Some(entry) = &found {
            // An expired entry counts too: a client that misses the key learns that it existed.
            seen.barrier.require(entry.head.level, entry.head.seq);
        }
        let live = found.filter(|entry| entry.head.is_live(now));
        if live.is_none() {
            seen.barrier.join(self.removals);
        }
        live
    }

    /// The map's own copy of an existing key.
    pub(crate) fn own_key(&self, key: HashedKey<'_>) -> Option<&[u8]> {
        self.map.get_key_value(key).map(|(key, _)| key)
    }

    /// Whether a value of `key` is persisted; `None` where there is no entry.
    pub(crate) fn is_persisted(&self, key: HashedKey<'_>) -> Option<bool> {
        self.map.get(key).map(|entry| entry.head.persisted)
    }

    /// The length of the value of `key`, expired or not; 0 where there is none.
    pub(crate) fn value_len(&self, key: HashedKey<'_>) -> usize {
        self.map.get(key).map_or(0, |entry| entry.value.len())
    }

    /// The entries between two bounds, in order, including those that have expired and were not
    /// removed yet.
    pub(crate) fn entries_between<'s>(
        &'s self,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'s [u8], Entry<'s>)> + use<'s> {
        self.map.range(lower, upper)
    }

    /// How many live keys begin with `prefix`; `passed` is called for each expired entry, since
    /// those are visited.
    pub(crate) fn count(&self, prefix: &[u8], now: Millis, mut passed: impl FnMut()) -> usize {
        let expired = self.map.expired(now).inspect(|_| passed());
        let expired = expired.filter(|key| key.starts_with(prefix)).count();
        self.map.count(prefix).saturating_sub(expired)
    }
}
