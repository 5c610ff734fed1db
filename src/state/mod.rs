//! The ordered map, and what a write is made of: entries that are looked up, put, retimed and taken
//! out, each with what the reply waits for and what it costs.
//!
//! No I/O, no clock, no randomness, and no command: those are in [`commands`](crate::commands).

mod arena;
pub mod checkpoint;
mod dirty;
mod expire;
mod hashed;
mod index;
pub mod map;
mod order;
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

use map::Map;
use undo::Undo;
use write::Write;

/// What `apply` needs to know besides the state and the command.
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
    /// Most entries that the reads of a batch pass over.
    pub command_items: usize,
    /// A walk that passes more entries than this, or shows more bytes, is refused for the limit
    /// that [`REPLY_LIMIT`] names: it is left for a turn in which it may.
    pub walk: Cost,
    /// Most bytes of the keys and values that a batch writes.
    pub write_bytes: usize,
}

#[cfg(test)]
impl Context {
    /// One that bounds nothing.
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

/// The limit that [`Context::reply_bytes`] is, as refusals name it.
pub const REPLY_LIMIT: &str = "max_message_bytes";

/// What replies to reads of many keys wait for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gates {
    removals: DurabilityBarrier,
    writes: DurabilityBarrier,
}

/// The state: the map, and the seq of its last write.
#[derive(Debug, Default)]
pub struct Store {
    map: Map,
    seq: Seq,
    /// What a reply that shows an absence waits for: the newest removals.
    removals: DurabilityBarrier,
    /// What a reply that shows the whole map waits for: the newest writes.
    writes: DurabilityBarrier,
    /// What the writes that wait for their level have replaced, since it was last taken.
    undo: Undo,
}

impl Store {
    /// The seq of the last write.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Bytes of memory that the entries take, about.
    pub fn bytes(&self) -> usize {
        self.map.bytes()
    }

    /// Bytes that the persisted entries take as rows of the tables, about.
    pub fn row_bytes(&self) -> u64 {
        self.map.row_bytes()
    }

    /// Bytes that entries take with all that is kept for them, and what they have replaced that may
    /// come back: what `--max-data-bytes` bounds.
    pub fn data_bytes(&self) -> usize {
        self.map.data_bytes() + self.undo.held_bytes()
    }

    /// Whether entries of so many bytes may come, where all together may have `max`.
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

    /// Ends it.
    #[inline]
    pub(crate) fn end(&mut self, write: Write<'_>) {
        self.undo.end(write.own != DurabilityBarrier::OPEN);
        if write.close() {
            self.seq += 1;
        }
    }

    /// What a reply that shows an absence waits for: the newest removals.
    pub(crate) fn removals(&self) -> DurabilityBarrier {
        self.removals
    }

    /// What a reply that shows the whole map waits for: the newest writes.
    pub(crate) fn writes(&self) -> DurabilityBarrier {
        self.writes
    }

    /// What these two wait for, to go back to with [`Store::roll_back`].
    pub(crate) fn barriers(&self) -> Gates {
        Gates { removals: self.removals, writes: self.writes }
    }

    /// What hashes the keys.
    pub fn hasher(&self) -> KeyHasher {
        self.map.hasher().clone()
    }

    /// Large values that are gone, to be freed without the lock.
    pub fn take_dropped(&mut self) -> Vec<Shared> {
        self.map.take_dropped()
    }

    /// Brings what is known of the keys with these hashes into the processor's caches, for reads or
    /// for writes.
    pub fn prefetch(&self, hashes: impl Iterator<Item = u64>, for_writes: bool) {
        self.map.prefetch(hashes, for_writes);
    }

    /// A key whose hash may be known.
    #[inline]
    pub(crate) fn hashed<'k>(&self, key: &'k [u8], hash: Option<u64>) -> HashedKey<'k> {
        match hash {
            Some(hash) => HashedKey { bytes: key, hash },
            None => self.map.hasher().of(key),
        }
    }

    /// Whether a key has expired at `now`, and waits to be taken out.
    pub fn has_expired(&self, now: Millis) -> bool {
        self.map.has_expired(now)
    }
}
