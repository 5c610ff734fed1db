//! The order of the keys: handles in blocks, the blocks in a list, both sorted by the keys they
//! name.
//!
//! Four bytes a key and a little slack. Point reads and overwrites do not come here (the map has a
//! hash for them); inserts, removals and ranges do, and cost two binary searches.

use super::arena::{Arena, Handle};
use std::ops::Bound;

/// Handles in a block, at the most.
const BLOCK_MAX: usize = 512;
/// A block smaller than this is joined with its neighbour where both fit.
const BLOCK_SMALL: usize = BLOCK_MAX / 8;

/// The handles of an arena's entries, in the order of their keys.
#[derive(Debug, Default)]
pub struct Order {
    /// None is empty.
    blocks: Vec<Vec<Handle>>,
}

/// A place before a handle: the block, and the index in it.
type Place = (usize, usize);

impl Order {
    /// The place of the first key for which `is_before` is false. It is true of the first keys, and
    /// false of the rest.
    fn partition(&self, arena: &Arena, is_before: impl Fn(&[u8]) -> bool) -> Place {
        let first_is_before =
            |block: &Vec<Handle>| block.first().is_some_and(|handle| is_before(arena.key(*handle)));
        let Some(block) = self.blocks.partition_point(first_is_before).checked_sub(1) else {
            return (0, 0);
        };
        let index = self
            .blocks
            .get(block)
            .map_or(0, |handles| handles.partition_point(|handle| is_before(arena.key(*handle))));
        (block, index)
    }

    /// The place after the last key, if `key` belongs there: keys that come in order need no
    /// search.
    fn end_if_last(&self, arena: &Arena, key: &[u8]) -> Option<Place> {
        let number = self.blocks.len().checked_sub(1)?;
        let block = self.blocks.get(number)?;
        (arena.key(*block.last()?) < key).then_some((number, block.len()))
    }

    /// Whether every key is before `key`.
    pub fn is_after_all(&self, arena: &Arena, key: &[u8]) -> bool {
        self.blocks.is_empty() || self.end_if_last(arena, key).is_some()
    }

    /// Adds the handle of a key that is not in yet.
    pub fn insert(&mut self, arena: &Arena, handle: Handle) {
        let key = arena.key(handle);
        let (number, index) = self
            .end_if_last(arena, key)
            .unwrap_or_else(|| self.partition(arena, |other| other < key));
        let is_last_block = number + 1 == self.blocks.len();
        let Some(block) = self.blocks.get_mut(number) else {
            self.blocks.push(vec![handle]);
            return;
        };
        if block.len() < BLOCK_MAX {
            block.insert(index, handle);
            return;
        }
        if is_last_block && index == block.len() {
            // Keys that come in order fill their blocks.
            let mut next = Vec::with_capacity(BLOCK_MAX / 4);
            next.push(handle);
            self.blocks.push(next);
            return;
        }
        let mut upper = block.split_off(BLOCK_MAX / 2);
        block.shrink_to(BLOCK_MAX / 2 + BLOCK_MAX / 4);
        match index.checked_sub(BLOCK_MAX / 2) {
            Some(index) => upper.insert(index, handle),
            None => block.insert(index, handle),
        }
        self.blocks.insert(number + 1, upper);
    }

    /// The place of `key`, whose handle is known to be in.
    fn place_of(&self, arena: &Arena, key: &[u8]) -> Option<(usize, usize)> {
        let (block, index) = self.partition(arena, |other| other < key);
        // The key may be the first of the next block.
        let is_inside = self.blocks.get(block).is_some_and(|handles| index < handles.len());
        let (block, index) = if is_inside { (block, index) } else { (block + 1, 0) };
        let handle = self.blocks.get(block)?.get(index)?;
        (arena.key(*handle) == key).then_some((block, index))
    }

    /// The handle that has so many before it.
    pub fn nth(&self, mut index: usize) -> Option<Handle> {
        for block in &self.blocks {
            match block.get(index) {
                Some(handle) => return Some(*handle),
                None => index -= block.len(),
            }
        }
        None
    }

    /// Puts another handle in the place of one with the same key.
    pub fn replace(&mut self, arena: &Arena, key: &[u8], handle: Handle) {
        if let Some((block, index)) = self.place_of(arena, key)
            && let Some(place) = self.blocks.get_mut(block).and_then(|block| block.get_mut(index))
        {
            *place = handle;
        }
    }

    /// Takes out the handle of `key`; the arena still has it.
    pub fn remove(&mut self, arena: &Arena, key: &[u8]) {
        let Some((number, index)) = self.place_of(arena, key) else { return };
        let Some(block) = self.blocks.get_mut(number) else { return };
        block.remove(index);
        if block.is_empty() {
            self.blocks.remove(number);
        } else if block.len() < BLOCK_SMALL {
            self.join(number);
        }
    }

    /// Joins a small block with the one after it, where both fit in half a block.
    fn join(&mut self, number: usize) {
        let sizes = self.blocks.get(number).zip(self.blocks.get(number + 1));
        if sizes.is_some_and(|(one, next)| one.len() + next.len() <= BLOCK_MAX / 2) {
            let next = self.blocks.remove(number + 1);
            if let Some(block) = self.blocks.get_mut(number) {
                block.extend(next);
            }
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
            Bound::Unbounded => (0, 0),
            Bound::Included(key) => self.partition(arena, |other| other < key),
            Bound::Excluded(key) => self.partition(arena, |other| other <= key),
        };
        let end = match upper {
            Bound::Unbounded => (self.blocks.len(), 0),
            Bound::Included(key) => self.partition(arena, |other| other <= key),
            Bound::Excluded(key) => self.partition(arena, |other| other < key),
        };
        let blocks = start.0..(end.0 + 1).min(self.blocks.len()).max(start.0);
        blocks.flat_map(move |number| {
            let handles = self.blocks.get(number).map_or(&[][..], Vec::as_slice);
            let from = if number == start.0 { start.1 } else { 0 };
            let to = if number == end.0 { end.1 } else { handles.len() };
            handles.get(from.min(to)..to).unwrap_or_default().iter().copied()
        })
    }

    /// How many keys lie between two bounds; costs no look at those in between.
    pub fn count(&self, arena: &Arena, lower: &[u8], upper: Option<&[u8]>) -> usize {
        let start = self.partition(arena, |other| other < lower);
        let end = match upper {
            Some(key) => self.partition(arena, |other| other < key),
            None => (self.blocks.len(), 0),
        };
        let whole: usize = self
            .blocks
            .iter()
            .skip(start.0)
            .take(end.0.saturating_sub(start.0))
            .map(Vec::len)
            .sum();
        (whole + end.1).saturating_sub(start.1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::arena::Head;
    use super::*;
    use crate::wire::Level;
    use std::collections::BTreeMap;

    const HEAD: Head = Head { seq: 1, expires_at: 0, level: Level::Memory, persisted: false };

    #[test]
    fn it_keeps_the_order_that_a_plain_map_keeps() {
        let mut random = fastrand::Rng::with_seed(3);
        let (mut arena, mut order, mut model) =
            (Arena::default(), Order::default(), BTreeMap::new());
        for step in 0..30_000_u32 {
            let number = if step < 9_000 { step } else { random.u32(..12_000) };
            let key = number.to_be_bytes();
            if let Some(handle) = model.remove(&key) {
                order.remove(&arena, &key);
                arena.remove(handle);
            } else {
                let handle = arena.insert(&HEAD, &key, &[]);
                order.insert(&arena, handle);
                model.insert(key, handle);
            }
            if step % 512 == 0 {
                let (low, high) =
                    (random.u32(..12_000).to_be_bytes(), random.u32(..12_000).to_be_bytes());
                let (low, high) = (low.min(high), low.max(high));
                let bounds = (Bound::Excluded(&low[..]), Bound::Included(&high[..]));
                let got: Vec<_> = order.range(&arena, bounds.0, bounds.1).collect();
                let want = model.iter().filter(|(key, _)| low < **key && **key <= high);
                assert_eq!(got, want.map(|(_, handle)| *handle).collect::<Vec<_>>(), "step {step}");
                let count = order.count(&arena, &low, Some(&high));
                assert_eq!(count, model.keys().filter(|key| low <= **key && **key < high).count());
                let all = order.range(&arena, Bound::Unbounded, Bound::Unbounded).rev();
                assert!(all.eq(model.values().rev().copied()), "step {step}");
                assert!(order.blocks.iter().all(|block| !block.is_empty()));
            }
        }
    }
}
