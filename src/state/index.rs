//! Finds an entry by its key: a hash table in many parts, each of which grows by itself.
//!
//! A table that grows takes every key in hand, and everybody waits: half a second where there are
//! two million. Redis moves its keys a few at a time instead; here a thousandth of them moves at
//! once.

use super::arena::{Arena, Handle};
use super::hashed::{HashedKey, KeyHasher};
use hashbrown::HashTable;
use hashbrown::hash_table::OccupiedEntry;

/// How many parts there are: a power of two.
const PARTS: usize = 1024;
/// The bits of a hash that tell the part. A part looks at the lowest and the seven highest.
const PART_SHIFT: u32 = 40;

/// The handles of an arena's entries, found by their keys.
#[derive(Debug)]
pub struct Index {
    parts: Box<[HashTable<Handle>]>,
    len: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| HashTable::new()).collect(), len: 0 }
    }
}

fn number(hash: u64) -> usize {
    (hash >> PART_SHIFT) as usize % PARTS
}

impl Index {
    fn part(&self, hash: u64) -> Option<&HashTable<Handle>> {
        self.parts.get(number(hash))
    }

    fn part_mut(&mut self, hash: u64) -> Option<&mut HashTable<Handle>> {
        self.parts.get_mut(number(hash))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Finds `key`.
    pub fn find(&self, arena: &Arena, key: HashedKey<'_>) -> Option<Handle> {
        self.part(key.hash)?.find(key.hash, |handle| arena.key(*handle) == key.bytes).copied()
    }

    /// The first that may have this hash: most often it does.
    pub fn guess(&self, hash: u64) -> Option<Handle> {
        self.part(hash)?.find(hash, |_| true).copied()
    }

    /// Finds `key`, to put another handle in the place of its own.
    pub fn find_mut(&mut self, arena: &Arena, key: HashedKey<'_>) -> Option<&mut Handle> {
        let part = self.part_mut(key.hash)?;
        part.find_mut(key.hash, |handle| arena.key(*handle) == key.bytes)
    }

    /// Adds a key that is not in.
    pub fn insert(&mut self, arena: &Arena, hasher: &KeyHasher, hash: u64, handle: Handle) {
        let Some(part) = self.part_mut(hash) else { return };
        part.insert_unique(hash, handle, |handle| hasher.hash(arena.key(*handle)));
        self.len += 1;
    }

    /// Takes `key` out.
    pub fn remove(&mut self, arena: &Arena, key: HashedKey<'_>) -> Option<Handle> {
        let part = self.part_mut(key.hash)?;
        let found = part.find_entry(key.hash, |handle| arena.key(*handle) == key.bytes).ok();
        let (handle, _) = found.map(OccupiedEntry::remove)?;
        self.len -= 1;
        Some(handle)
    }

    /// Makes room for so many more.
    pub fn reserve(&mut self, arena: &Arena, hasher: &KeyHasher, more: usize) {
        for part in &mut self.parts {
            part.reserve(more / PARTS, |handle| hasher.hash(arena.key(*handle)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::arena::Head;
    use super::*;
    use crate::protocol::Level;
    use std::collections::HashMap;

    const HEAD: Head = Head { seq: 1, expires_at: 0, level: Level::Memory, persisted: false };

    #[test]
    fn it_finds_what_a_plain_map_finds() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (hasher, mut arena) = (KeyHasher::default(), Arena::default());
        let (mut index, mut model) = (Index::default(), HashMap::new());
        index.reserve(&arena, &hasher, 3_000);
        for _ in 0..60_000 {
            let bytes = random.u16(..20_000).to_be_bytes();
            let key = hasher.of(&bytes);
            assert_eq!(index.find(&arena, key), model.get(&bytes).copied());
            match (random.u8(..3), model.get_mut(&bytes)) {
                (0, _) => assert_eq!(index.remove(&arena, key), model.remove(&bytes)),
                (_, Some(handle)) => {
                    let moved = arena.insert(&HEAD, &bytes, b"longer", None);
                    *index.find_mut(&arena, key).unwrap() = moved;
                    *handle = moved;
                }
                (_, None) => {
                    let handle = arena.insert(&HEAD, &bytes, &[], None);
                    index.insert(&arena, &hasher, key.hash, handle);
                    model.insert(bytes, handle);
                }
            }
            assert_eq!(index.len(), model.len());
        }
    }

    #[test]
    fn no_part_has_much_more_than_its_share() {
        let (hasher, mut arena, mut index) =
            (KeyHasher::default(), Arena::default(), Index::default());
        for number in 0..PARTS as u32 * 64 {
            let bytes = number.to_be_bytes();
            let handle = arena.insert(&HEAD, &bytes, &[], None);
            index.insert(&arena, &hasher, hasher.hash(&bytes), handle);
        }
        let most = index.parts.iter().map(HashTable::len).max().unwrap();
        assert!(most < 2 * 64, "one that grows moves {most} keys at once");
    }
}
