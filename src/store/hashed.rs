//! Keys with their hashes: a key is hashed once, however often it is looked for, and before the
//! engine's lock is taken.

use crate::wire::Command;
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

/// A command, and the hash of the key that it names, where that is known already.
#[derive(Debug, Clone, Copy)]
pub struct Task<'c> {
    /// What is to be done.
    pub command: &'c Command<'c>,
    /// The hash of [`Command::key`].
    pub hash: Option<u64>,
}

impl<'c> From<&'c Command<'c>> for Task<'c> {
    fn from(command: &'c Command<'c>) -> Self {
        Self { command, hash: None }
    }
}
