//! The ordered map: entries in an arena, a hash of the keys, their order, and their expiry times.

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

/// Keys of their own.
pub type Keys = Vec<Box<[u8]>>;

/// What the map holds for a key.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'m> {
    /// What is known of it.
    pub head: Head,
    /// The bytes of one MessagePack value.
    pub value: &'m [u8],
    /// The allocation that holds them, where it can be shared.
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
    /// An entry whose value is in no allocation of its own.
    pub fn new(head: Head, value: &'m [u8]) -> Self {
        Self { head, value, shared: None }
    }

    /// The value as a reply shows it.
    pub fn shown(&self) -> Value<'m> {
        Value { bytes: self.value, shared: self.shared }
    }

    /// The value, for when the entry is gone.
    pub fn kept(&self) -> ReplyBuffer {
        let mut kept = ReplyBuffer::default();
        kept.value(&self.shown());
        kept
    }

    /// How many bytes are copied for a reply, or for the way back: none of a value that is shared.
    pub fn copied_bytes(&self) -> usize {
        if self.shared.is_some() { 0 } else { self.value.len() }
    }

    /// The entry as a reply tells of it at `now`.
    pub fn meta(&self, now: Millis) -> Meta<'m> {
        let Head { seq, expires_at, level, .. } = self.head;
        let ttl_ms = (expires_at != 0).then(|| expires_at.saturating_sub(now));
        Meta { value: self.shown(), seq, ttl_ms, level }
    }
}

/// What a row of the tables takes besides its key and its value, about.
const ROW_BYTES: u64 = 40;

/// The bytes that an entry takes in the tables, about.
fn row_bytes(key: &[u8], head: &Head, value_len: usize) -> u64 {
    if head.persisted { key.len() as u64 + value_len as u64 + ROW_BYTES } else { 0 }
}

/// What the hash table, the order and the bits take of each key, about.
const INDEX_BYTES: usize = 16;
/// What a key in a list takes besides its bytes: its place, and its allocation.
const LISTED_BYTES: usize = 48;

/// Keys whose memory is fetched together.
const WARM_AT_ONCE: usize = 32;

/// Keys in bytewise order, with their entries.
#[derive(Debug, Default)]
pub struct Map {
    arena: Arena,
    index: Index,
    hasher: KeyHasher,
    order: Order,
    /// The entries that the tables do not show as they are.
    dirty: Dirty,
    /// Keys that are gone, and that the tables may still have.
    removed: Vec<Box<[u8]>>,
    /// The entries that expire, soonest first.
    expiries: BTreeSet<(Millis, Box<[u8]>)>,
    /// What the last two take, about.
    listed_bytes: usize,
    /// Bytes of all persisted entries, as rows of the tables.
    row_bytes: u64,
}

impl Map {
    /// How many keys there are, those that have expired unseen included.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that entries and keys take, about; the indexes some fourteen more a key.
    pub fn bytes(&self) -> usize {
        self.arena.bytes()
    }

    /// Bytes that the persisted entries take as rows of the tables, about.
    pub fn row_bytes(&self) -> u64 {
        self.row_bytes
    }

    /// Bytes that entries take with all that is kept for them: what `--max-data-bytes` bounds.
    pub fn data_bytes(&self) -> usize {
        self.arena.held_bytes() + self.len() * INDEX_BYTES + self.listed_bytes
    }

    /// Whether entries of so many bytes find a place.
    pub fn has_place(&self, bytes: usize) -> bool {
        self.arena.has_room(bytes)
    }

    /// What hashes the keys.
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

    /// Brings what lookups of keys will read into the processor's caches, and, where they are
    /// `for_writes`, what a write reads besides. One after the other, lookups wait for memory twice
    /// each; here the waits of all of them overlap.
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

    /// Puts an entry at `key`; returns the head of the one that was there.
    pub fn insert(&mut self, key: &[u8], head: Head, value: &[u8]) -> Option<Head> {
        self.replace(self.hasher.of(key), Entry::new(head, value), |_| {})
    }

    /// Puts an entry back that was at `key`.
    pub fn restore(&mut self, key: &[u8], entry: Entry<'_>) -> Option<Head> {
        self.replace(self.hasher.of(key), entry, |_| {})
    }

    /// Puts an entry at a key; `before` is shown what is there, before it goes.
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

    /// Puts an entry at a key that is not there.
    fn add(&mut self, key: HashedKey<'_>, entry: &Entry<'_>) -> Handle {
        let Self { arena, index, hasher, order, .. } = self;
        let handle = arena.insert(&entry.head, key.bytes, entry.value, entry.shared);
        index.insert(arena, hasher, key.hash, handle);
        order.insert(arena, handle);
        self.row_bytes += row_bytes(key.bytes, &entry.head, entry.value.len());
        handle
    }

    /// Puts another head on the entry of a key, and leaves its value; `before` is shown what is
    /// there. Returns the head that was there.
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

    /// Large values that are gone, to be freed without the lock.
    pub fn take_dropped(&mut self) -> Vec<Shared> {
        self.arena.take_dropped()
    }

    /// Takes the entry of `key` out; returns its head.
    pub fn remove(&mut self, key: &[u8]) -> Option<Head> {
        self.take(self.hasher.of(key), |_| {})
    }

    /// The same; `before` is shown the entry, before it goes.
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

    /// Makes room for so many keys.
    pub fn reserve(&mut self, keys: usize) {
        let Self { arena, index, hasher, .. } = self;
        index.reserve(arena, hasher, keys);
    }

    /// Puts in an entry that the tables show as it is. Entries that come in the order of their keys
    /// cost least.
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

    /// The entries between two bounds, in order. Bounds that hold nothing between them give
    /// nothing.
    pub fn range<'m>(
        &'m self,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'m [u8], Entry<'m>)> + use<'m> {
        let inner = is_ordered(lower, upper).then(|| self.order.range(&self.arena, lower, upper));
        inner.into_iter().flatten().map(|handle| self.at(handle))
    }

    /// Takes the list of the keys that are gone, and, where they are few, that of the others which
    /// the tables do not show as they are.
    pub fn take_unwritten(&mut self) -> (Keys, Option<Keys>) {
        let few = self.dirty.take_list();
        let key = |handle: Handle| Box::from(self.arena.key(handle));
        let few = few.map(|handles| handles.into_iter().map(key).collect());
        let removed = std::mem::take(&mut self.removed);
        self.listed_bytes -= removed.iter().map(|key| key.len() + LISTED_BYTES).sum::<usize>();
        (removed, few)
    }

    /// The key that has so many before it.
    pub fn key_at(&self, index: usize) -> Option<&[u8]> {
        self.order.nth(index).map(|handle| self.arena.key(handle))
    }

    /// The key and the entry of a handle that [`Map::dirty_between`] gave.
    pub fn at(&self, handle: Handle) -> (&[u8], Entry<'_>) {
        let Slot { head, key, value, shared } = self.arena.get(handle);
        (key, Entry { head, value, shared })
    }

    /// The tables are going to show this entry as it is.
    pub fn written(&mut self, handle: Handle) {
        self.dirty.take(handle);
    }

    /// The entry of `key`; the tables are going to show it as it is.
    pub fn take_dirty(&mut self, key: &[u8]) -> Option<Entry<'_>> {
        let handle = self.find(self.hasher.of(key))?;
        self.dirty.take(handle);
        Some(self.at(handle).1)
    }

    /// The first entries between two bounds that the tables do not show as they are, `most` at the
    /// farthest, among the first `looks` entries; and the key to go on from, if there are more.
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

    /// The keys that have expired unseen at `now`.
    pub fn expired(&self, now: Millis) -> impl Iterator<Item = &[u8]> {
        let expired = self.expiries.iter().take_while(move |(time, _)| *time <= now);
        expired.map(|(_, key)| key.as_ref())
    }

    /// How many keys begin with `prefix`, those that have expired unseen included.
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
