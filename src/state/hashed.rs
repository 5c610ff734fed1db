//! Keys with their hashes: a key is hashed once, however often it is looked for, and before the
//! engine's lock is taken.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Hashes the keys of one map; seeded anew in each process, so that nobody can choose keys that
/// collide.
#[derive(Debug, Clone, Default)]
pub struct KeyHasher(RandomState);

impl KeyHasher {
    /// The hash of a key: of its bytes alone, since no two keys are hashed as one.
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(key);
        hasher.finish()
    }

    /// A key with its hash.
    pub fn of<'k>(&self, key: &'k [u8]) -> HashedKey<'k> {
        HashedKey { bytes: key, hash: self.hash(key) }
    }
}

/// A key with its hash.
#[derive(Debug, Clone, Copy)]
pub struct HashedKey<'k> {
    /// The key.
    pub bytes: &'k [u8],
    /// What the map's hasher makes of it.
    pub hash: u64,
}
