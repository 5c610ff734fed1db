//! Finds an entry by its key: a hash table in many parts, each of which grows by itself.
//!
//! A table that grows rehashes all its keys while every client waits: half a second for two million
//! keys. Redis moves its keys a few at a time; here each growth moves a thousandth of them at once.

use super::arena::{Arena, Handle};
use super::hashed::{HashedKey, KeyHasher};
use hashbrown::HashTable;
use hashbrown::hash_table::OccupiedEntry;

/// How many parts there are: a power of two.
const PARTS: usize = 1024;
/// The bits of a hash that select the part. A part's table uses the lowest bits and the seven
/// highest.
const PART_SHIFT: u32 = 40;

/// The handles of an arena's entries, indexed by their keys.
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

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Finds `key`.
    pub fn find(&self, arena: &Arena, key: HashedKey<'_>) -> Option<Handle> {
        self.part(key.hash)?.find(key.hash, |handle| arena.key(*handle) == key.bytes).copied()
    }

    /// The first handle that may have this hash: most often it has.
    pub fn guess(&self, hash: u64) -> Option<Handle> {
        self.part(hash)?.find(hash, |_| true).copied()
    }

    /// Finds `key`, so that the caller can replace its handle.
    pub fn find_mut(&mut self, arena: &Arena, key: HashedKey<'_>) -> Option<&mut Handle> {
        let part = self.part_mut(key.hash)?;
        part.find_mut(key.hash, |handle| arena.key(*handle) == key.bytes)
    }

    /// Adds a key that is not in the index.
    pub fn insert(&mut self, arena: &Arena, hasher: &KeyHasher, hash: u64, handle: Handle) {
        let Some(part) = self.part_mut(hash) else { return };
        part.insert_unique(hash, handle, |handle| hasher.hash(arena.key(*handle)));
        self.len += 1;
    }

    /// Removes `key`.
    pub fn remove(&mut self, arena: &Arena, key: HashedKey<'_>) -> Option<Handle> {
        let part = self.part_mut(key.hash)?;
        let found = part.find_entry(key.hash, |handle| arena.key(*handle) == key.bytes).ok();
        let (handle, _) = found.map(OccupiedEntry::remove)?;
        self.len -= 1;
        Some(handle)
    }

    /// Makes room for `more` keys.
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
    fn the_index_agrees_with_a_plain_map() {
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
    fn keys_are_spread_evenly_over_the_parts() {
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
