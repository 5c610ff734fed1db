//! The order of the keys: a B+ tree of two levels, with handles in leaves and leaves on branches,
//! sorted by the keys that the handles name.
//!
//! It takes eight bytes a key and a little slack. Point reads and overwrites use the map's hash
//! index; inserts, removals and ranges use the order.

use super::arena::{Arena, Handle};
use super::sorted::{Keyed, Sorted};
use std::ops::Bound;

/// The most handles in a leaf, and leaves on a branch. Few in the tests, for many branches.
const ITEMS_MAX: usize = if cfg!(test) { 16 } else { 512 };
/// A leaf smaller than this is merged with its neighbour where both fit.
const BLOCK_SMALL: usize = ITEMS_MAX / 8;

type Leaf = Sorted<Handle>;

/// The leaves of a branch, and how many keys they hold together.
#[derive(Debug)]
struct Branch {
    leaves: Sorted<Leaf>,
    keys: usize,
}

impl Branch {
    fn of(leaves: Sorted<Leaf>) -> Self {
        let keys = leaves.items().iter().map(|leaf| leaf.items().len()).sum();
        Self { leaves, keys }
    }
}

impl Keyed for Branch {
    fn first_key<'k>(&'k self, arena: &'k Arena) -> &'k [u8] {
        self.leaves.first_key(arena)
    }

    fn last_key<'k>(&'k self, arena: &'k Arena) -> &'k [u8] {
        self.leaves.last_key(arena)
    }
}

/// The handles of an arena's entries, in the order of their keys.
#[derive(Debug, Default)]
pub struct Order {
    /// No branch is empty, and no leaf is.
    branches: Sorted<Branch>,
}

/// A position before a handle: the branch, its leaf, and the index in the leaf.
type Place = (usize, usize, usize);

impl Order {
    fn branch(&self, number: usize) -> &[Leaf] {
        self.branches.items().get(number).map_or(&[], |branch| branch.leaves.items())
    }

    fn leaf(&self, branch: usize, leaf: usize) -> &[Handle] {
        self.branch(branch).get(leaf).map_or(&[], Leaf::items)
    }

    fn leaves(&self) -> impl Iterator<Item = &[Handle]> {
        self.branches.items().iter().flat_map(|branch| branch.leaves.items()).map(Leaf::items)
    }

    /// The position after all keys before `key`, and, with `or_equal`, after `key`.
    fn place(&self, arena: &Arena, key: &[u8], or_equal: bool) -> Place {
        let number = self.branches.index_for(arena, key, or_equal);
        let Some(branch) = self.branches.items().get(number) else { return (0, 0, 0) };
        let Branch { leaves, .. } = branch;
        let leaf = leaves.index_for(arena, key, or_equal);
        let index = leaves.items().get(leaf).map_or(0, |leaf| leaf.rank(arena, key, or_equal));
        (number, leaf, index)
    }

    /// The position of `key`, if the order contains it.
    fn place_of(&self, arena: &Arena, key: &[u8]) -> Option<Place> {
        let (branch, leaf, after) = self.place(arena, key, true);
        let index = after.checked_sub(1)?;
        let handle = self.leaf(branch, leaf).get(index)?;
        (arena.key(*handle) == key).then_some((branch, leaf, index))
    }

    /// Whether every key is before `key`.
    pub fn is_after_all(&self, arena: &Arena, key: &[u8]) -> bool {
        self.branches.items().is_empty() || self.branches.last_key(arena) < key
    }

    /// Adds the handle of a new key.
    pub fn insert(&mut self, arena: &Arena, handle: Handle) {
        let key = arena.key(handle);
        let is_last = self.is_after_all(arena, key);
        let number = self.branches.admit(arena, key, is_last).saturating_sub(1);
        let Some(branch) = self.branches.item_mut(number) else {
            let leaf = Leaf::one(handle, arena);
            self.branches = Sorted::one(Branch::of(Sorted::one(leaf, arena)), arena);
            return;
        };
        insert_on(&mut branch.leaves, arena, key, handle, is_last);
        branch.keys += 1;
        if branch.leaves.items().len() > ITEMS_MAX {
            let at = if is_last { ITEMS_MAX } else { ITEMS_MAX / 2 };
            let upper = Branch::of(branch.leaves.split_off(arena, at));
            branch.keys -= upper.keys;
            self.branches.look(arena, number);
            self.branches.insert(arena, number + 1, upper);
        }
    }

    /// The handle at this position in the order.
    pub fn nth(&self, mut index: usize) -> Option<Handle> {
        for leaf in self.leaves() {
            match leaf.get(index) {
                Some(handle) => return Some(*handle),
                None => index -= leaf.len(),
            }
        }
        None
    }

    /// Replaces a handle with another of the same key.
    pub fn replace(&mut self, arena: &Arena, key: &[u8], handle: Handle) {
        let Some((branch, leaf, index)) = self.place_of(arena, key) else { return };
        let branch = self.branches.item_mut(branch);
        if let Some(leaf) = branch.and_then(|branch| branch.leaves.item_mut(leaf)) {
            leaf.replace(index, handle);
        }
    }

    /// Removes the handle of `key`; the arena still has the entry.
    pub fn remove(&mut self, arena: &Arena, key: &[u8]) {
        let Some((number, place, index)) = self.place_of(arena, key) else { return };
        let Some(branch) = self.branches.item_mut(number) else { return };
        let Some(leaf) = branch.leaves.item_mut(place) else { return };
        leaf.remove(index);
        branch.keys -= 1;
        match leaf.items().len() {
            0 => drop(branch.leaves.remove(place)),
            1..BLOCK_SMALL => join(&mut branch.leaves, arena, place),
            _ => {}
        }
        if branch.leaves.items().is_empty() {
            self.branches.remove(number);
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
        (self.branches.items().len(), 0, 0)
    }

    /// The handles between two positions, leaf by leaf.
    fn blocks_between<'o>(
        &'o self,
        start: Place,
        end: Place,
    ) -> impl DoubleEndedIterator<Item = &'o [Handle]> + use<'o> {
        let branches = start.0..(end.0 + 1).min(self.branches.items().len()).max(start.0);
        let leaves = branches.flat_map(move |branch| {
            let from = if branch == start.0 { start.1 } else { 0 };
            let to = if branch == end.0 { end.1 + 1 } else { self.branch(branch).len() };
            (from..to.max(from)).map(move |leaf| (branch, leaf))
        });
        leaves.map(move |place| {
            let handles = self.leaf(place.0, place.1);
            let from = if place == (start.0, start.1) { start.2 } else { 0 };
            let to = if place == (end.0, end.1) { end.2 } else { handles.len() };
            handles.get(from.min(to)..to).unwrap_or_default()
        })
    }

    /// How many keys lie between two bounds; reads neither the keys in between nor their leaves.
    pub fn count(&self, arena: &Arena, lower: &[u8], upper: Option<&[u8]>) -> usize {
        let start = self.place(arena, lower, false);
        let end = upper.map_or_else(|| self.end(), |key| self.place(arena, key, false));
        self.keys_before(end).saturating_sub(self.keys_before(start))
    }

    fn keys_before(&self, (branch, leaf, index): Place) -> usize {
        let branches: usize =
            self.branches.items().iter().take(branch).map(|branch| branch.keys).sum();
        let leaves: usize =
            self.branch(branch).iter().take(leaf).map(|one| one.items().len()).sum();
        branches + leaves + index
    }
}

/// Adds the handle of a key to a branch; with `is_last` the key comes after all others.
fn insert_on(branch: &mut Sorted<Leaf>, arena: &Arena, key: &[u8], handle: Handle, is_last: bool) {
    let mut place = branch.admit(arena, key, is_last).saturating_sub(1);
    let is_full = branch.items().get(place).is_some_and(|leaf| leaf.items().len() == ITEMS_MAX);
    if is_full && is_last {
        // Keys inserted in order fill their leaves completely.
        branch.insert(arena, place + 1, Leaf::one(handle, arena));
        return;
    }
    if is_full && let Some(leaf) = branch.item_mut(place) {
        let upper = leaf.split_off(arena, ITEMS_MAX / 2);
        branch.look(arena, place);
        branch.insert(arena, place + 1, upper);
        place = branch.index_for(arena, key, false);
    }
    let Some(leaf) = branch.item_mut(place) else { return };
    let index = leaf.admit(arena, key, is_last);
    leaf.insert(arena, index, handle);
}

/// Merges a small leaf with the next one, where both fit in half a leaf.
fn join(branch: &mut Sorted<Leaf>, arena: &Arena, place: usize) {
    let lengths = branch.items().get(place).zip(branch.items().get(place + 1));
    let fit = |(one, next): (&Leaf, &Leaf)| one.items().len() + next.items().len() <= ITEMS_MAX / 2;
    if lengths.is_some_and(fit) {
        let next = branch.remove(place + 1);
        if let Some(leaf) = branch.item_mut(place) {
            leaf.join(arena, next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::arena::Head;
    use super::*;
    use crate::protocol::Level;
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
        assert!(order.leaves().all(|leaf| !leaf.is_empty()));
        for Branch { leaves, keys } in order.branches.items() {
            let held: usize = leaves.items().iter().map(|leaf| leaf.items().len()).sum();
            assert_eq!(*keys, held);
        }
        let middle = model.len() / 2;
        assert_eq!(order.nth(middle), model.values().nth(middle).copied());
        assert_eq!(order.nth(model.len()), None);
    }

    #[test]
    fn the_order_agrees_with_a_plain_map() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut arena, mut order, mut model) =
            (Arena::default(), Order::default(), BTreeMap::new());
        for step in 0..40_000_u32 {
            // The order fills, and is emptied, again and again.
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

    /// The first key at or after `key`, where there is one.
    fn nearest(model: &BTreeMap<Vec<u8>, Handle>, key: &Vec<u8>) -> Vec<u8> {
        let found = model.range::<Vec<u8>, _>(key..).next().or_else(|| model.first_key_value());
        found.map(|(key, _)| key.clone()).unwrap_or_default()
    }
}
