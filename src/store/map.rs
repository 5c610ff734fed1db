//! The ordered map and its index of expiry times.

use crate::clock::Millis;
use crate::wire::reply::Meta;
use crate::wire::{Level, Seq};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// What the map holds for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The bytes of one MessagePack value.
    pub value: Box<[u8]>,
    /// The seq of the write that made it.
    pub seq: Seq,
    /// When it expires; 0 never.
    pub expires_at: Millis,
    /// The durability its writer asked for.
    pub level: Level,
    /// Whether this value, or an older one of the key, is in the log or the tables.
    pub persisted: bool,
}

impl Entry {
    /// The entry as a reply tells of it at `now`.
    pub fn meta(&self, now: Millis) -> Meta<'_> {
        let ttl_ms = (self.expires_at != 0).then(|| self.expires_at.saturating_sub(now));
        Meta { value: &self.value, seq: self.seq, ttl_ms, level: self.level }
    }

    /// Whether it may still be shown at `now`.
    pub fn is_live(&self, now: Millis) -> bool {
        self.expires_at == 0 || self.expires_at > now
    }
}

/// Keys in bytewise order, with their entries.
#[derive(Debug, Default)]
pub struct Map {
    entries: BTreeMap<Box<[u8]>, Entry>,
    /// The entries that expire, soonest first.
    expiries: BTreeSet<(Millis, Box<[u8]>)>,
}

impl Map {
    /// How many keys there are, those that have expired unseen included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of `key`, expired or not.
    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The map's own copy of `key`, with its entry.
    pub fn get_key_value(&self, key: &[u8]) -> Option<(&[u8], &Entry)> {
        self.entries.get_key_value(key).map(|(key, entry)| (key.as_ref(), entry))
    }

    /// Puts `entry` at `key`; returns the one that was there.
    pub fn insert(&mut self, key: &[u8], entry: Entry) -> Option<Entry> {
        let expires_at = entry.expires_at;
        let old = match self.entries.get_mut(key) {
            Some(slot) => Some(std::mem::replace(slot, entry)),
            None => self.entries.insert(key.into(), entry),
        };
        let before = old.as_ref().map_or(0, |old| old.expires_at);
        if before != expires_at {
            self.unlist(before, key);
            if expires_at != 0 {
                self.expiries.insert((expires_at, key.into()));
            }
        }
        old
    }

    /// Takes the entry of `key` out.
    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let old = self.entries.remove(key)?;
        self.unlist(old.expires_at, key);
        Some(old)
    }

    fn unlist(&mut self, expires_at: Millis, key: &[u8]) {
        if expires_at != 0 {
            self.expiries.remove(&(expires_at, Box::from(key)));
        }
    }

    /// The key that expires first, with its time.
    pub fn first_expiry(&self) -> Option<(Millis, &[u8])> {
        self.expiries.first().map(|(time, key)| (*time, key.as_ref()))
    }

    /// How many keys have expired at `now` and are still in the map; counts to `most` at the
    /// farthest.
    pub fn expired(&self, now: Millis, most: usize) -> usize {
        self.expiries.iter().take(most).take_while(|(time, _)| *time <= now).count()
    }

    /// The entries between two bounds, in order. Bounds that hold nothing between them give
    /// nothing.
    pub fn range<'m>(
        &'m self,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'m [u8], &'m Entry)> + use<'m> {
        let inner = is_ordered(lower, upper).then(|| self.entries.range::<[u8], _>((lower, upper)));
        inner.into_iter().flatten().map(|(key, entry)| (key.as_ref(), entry))
    }
}

/// Whether a key can lie between the bounds; `BTreeMap::range` panics on some that cannot.
fn is_ordered(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> bool {
    match (lower, upper) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
        (Bound::Included(low), Bound::Included(high)) => low <= high,
        (
            Bound::Included(low) | Bound::Excluded(low),
            Bound::Excluded(high) | Bound::Included(high),
        ) => low < high,
    }
}

/// The smallest key above every key that begins with `prefix`; `None` when there is no such key.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xFF)?;
    let mut end = prefix.get(..=last)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_just_above_it() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"a\xFF\xFF"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xFF"), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn crossed_bounds_give_nothing() {
        let map = Map::default();
        assert_eq!(map.range(Bound::Included(b"b"), Bound::Included(b"a")).count(), 0);
        assert_eq!(map.range(Bound::Excluded(b"a"), Bound::Excluded(b"a")).count(), 0);
    }
}
