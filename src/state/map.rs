//! The ordered map: entries in an arena, a hash index, their order, and their expiry times.

use super::arena::{Arena, Handle, Slot};
use super::dirty::Dirty;
use super::hashed::{HashedKey, KeyHasher};
use super::index::Index;
use super::order::Order;
use crate::clock::Millis;
use crate::protocol::Value;
use crate::protocol::reply::Meta;
use crate::protocol::reply_buffer::Sink;
use crate::protocol::{ReplyBuffer, Shared};
use std::collections::BTreeSet;
use std::hint::black_box;
use std::ops::Bound;

pub use super::arena::{Head, INLINE_BYTES_MAX, PAGES_BYTES_MAX};

/// Owned keys.
pub type Keys = Vec<Box<[u8]>>;

/// An entry of the map.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'m> {
    /// The facts about the entry.
    pub head: Head,
    /// The bytes of one MessagePack value.
    pub value: &'m [u8],
    /// The allocation of the value, where it can be shared.
    pub shared: Option<&'m Shared>,
}

impl PartialEq for Entry<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.head, self.value) == (other.head, other.value)
    }
}

impl Eq for Entry<'_> {}

impl Head {
    /// Whether the entry may still be shown at `now`.
    pub fn is_live(&self, now: Millis) -> bool {
        self.expires_at == 0 || self.expires_at > now
    }
}

impl<'m> Entry<'m> {
    /// An entry whose value has no allocation of its own.
    pub fn new(head: Head, value: &'m [u8]) -> Self {
        Self { head, value, shared: None }
    }

    /// The value as in a reply.
    pub fn shown(&self) -> Value<'m> {
        Value { bytes: self.value, shared: self.shared }
    }

    /// A copy of the value that outlives the entry.
    pub fn kept(&self) -> ReplyBuffer {
        let mut kept = ReplyBuffer::default();
        kept.value(&self.shown());
        kept
    }

    /// How many bytes are copied for a reply, or for the undo buffer: none of a shared value.
    pub fn copied_bytes(&self) -> usize {
        if self.shared.is_some() { 0 } else { self.value.len() }
    }

    /// The entry's metadata in a reply at `now`.
    pub fn meta(&self, now: Millis) -> Meta<'m> {
        let Head { seq, expires_at, level, .. } = self.head;
        let ttl_ms = (expires_at != 0).then(|| expires_at.saturating_sub(now));
        Meta { value: self.shown(), seq, ttl_ms, level }
    }
}

/// About how many bytes a row of the tables takes besides its key and its value.
const ROW_BYTES: u64 = 40;

/// About how many bytes the entry takes in the tables.
fn row_bytes(key: &[u8], head: &Head, value_len: usize) -> u64 {
    if head.persisted { key.len() as u64 + value_len as u64 + ROW_BYTES } else { 0 }
}

/// About how many bytes the hash table, the order and the dirty bits take for each key.
const INDEX_BYTES: usize = 16;
/// How many bytes a key in a list takes besides its own: its element, and its allocation.
const LISTED_BYTES: usize = 48;

/// Keys whose memory is prefetched together.
const WARM_AT_ONCE: usize = 32;

/// Keys in bytewise order, with their entries.
#[derive(Debug, Default)]
pub struct Map {
    arena: Arena,
    index: Index,
    hasher: KeyHasher,
    order: Order,
    /// The entries whose rows in the tables are out of date.
    dirty: Dirty,
    /// Removed keys that the tables may still have.
    removed: Vec<Box<[u8]>>,
    /// The entries that expire, soonest first.
    expiries: BTreeSet<(Millis, Box<[u8]>)>,
    /// About how many bytes the last two fields take.
    listed_bytes: usize,
    /// The bytes of all persisted entries, as rows of the tables.
    row_bytes: u64,
}

impl Map {
    /// The number of keys, including those that have expired and were not removed yet.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how many bytes of memory entries and keys take; the indexes take about fourteen more
    /// for each key.
    pub fn bytes(&self) -> usize {
        self.arena.bytes()
    }

    /// About how many bytes the persisted entries take as rows of the tables.
    pub fn row_bytes(&self) -> u64 {
        self.row_bytes
    }

    /// The bytes of entries with all their bookkeeping: the quantity that `--max-data-bytes`
    /// limits.
    pub fn data_bytes(&self) -> usize {
        self.arena.held_bytes() + self.len() * INDEX_BYTES + self.listed_bytes
    }

    /// Whether entries of `bytes` bytes fit.
    pub fn has_place(&self, bytes: usize) -> bool {
        self.arena.has_room(bytes)
    }

    /// The hasher of the keys.
    pub fn hasher(&self) -> &KeyHasher {
        &self.hasher
    }

    fn find(&self, key: HashedKey<'_>) -> Option<Handle> {
        self.index.find(&self.arena, key)
    }

    /// The entry of `key`, expired or not.
    pub fn get(&self, key: HashedKey<'_>) -> Option<Entry<'_>> {
        self.find(key).map(|handle| self.at(handle).1)
    }

    /// The map's own copy of `key`, with its entry.
    pub fn get_key_value(&self, key: HashedKey<'_>) -> Option<(&[u8], Entry<'_>)> {
        self.find(key).map(|handle| self.at(handle))
    }

    /// Loads the memory that lookups of keys will read into the processor's caches and, with
    /// `for_writes`, the memory that a write reads besides. One after the other, lookups wait for
    /// memory twice each; here all these waits overlap.
    pub fn prefetch(&self, mut hashes: impl Iterator<Item = u64>, for_writes: bool) {
        let mut handles = [0; WARM_AT_ONCE];
        loop {
            let mut count = 0;
            for (place, hash) in handles.iter_mut().zip(hashes.by_ref()) {
                *place = self.index.guess(hash).unwrap_or_default();
                count += 1;
            }
            let found = || handles.iter().take(count);
            let touch = |sum: u8, handle: &Handle| sum.wrapping_add(self.arena.touch(*handle));
            black_box(found().fold(0, touch));
            if for_writes {
                let touch = |sum: u8, handle: &Handle| sum.wrapping_add(self.dirty.touch(*handle));
                black_box(found().fold(0, touch));
            }
            if count < WARM_AT_ONCE {
                return;
            }
        }
    }

    /// Sets the entry of `key`; returns the head of the previous one.
    pub fn insert(&mut self, key: &[u8], head: Head, value: &[u8]) -> Option<Head> {
        self.replace(self.hasher.of(key), Entry::new(head, value), |_| {})
    }

    /// Restores a previous entry of `key`.
    pub fn restore(&mut self, key: &[u8], entry: Entry<'_>) -> Option<Head> {
        self.replace(self.hasher.of(key), entry, |_| {})
    }

    /// Sets the entry of a key; `before` receives the previous entry before it is removed.
    pub fn replace(
        &mut self,
        hashed: HashedKey<'_>,
        Entry { head, value, shared }: Entry<'_>,
        before: impl FnOnce(Option<Entry<'_>>),
    ) -> Option<Head> {
        let Self { arena, index, order, dirty, row_bytes: rows, .. } = self;
        let key = hashed.bytes;
        let old = match index.find_mut(arena, hashed) {
            Some(place) => {
                let Slot { head: old, value: old_value, shared: old_shared, .. } =
                    arena.get(*place);
                before(Some(Entry { head: old, value: old_value, shared: old_shared }));
                *rows += row_bytes(key, &head, value.len());
                *rows -= row_bytes(key, &old, old_value.len());
                let mut is_dirty = head.persisted || old.persisted;
                if !arena.replace(*place, &head, value) {
                    let moved = arena.insert(&head, key, value, shared);
                    order.replace(arena, key, moved);
                    is_dirty |= dirty.take(*place);
                    arena.remove(std::mem::replace(place, moved));
                }
                if is_dirty {
                    dirty.add(*place);
                }
                Some(old)
            }
            None => {
                before(None);
                let handle = self.add(hashed, &Entry { head, value, shared });
                if head.persisted {
                    self.dirty.add(handle);
                }
                None
            }
        };
        self.reschedule(key, old.map_or(0, |old| old.expires_at), head.expires_at);
        old
    }

    /// Adds an entry for a new key.
    fn add(&mut self, key: HashedKey<'_>, entry: &Entry<'_>) -> Handle {
        let Self { arena, index, hasher, order, .. } = self;
        let handle = arena.insert(&entry.head, key.bytes, entry.value, entry.shared);
        index.insert(arena, hasher, key.hash, handle);
        order.insert(arena, handle);
        self.row_bytes += row_bytes(key.bytes, &entry.head, entry.value.len());
        handle
    }

    /// Replaces the head of a key's entry, and keeps its value; `before` receives the previous
    /// entry. Returns the previous head.
    pub fn set_head(
        &mut self,
        hashed: HashedKey<'_>,
        head: Head,
        before: impl FnOnce(Entry<'_>),
    ) -> Option<Head> {
        let Self { arena, index, order, dirty, .. } = self;
        let key = hashed.bytes;
        let place = index.find_mut(arena, hashed)?;
        let Slot { head: old, value, shared, .. } = arena.get(*place);
        before(Entry { head: old, value, shared });
        let mut is_dirty = head.persisted || old.persisted;
        if let Some(moved) = arena.set_head(*place, &head) {
            order.replace(arena, key, moved);
            is_dirty |= dirty.take(*place);
            arena.vacate(std::mem::replace(place, moved));
        }
        if is_dirty {
            dirty.add(*place);
        }
        self.reschedule(key, old.expires_at, head.expires_at);
        Some(old)
    }

    /// Takes the removed large values, to be freed outside the lock.
    pub fn take_dropped(&mut self) -> Vec<Shared> {
        self.arena.take_dropped()
    }

    /// Removes the entry of `key`; returns its head.
    pub fn remove(&mut self, key: &[u8]) -> Option<Head> {
        self.take(self.hasher.of(key), |_| {})
    }

    /// Like `remove`; `before` receives the entry before it is removed.
    pub fn take(&mut self, hashed: HashedKey<'_>, before: impl FnOnce(Entry<'_>)) -> Option<Head> {
        let Self { arena, index, order, dirty, .. } = self;
        let key = hashed.bytes;
        let handle = index.remove(arena, hashed)?;
        let Slot { head, value, shared, .. } = arena.get(handle);
        before(Entry { head, value, shared });
        self.row_bytes -= row_bytes(key, &head, value.len());
        order.remove(arena, key);
        arena.remove(handle);
        if dirty.take(handle) || head.persisted {
            self.removed.push(key.into());
            self.listed_bytes += key.len() + LISTED_BYTES;
        }
        self.reschedule(key, head.expires_at, 0);
        Some(head)
    }

    /// Makes room for `keys` keys.
    pub fn reserve(&mut self, keys: usize) {
        let Self { arena, index, hasher, .. } = self;
        index.reserve(arena, hasher, keys);
    }

    /// Adds an entry that agrees with the tables. Entries added in key order cost least.
    pub fn load(&mut self, key: &[u8], head: Head, value: &[u8]) {
        if self.order.is_after_all(&self.arena, key) {
            self.add(self.hasher.of(key), &Entry::new(head, value));
            self.reschedule(key, 0, head.expires_at);
        } else {
            self.insert(key, head, value);
            self.take_dirty(key);
        }
    }

    fn reschedule(&mut self, key: &[u8], before: Millis, after: Millis) {
        if before == after {
            return;
        }
        if before != 0 && self.expiries.remove(&(before, Box::from(key))) {
            self.listed_bytes -= key.len() + LISTED_BYTES;
        }
        if after != 0 {
            self.expiries.insert((after, key.into()));
            self.listed_bytes += key.len() + LISTED_BYTES;
        }
    }

    /// The key that expires first, with its time.
    pub fn first_expiry(&self) -> Option<(Millis, &[u8])> {
        self.expiries.first().map(|(time, key)| (*time, key.as_ref()))
    }

    /// Whether a key has expired at `now` and is still in the map.
    pub fn has_expired(&self, now: Millis) -> bool {
        self.first_expiry().is_some_and(|(time, _)| time <= now)
    }

    /// The entries between two bounds, in order. Crossed bounds give nothing.
    pub fn range<'m>(
        &'m self,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'m [u8], Entry<'m>)> + use<'m> {
        let inner = is_ordered(lower, upper).then(|| self.order.range(&self.arena, lower, upper));
        inner.into_iter().flatten().map(|handle| self.at(handle))
    }

    /// Takes the list of the removed keys and, where they are few, that of the other keys whose
    /// rows in the tables are out of date.
    pub fn take_unwritten(&mut self) -> (Keys, Option<Keys>) {
        let few = self.dirty.take_list();
        let key = |handle: Handle| Box::from(self.arena.key(handle));
        let few = few.map(|handles| handles.into_iter().map(key).collect());
        let removed = std::mem::take(&mut self.removed);
        self.listed_bytes -= removed.iter().map(|key| key.len() + LISTED_BYTES).sum::<usize>();
        (removed, few)
    }

    /// The key at this position in the order.
    pub fn key_at(&self, index: usize) -> Option<&[u8]> {
        self.order.nth(index).map(|handle| self.arena.key(handle))
    }

    /// The key and the entry of a handle that [`Map::dirty_between`] gave.
    pub fn at(&self, handle: Handle) -> (&[u8], Entry<'_>) {
        let Slot { head, key, value, shared } = self.arena.get(handle);
        (key, Entry { head, value, shared })
    }

    /// Marks the entry as written: the tables are about to hold its current value.
    pub fn written(&mut self, handle: Handle) {
        self.dirty.take(handle);
    }

    /// The entry of `key`, if it is dirty; marks it as written.
    pub fn take_dirty(&mut self, key: &[u8]) -> Option<Entry<'_>> {
        let handle = self.find(self.hasher.of(key))?;
        self.dirty.take(handle);
        Some(self.at(handle).1)
    }

    /// Up to `most` dirty entries between two bounds, among the first `looks` entries; and the key
    /// to continue from, if there are more.
    pub fn dirty_between(
        &self,
        (lower, upper): (Bound<&[u8]>, Bound<&[u8]>),
        looks: usize,
        most: usize,
    ) -> (Vec<Handle>, Option<Box<[u8]>>) {
        let mut found = Vec::with_capacity(most);
        if !is_ordered(lower, upper) {
            return (found, None);
        }
        let mut between = self.order.range(&self.arena, lower, upper);
        let looked = between.by_ref().take(looks);
        found.extend(looked.filter(|handle| self.dirty.has(*handle)).take(most));
        let next = between.next().map(|handle| self.arena.key(handle).into());
        black_box(found.iter().fold(0, |sum: u8, one| sum.wrapping_add(self.arena.touch(*one))));
        (found, next)
    }

    /// The keys that have expired at `now` and were not removed yet.
    pub fn expired(&self, now: Millis) -> impl Iterator<Item = &[u8]> {
        let expired = self.expiries.iter().take_while(move |(time, _)| *time <= now);
        expired.map(|(_, key)| key.as_ref())
    }

    /// How many keys begin with `prefix`, including those that have expired and were not removed
    /// yet.
    pub fn count(&self, prefix: &[u8]) -> usize {
        let end = prefix_end(prefix);
        match (prefix, &end) {
            ([], _) => self.len(),
            (prefix, end) => self.order.count(&self.arena, prefix, end.as_deref()),
        }
    }
}

/// Whether a key can lie between the bounds.
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
