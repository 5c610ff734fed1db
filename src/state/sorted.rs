//! A sorted list that is searched by a few bytes of each key, kept beside it.
//!
//! The keys are elsewhere in memory, and to look at one costs a wait for it. So the list has what
//! all its keys begin with, and the four bytes that follow of each: a search looks only at keys
//! that are alike there. A B-tree's nodes with prefixes cut off, and
//! the "poor man's normalized keys" of its entries (Graefe, Modern B-Tree Techniques, 2011).

use super::arena::{Arena, Handle};
use std::cmp::Ordering;

/// The first bytes of a key after those that all have, as a number that is ordered as they are.
type Head = u32;
/// A list that is full grows by this part of its length.
const GROWTH: usize = 4;

/// What has keys: an entry, or a list of what has.
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
    /// Of each item's first key, or of one before it and after all keys of the item before: what
    /// was first may be gone.
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
    /// A list of one.
    pub(super) fn one(item: T, arena: &Arena) -> Self {
        let mut list = Self::default();
        list.items.push(item);
        list.survey(arena);
        list
    }

    pub(super) fn items(&self) -> &[T] {
        &self.items
    }

    /// An item, to be changed. A key that comes into it is told with [`Sorted::admit`] first.
    pub(super) fn item_mut(&mut self, index: usize) -> Option<&mut T> {
        self.items.get_mut(index)
    }

    /// How many items have a first key before `key`, or, with `or_equal`, at `key`. Where the first
    /// key of an item is gone, the item may count though those that are left come after `key`.
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

    /// The item that holds `key`, or would.
    pub(super) fn index_for(&self, arena: &Arena, key: &[u8], or_equal: bool) -> usize {
        self.rank(arena, key, or_equal).saturating_sub(1)
    }

    /// Readies the list for a key that it does not hold yet; returns its rank. One that is known to
    /// come after all others needs no search.
    pub(super) fn admit(&mut self, arena: &Arena, key: &[u8], is_last: bool) -> usize {
        if !key.starts_with(&self.shared) {
            self.shared = common(&self.shared, key).into();
            self.read_heads(arena);
        }
        if is_last { self.items.len() } else { self.rank(arena, key, false) }
    }

    /// Puts an item in; its keys are admitted, and come after those of the items before `index`.
    pub(super) fn insert(&mut self, arena: &Arena, index: usize, item: T) {
        if self.items.len() == self.items.capacity() {
            // Doubled, a third of the memory would be room on average.
            let more = (self.items.len() / GROWTH).max(GROWTH);
            self.items.reserve_exact(more);
            self.heads.reserve_exact(more);
        }
        self.heads.insert(index, self.head(item.first_key(arena)));
        self.items.insert(index, item);
    }

    /// Puts an item in the place of one with the same keys.
    pub(super) fn replace(&mut self, index: usize, item: T) {
        if let Some(place) = self.items.get_mut(index) {
            *place = item;
        }
    }

    /// Takes an item out.
    pub(super) fn remove(&mut self, index: usize) -> T {
        self.heads.remove(index);
        self.items.remove(index)
    }

    /// Takes out the items from `index` on.
    pub(super) fn split_off(&mut self, arena: &Arena, index: usize) -> Self {
        let mut upper = Self { items: self.items.split_off(index), ..Self::default() };
        self.heads.truncate(index);
        self.items.shrink_to(index + index / GROWTH);
        self.heads.shrink_to(index + index / GROWTH);
        self.survey(arena);
        upper.survey(arena);
        upper
    }

    /// Puts the items of `next` after its own.
    pub(super) fn join(&mut self, arena: &Arena, next: Self) {
        self.items.extend(next.items);
        self.survey(arena);
    }

    /// Looks at the first key of an item anew.
    pub(super) fn look(&mut self, arena: &Arena, index: usize) {
        let head = self.items.get(index).map(|item| self.head(item.first_key(arena)));
        if let Some((place, head)) = self.heads.get_mut(index).zip(head) {
            *place = head;
        }
    }

    /// Looks at all keys anew.
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

    /// Of two keys the one with the smaller head is the smaller; where the heads are the same, the
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

/// What both begin with.
fn common<'k>(one: &'k [u8], other: &[u8]) -> &'k [u8] {
    let alike = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    one.get(..alike).unwrap_or_default()
}
