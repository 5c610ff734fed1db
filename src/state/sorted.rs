//! A sorted list, searched by a few bytes of each key that are kept beside it.
//!
//! The keys are elsewhere in memory, and reading one costs a cache miss. So the list keeps the
//! common prefix of all its keys, and the next four bytes of each key: a search reads only keys
//! that are equal there. This is a B-tree node with prefix truncation, and the "poor man's
//! normalized keys" of its entries (Graefe, Modern B-Tree Techniques, 2011).

use super::arena::{Arena, Handle};
use std::cmp::Ordering;

/// The first bytes of a key after the common prefix, as a number of the same order.
type Head = u32;
/// A full list grows by this part of its length.
const GROWTH: usize = 4;

/// An item with keys: an entry, or a list of items.
pub(super) trait Keyed {
    /// The first of its keys.
    fn first_key<'k>(&'k self, arena: &'k Arena) -> &'k [u8];
    /// The last of its keys.
    fn last_key<'k>(&'k self, arena: &'k Arena) -> &'k [u8];
}

impl Keyed for Handle {
    fn first_key<'k>(&'k self, arena: &'k Arena) -> &'k [u8] {
        arena.key(*self)
    }

    fn last_key<'k>(&'k self, arena: &'k Arena) -> &'k [u8] {
        arena.key(*self)
    }
}

/// Items in the order of their keys.
#[derive(Debug)]
pub(super) struct Sorted<T> {
    items: Vec<T>,
    /// The head of each item's first key, or of a key before it and after all keys of the item
    /// before: the original first key may have been removed.
    heads: Vec<Head>,
    /// All keys begin with these bytes.
    shared: Box<[u8]>,
}

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self { items: Vec::new(), heads: Vec::new(), shared: Box::default() }
    }
}

impl<T: Keyed> Keyed for Sorted<T> {
    fn first_key<'k>(&'k self, arena: &'k Arena) -> &'k [u8] {
        self.items.first().map_or(&[], |item| item.first_key(arena))
    }

    fn last_key<'k>(&'k self, arena: &'k Arena) -> &'k [u8] {
        self.items.last().map_or(&[], |item| item.last_key(arena))
    }
}

impl<T: Keyed> Sorted<T> {
    /// A list of one item.
    pub(super) fn one(item: T, arena: &Arena) -> Self {
        let mut list = Self::default();
        list.items.push(item);
        list.survey(arena);
        list
    }

    pub(super) fn items(&self) -> &[T] {
        &self.items
    }

    /// An item, to be changed. The caller announces a new key with [`Sorted::admit`] first.
    pub(super) fn item_mut(&mut self, index: usize) -> Option<&mut T> {
        self.items.get_mut(index)
    }

    /// How many items have a first key before `key`, or, with `or_equal`, at `key`. Where the first
    /// key of an item was removed, the item may count although its other keys come after `key`.
    pub(super) fn rank(&self, arena: &Arena, key: &[u8], or_equal: bool) -> usize {
        match key.get(..self.shared.len()).unwrap_or(key).cmp(&self.shared) {
            Ordering::Less => return 0,
            Ordering::Greater => return self.items.len(),
            Ordering::Equal => {}
        }
        let head = self.head(key);
        let below = self.heads.partition_point(|other| *other < head);
        let alike = self.heads.iter().skip(below).take_while(|other| **other == head).count();
        let alike = self.items.get(below..below + alike).unwrap_or_default();
        below
            + alike.partition_point(|item| match item.first_key(arena).cmp(key) {
                Ordering::Less => true,
                Ordering::Equal => or_equal,
                Ordering::Greater => false,
            })
    }

    /// The index of the item that holds `key`, or would hold it.
    pub(super) fn index_for(&self, arena: &Arena, key: &[u8], or_equal: bool) -> usize {
        self.rank(arena, key, or_equal).saturating_sub(1)
    }

    /// Prepares the list for a new key; returns its rank. A key known to come after all others
    /// needs no search.
    pub(super) fn admit(&mut self, arena: &Arena, key: &[u8], is_last: bool) -> usize {
        if !key.starts_with(&self.shared) {
            self.shared = common(&self.shared, key).into();
            self.read_heads(arena);
        }
        if is_last { self.items.len() } else { self.rank(arena, key, false) }
    }

    /// Inserts an item; its keys are admitted, and come after those of the items before `index`.
    pub(super) fn insert(&mut self, arena: &Arena, index: usize, item: T) {
        if self.items.len() == self.items.capacity() {
            // With doubling, a third of the memory would be unused on average.
            let more = (self.items.len() / GROWTH).max(GROWTH);
            self.items.reserve_exact(more);
            self.heads.reserve_exact(more);
        }
        self.heads.insert(index, self.head(item.first_key(arena)));
        self.items.insert(index, item);
    }

    /// Replaces an item by another with the same keys.
    pub(super) fn replace(&mut self, index: usize, item: T) {
        if let Some(place) = self.items.get_mut(index) {
            *place = item;
        }
    }

    /// Removes an item.
    pub(super) fn remove(&mut self, index: usize) -> T {
        self.heads.remove(index);
        self.items.remove(index)
    }

    /// Removes the items from `index` on, and returns them.
    pub(super) fn split_off(&mut self, arena: &Arena, index: usize) -> Self {
        let mut upper = Self { items: self.items.split_off(index), ..Self::default() };
        self.heads.truncate(index);
        self.items.shrink_to(index + index / GROWTH);
        self.heads.shrink_to(index + index / GROWTH);
        self.survey(arena);
        upper.survey(arena);
        upper
    }

    /// Appends the items of `next`.
    pub(super) fn join(&mut self, arena: &Arena, next: Self) {
        self.items.extend(next.items);
        self.survey(arena);
    }

    /// Reads the first key of an item again.
    pub(super) fn look(&mut self, arena: &Arena, index: usize) {
        let head = self.items.get(index).map(|item| self.head(item.first_key(arena)));
        if let Some((place, head)) = self.heads.get_mut(index).zip(head) {
            *place = head;
        }
    }

    /// Reads all keys again.
    fn survey(&mut self, arena: &Arena) {
        self.shared = common(self.first_key(arena), self.last_key(arena)).into();
        self.read_heads(arena);
    }

    fn read_heads(&mut self, arena: &Arena) {
        let mut heads = std::mem::take(&mut self.heads);
        heads.clear();
        heads.extend(self.items.iter().map(|item| self.head(item.first_key(arena))));
        self.heads = heads;
    }

    /// Of two keys, the one with the smaller head is the smaller; where the heads are equal, the
    /// rest decides.
    fn head(&self, key: &[u8]) -> Head {
        let rest = key.get(self.shared.len()..).unwrap_or_default();
        let bytes = rest.first_chunk().copied().unwrap_or_else(|| {
            let mut padded = [0; size_of::<Head>()];
            padded.iter_mut().zip(rest).for_each(|(byte, of_key)| *byte = *of_key);
            padded
        });
        Head::from_be_bytes(bytes)
    }
}

/// The common prefix of two keys.
fn common<'k>(one: &'k [u8], other: &[u8]) -> &'k [u8] {
    let alike = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    one.get(..alike).unwrap_or_default()
}
