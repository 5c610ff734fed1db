//! The ordered map, and the primitives of a write: entries are looked up, put, retimed and removed,
//! each with its durability barrier and its cost.
//!
//! No I/O, no clock, no randomness, and no commands: those are in [`commands`](crate::commands).

mod arena;
pub mod checkpoint;
mod dirty;
mod expire;
mod hashed;
mod index;
pub mod map;
mod order;
mod prepared;
pub(crate) mod read_set;
mod replay;
mod rollback;
mod sorted;
pub mod undo;
pub(crate) mod write;

use crate::budget::Cost;
use crate::clock::Millis;
use crate::protocol::{ChangeBuffer, DurabilityBarrier, Level, Seq, Shared};
pub use hashed::{HashedKey, KeyHasher};
pub use prepared::Prepared;

use map::Map;
use undo::Undo;
use write::Write;

/// The inputs of `apply` besides the state and the command.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The time of the command.
    pub now: Millis,
    /// The durability of writes that name none.
    pub durability: Level,
    /// Most items in a page of `range`.
    pub page_items: usize,
    /// Most bytes in a page of `range`; one item always fits.
    pub page_bytes: usize,
    /// Most bytes in the reply of `get_multi`, and of `batch`.
    pub reply_bytes: usize,
    /// Most entries that the reads of a batch may visit.
    pub command_items: usize,
    /// A walk that visits more entries than this, or returns more bytes, is refused for the limit
    /// that [`REPLY_LIMIT`] names: the walk is left for a turn with larger limits.
    pub walk: Cost,
    /// Most bytes of the keys and values that a batch writes.
    pub write_bytes: usize,
}

#[cfg(test)]
impl Context {
    /// A context without limits.
    pub(crate) fn unbounded(now: Millis, durability: Level) -> Self {
        let most = usize::MAX;
        Self {
            now,
            durability,
            page_items: most,
            page_bytes: most,
            reply_bytes: most,
            command_items: most,
            walk: Cost::MAX,
            write_bytes: most,
        }
    }
}

/// The name of the limit [`Context::reply_bytes`] in refusals.
pub const REPLY_LIMIT: &str = "max_message_bytes";

/// The barriers of replies to reads of many keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Barriers {
    removals: DurabilityBarrier,
    writes: DurabilityBarrier,
}

/// The state: the map, and the seq of its last write.
#[derive(Debug, Default)]
pub struct Store {
    map: Map,
    seq: Seq,
    /// The barrier of a reply that shows an absence: the newest removals.
    removals: DurabilityBarrier,
    /// The barrier of a reply that shows the whole map: the newest writes.
    writes: DurabilityBarrier,
    /// The values replaced by writes that have not reached their level, since they were last taken.
    undo: Undo,
    /// Large values that were copied before the lock was taken.
    prepared: Prepared,
}

impl Store {
    /// The seq of the last write.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// About how many bytes of memory the entries take.
    pub fn bytes(&self) -> usize {
        self.map.bytes()
    }

    /// About how many bytes the persisted entries take as rows of the tables.
    pub fn row_bytes(&self) -> u64 {
        self.map.row_bytes()
    }

    /// The bytes of entries with all their bookkeeping, and of replaced values that a rollback may
    /// restore: the quantity that `--max-data-bytes` limits.
    pub fn data_bytes(&self) -> usize {
        self.map.data_bytes() + self.undo.held_bytes()
    }

    /// Whether entries of `bytes` bytes can be added, under a limit of `max` bytes for all.
    pub fn has_room(&self, bytes: usize, max: usize) -> bool {
        self.data_bytes().saturating_add(bytes) <= max && self.map.has_place(bytes)
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Begins a write.
    #[inline]
    pub(crate) fn begin<'w>(
        &self,
        level: Level,
        context: &'w Context,
        changes: &'w mut ChangeBuffer,
    ) -> Write<'w> {
        Write::open(self.seq + 1, level, context, changes)
    }

    /// Ends a write.
    #[inline]
    pub(crate) fn end(&mut self, write: Write<'_>) {
        self.undo.end(write.own != DurabilityBarrier::OPEN);
        if write.close() {
            self.seq += 1;
        }
    }

    /// The barrier of a reply that shows an absence: the newest removals.
    pub(crate) fn removals(&self) -> DurabilityBarrier {
        self.removals
    }

    /// The barrier of a reply that shows the whole map: the newest writes.
    pub(crate) fn writes(&self) -> DurabilityBarrier {
        self.writes
    }

    /// Both barriers, to be restored by [`Store::roll_back`].
    pub(crate) fn barriers(&self) -> Barriers {
        Barriers { removals: self.removals, writes: self.writes }
    }

    /// The hasher of the keys.
    pub fn hasher(&self) -> KeyHasher {
        self.map.hasher().clone()
    }

    /// Takes over large values that were copied before the lock was taken, and returns what was
    /// left of the last ones.
    pub fn prepare(&mut self, values: Prepared) -> Prepared {
        std::mem::replace(&mut self.prepared, values)
    }

    /// Takes the removed large values, to be freed outside the lock.
    pub fn take_dropped(&mut self) -> Vec<Shared> {
        self.map.take_dropped()
    }

    /// Loads the entries of the keys with these hashes into the processor's caches, for reads or
    /// for writes.
    pub fn prefetch(&self, hashes: impl Iterator<Item = u64>, for_writes: bool) {
        self.map.prefetch(hashes, for_writes);
    }

    /// A key whose hash may be known already.
    #[inline]
    pub(crate) fn hashed<'k>(&self, key: &'k [u8], hash: Option<u64>) -> HashedKey<'k> {
        match hash {
            Some(hash) => HashedKey { bytes: key, hash },
            None => self.map.hasher().of(key),
        }
    }

    /// Whether a key has expired at `now` and was not removed yet.
    pub fn has_expired(&self, now: Millis) -> bool {
        self.map.has_expired(now)
    }
}
