//! The order of the keys: handles in blocks, the blocks on shelves, sorted by the keys they name.
//!
//! Eight bytes a key and a little slack. Point reads and overwrites do not come here (the map has a
//! hash for them); inserts, removals and ranges do.

use super::arena::{Arena, Handle};
use super::sorted::{Keyed, Sorted};
use std::ops::Bound;

/// Handles in a block, and blocks on a shelf, at the most. Few in its tests, for many shelves.
const ITEMS_MAX: usize = if cfg!(test) { 16 } else { 512 };
/// A block smaller than this is joined with its neighbour where both fit.
const BLOCK_SMALL: usize = ITEMS_MAX / 8;

type Block = Sorted<Handle>;

/// Blocks, and how many keys they hold together.
#[derive(Debug)]
struct Shelf {
    blocks: Sorted<Block>,
    keys: usize,
}

impl Shelf {
    fn of(blocks: Sorted<Block>) -> Self {
        let keys = blocks.items().iter().map(|block| block.items().len()).sum();
        Self { blocks, keys }
    }
}

impl Keyed for Shelf {
    fn first_key<'k>(&'k self, arena: &'k Arena) -> &'k [u8] {
        self.blocks.first_key(arena)
    }

    fn last_key<'k>(&'k self, arena: &'k Arena) -> &'k [u8] {
        self.blocks.last_key(arena)
    }
}

/// The handles of an arena's entries, in the order of their keys.
#[derive(Debug, Default)]
pub struct Order {
    /// None is empty, and no block on one is.
    shelves: Sorted<Shelf>,
}

/// A place before a handle: the shelf, the block on it, and the index in that.
type Place = (usize, usize, usize);

impl Order {
    fn shelf(&self, number: usize) -> &[Block] {
        self.shelves.items().get(number).map_or(&[], |shelf| shelf.blocks.items())
    }

    fn block(&self, shelf: usize, block: usize) -> &[Handle] {
        self.shelf(shelf).get(block).map_or(&[], Block::items)
    }

    fn blocks(&self) -> impl Iterator<Item = &[Handle]> {
        self.shelves.items().iter().flat_map(|shelf| shelf.blocks.items()).map(Block::items)
    }

    /// The place after all keys before `key`, and, with `or_equal`, after `key`.
    fn place(&self, arena: &Arena, key: &[u8], or_equal: bool) -> Place {
        let number = self.shelves.index_for(arena, key, or_equal);
        let Some(shelf) = self.shelves.items().get(number) else { return (0, 0, 0) };
        let Shelf { blocks, .. } = shelf;
        let block = blocks.index_for(arena, key, or_equal);
        let index = blocks.items().get(block).map_or(0, |block| block.rank(arena, key, or_equal));
        (number, block, index)
    }

    /// The place of `key`, if it is in.
    fn place_of(&self, arena: &Arena, key: &[u8]) -> Option<Place> {
        let (shelf, block, after) = self.place(arena, key, true);
        let index = after.checked_sub(1)?;
        let handle = self.block(shelf, block).get(index)?;
        (arena.key(*handle) == key).then_some((shelf, block, index))
    }

    /// Whether every key is before `key`.
    pub fn is_after_all(&self, arena: &Arena, key: &[u8]) -> bool {
        self.shelves.items().is_empty() || self.shelves.last_key(arena) < key
    }

    /// Adds the handle of a key that is not in yet.
    pub fn insert(&mut self, arena: &Arena, handle: Handle) {
        let key = arena.key(handle);
        let is_last = self.is_after_all(arena, key);
        let number = self.shelves.admit(arena, key, is_last).saturating_sub(1);
        let Some(shelf) = self.shelves.item_mut(number) else {
            let block = Block::one(handle, arena);
            self.shelves = Sorted::one(Shelf::of(Sorted::one(block, arena)), arena);
            return;
        };
        insert_on(&mut shelf.blocks, arena, key, handle, is_last);
        shelf.keys += 1;
        if shelf.blocks.items().len() > ITEMS_MAX {
            let at = if is_last { ITEMS_MAX } else { ITEMS_MAX / 2 };
            let upper = Shelf::of(shelf.blocks.split_off(arena, at));
            shelf.keys -= upper.keys;
            self.shelves.look(arena, number);
            self.shelves.insert(arena, number + 1, upper);
        }
    }

    /// The handle that has so many before it.
    pub fn nth(&self, mut index: usize) -> Option<Handle> {
        for block in self.blocks() {
            match block.get(index) {
                Some(handle) => return Some(*handle),
                None => index -= block.len(),
            }
        }
        None
    }

    /// Puts another handle in the place of one with the same key.
    pub fn replace(&mut self, arena: &Arena, key: &[u8], handle: Handle) {
        let Some((shelf, block, index)) = self.place_of(arena, key) else { return };
        let shelf = self.shelves.item_mut(shelf);
        if let Some(block) = shelf.and_then(|shelf| shelf.blocks.item_mut(block)) {
            block.replace(index, handle);
        }
    }

    /// Takes out the handle of `key`; the arena still has it.
    pub fn remove(&mut self, arena: &Arena, key: &[u8]) {
        let Some((number, place, index)) = self.place_of(arena, key) else { return };
        let Some(shelf) = self.shelves.item_mut(number) else { return };
        let Some(block) = shelf.blocks.item_mut(place) else { return };
        block.remove(index);
        shelf.keys -= 1;
        match block.items().len() {
            0 => drop(shelf.blocks.remove(place)),
            1..BLOCK_SMALL => join(&mut shelf.blocks, arena, place),
            _ => {}
        }
        if shelf.blocks.items().is_empty() {
            self.shelves.remove(number);
        }
    }

    /// The handles between two bounds, in order.
    pub fn range<'o>(
        &'o self,
        arena: &Arena,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = Handle> + use<'o> {
        let start = match lower {
            Bound::Unbounded => (0, 0, 0),
            Bound::Included(key) => self.place(arena, key, false),
            Bound::Excluded(key) => self.place(arena, key, true),
        };
        let end = match upper {
            Bound::Unbounded => self.end(),
            Bound::Included(key) => self.place(arena, key, true),
            Bound::Excluded(key) => self.place(arena, key, false),
        };
        self.blocks_between(start, end).flatten().copied()
    }

    fn end(&self) -> Place {
        (self.shelves.items().len(), 0, 0)
    }

    /// What lies between two places, block by block.
    fn blocks_between<'o>(
        &'o self,
        start: Place,
        end: Place,
    ) -> impl DoubleEndedIterator<Item = &'o [Handle]> + use<'o> {
        let shelves = start.0..(end.0 + 1).min(self.shelves.items().len()).max(start.0);
        let blocks = shelves.flat_map(move |shelf| {
            let from = if shelf == start.0 { start.1 } else { 0 };
            let to = if shelf == end.0 { end.1 + 1 } else { self.shelf(shelf).len() };
            (from..to.max(from)).map(move |block| (shelf, block))
        });
        blocks.map(move |place| {
            let handles = self.block(place.0, place.1);
            let from = if place == (start.0, start.1) { start.2 } else { 0 };
            let to = if place == (end.0, end.1) { end.2 } else { handles.len() };
            handles.get(from.min(to)..to).unwrap_or_default()
        })
    }

    /// How many keys lie between two bounds; costs no look at those in between, nor at their
    /// blocks.
    pub fn count(&self, arena: &Arena, lower: &[u8], upper: Option<&[u8]>) -> usize {
        let start = self.place(arena, lower, false);
        let end = upper.map_or_else(|| self.end(), |key| self.place(arena, key, false));
        self.keys_before(end).saturating_sub(self.keys_before(start))
    }

    fn keys_before(&self, (shelf, block, index): Place) -> usize {
        let shelves: usize = self.shelves.items().iter().take(shelf).map(|shelf| shelf.keys).sum();
        let blocks: usize = self.shelf(shelf).iter().take(block).map(|one| one.items().len()).sum();
        shelves + blocks + index
    }
}

/// Adds the handle of a key to a shelf; with `is_last` it is after all others.
fn insert_on(shelf: &mut Sorted<Block>, arena: &Arena, key: &[u8], handle: Handle, is_last: bool) {
    let mut place = shelf.admit(arena, key, is_last).saturating_sub(1);
    let is_full = shelf.items().get(place).is_some_and(|block| block.items().len() == ITEMS_MAX);
    if is_full && is_last {
        // Keys that come in order fill their blocks.
        shelf.insert(arena, place + 1, Block::one(handle, arena));
        return;
    }
    if is_full && let Some(block) = shelf.item_mut(place) {
        let upper = block.split_off(arena, ITEMS_MAX / 2);
        shelf.look(arena, place);
        shelf.insert(arena, place + 1, upper);
        place = shelf.index_for(arena, key, false);
    }
    let Some(block) = shelf.item_mut(place) else { return };
    let index = block.admit(arena, key, is_last);
    block.insert(arena, index, handle);
}

/// Joins a small block with the one after it, where both fit in half a block.
fn join(shelf: &mut Sorted<Block>, arena: &Arena, place: usize) {
    let lengths = shelf.items().get(place).zip(shelf.items().get(place + 1));
    let fit =
        |(one, next): (&Block, &Block)| one.items().len() + next.items().len() <= ITEMS_MAX / 2;
    if lengths.is_some_and(fit) {
        let next = shelf.remove(place + 1);
        if let Some(block) = shelf.item_mut(place) {
            block.join(arena, next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::arena::Head;
    use super::*;
    use crate::wire::Level;
    use std::collections::BTreeMap;

    const HEAD: Head = Head { seq: 1, expires_at: 0, level: Level::Memory, persisted: false };

    /// Keys that differ late, early, only in their length, or in zeros.
    fn key(random: &mut fastrand::Rng) -> Vec<u8> {
        let number = random.u32(..3_000);
        match random.u8(..4) {
            0 => format!("bench:v:{number:010}").into_bytes(),
            1 => number.to_be_bytes().to_vec(),
            2 => {
                (0..random.usize(..7)).map(|_| *random.choice(&[0, b'b', 0xFF]).unwrap()).collect()
            }
            _ => [&b"bench"[..], &vec![0; number as usize % 9]].concat(),
        }
    }

    fn check(order: &Order, arena: &Arena, model: &BTreeMap<Vec<u8>, Handle>, bounds: [&[u8]; 2]) {
        let [low, high] = bounds;
        let got = order.range(arena, Bound::Excluded(low), Bound::Included(high));
        let want = model.range::<[u8], _>((Bound::Excluded(low), Bound::Included(high)));
        assert!(got.eq(want.map(|(_, handle)| *handle)), "after {low:?}, to {high:?}");
        let got = order.range(arena, Bound::Included(low), Bound::Excluded(high));
        let want = model.range::<[u8], _>((Bound::Included(low), Bound::Excluded(high)));
        assert!(
            got.rev().eq(want.rev().map(|(_, handle)| *handle)),
            "from {low:?}, until {high:?}"
        );
        let count = model.range::<[u8], _>((Bound::Included(low), Bound::Excluded(high))).count();
        assert_eq!(order.count(arena, low, Some(high)), count);
        let all = order.range(arena, Bound::Unbounded, Bound::Unbounded);
        assert!(all.eq(model.values().copied()));
        assert!(order.blocks().all(|block| !block.is_empty()));
        for Shelf { blocks, keys } in order.shelves.items() {
            let held: usize = blocks.items().iter().map(|block| block.items().len()).sum();
            assert_eq!(*keys, held);
        }
        let middle = model.len() / 2;
        assert_eq!(order.nth(middle), model.values().nth(middle).copied());
        assert_eq!(order.nth(model.len()), None);
    }

    #[test]
    fn it_keeps_the_order_that_a_plain_map_keeps() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut arena, mut order, mut model) =
            (Arena::default(), Order::default(), BTreeMap::new());
        for step in 0..40_000_u32 {
            // It fills, and is emptied, again and again.
            let (is_filling, is_in_order) = (step % 10_000 < 6_000, step % 10_000 < 2_000);
            let key = match is_in_order {
                true => step.to_be_bytes().to_vec(),
                false => key(&mut random),
            };
            let gone = if is_filling { key.clone() } else { nearest(&model, &key) };
            let is_after_all = model.last_key_value().is_none_or(|(last, _)| *last < key);
            assert_eq!(order.is_after_all(&arena, &key), is_after_all);
            if let Some(handle) = model.get(&gone).copied() {
                if random.u8(..4) == 0 {
                    let moved = arena.insert(&HEAD, &gone, b"longer", None);
                    order.replace(&arena, &gone, moved);
                    model.insert(gone, moved);
                } else {
                    order.remove(&arena, &gone);
                    model.remove(&gone);
                }
                arena.remove(handle);
            } else if is_filling {
                let handle = arena.insert(&HEAD, &key, &[], None);
                order.insert(&arena, handle);
                model.insert(key, handle);
            }
            if step % 64 == 0 {
                let bounds = [self::key(&mut random), self::key(&mut random)];
                let (low, high) = (bounds.iter().min().unwrap(), bounds.iter().max().unwrap());
                if low < high {
                    check(&order, &arena, &model, [low, high]);
                }
            }
        }
    }

    /// A key that is in, at or after `key` where there is one.
    fn nearest(model: &BTreeMap<Vec<u8>, Handle>, key: &Vec<u8>) -> Vec<u8> {
        let found = model.range::<Vec<u8>, _>(key..).next().or_else(|| model.first_key_value());
        found.map(|(key, _)| key.clone()).unwrap_or_default()
    }
}
