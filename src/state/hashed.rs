//! Keys with their hashes: a key is hashed once, however often it is looked up, and before the
//! engine's lock is taken.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Hashes the keys of one map. The seed is new in each process, so that no client can choose keys
/// that collide.
#[derive(Debug, Clone, Default)]
pub struct KeyHasher(RandomState);

impl KeyHasher {
    /// The hash of a key: of its bytes alone, since two keys are never hashed as one.
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
    /// The key's hash by the map's hasher.
    pub hash: u64,
}
