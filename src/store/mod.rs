//! The ordered map, and `apply`: a pure function of state, command and time.
//!
//! No I/O, no clock, no randomness: the reply is returned, the change is appended to the buffer
//! that the caller gives, and the same commands at the same times make the same state anywhere. So
//! it can be checked against a plain `BTreeMap` (`tests/state/model.rs`), and later be driven by a
//! replicated log.

mod arena;
mod batch;
#[cfg(test)]
mod charged;
mod delete;
mod delete_range;
mod dirty;
mod expire;
mod hashed;
mod incr;
mod index;
mod joined;
pub mod map;
mod order;
mod range;
mod read;
mod replay;
pub mod round;
mod set;
mod sorted;
mod take_back;
mod touch;
pub mod undo;
mod write;

use crate::budget::Cost;
use crate::clock::Millis;
use crate::wire::refusal::Code;
use crate::wire::{ChangeBuffer, Command, Gate, Level, Refusal, Reply, Seq, Shared};
pub use hashed::{HashedKey, KeyHasher, Task};

use map::Map;
use read::Sight;
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
    fn unbounded(now: Millis, durability: Level) -> Self {
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

/// What came of a command.
#[derive(Debug)]
pub struct Applied<'s> {
    /// The reply, or why nothing changed.
    pub reply: Result<Reply<'s>, Refusal>,
    /// What the reply waits for.
    pub gate: Gate,
    /// What it cost, whether it was refused or not, less what encoding the reply costs.
    pub cost: Cost,
}

/// The limit that [`Context::reply_bytes`] is, as refusals name it.
pub const REPLY_LIMIT: &str = "max_message_bytes";

/// The state: the map, and the seq of its last write.
#[derive(Debug, Default)]
pub struct Store {
    map: Map,
    seq: Seq,
    /// What a reply that shows an absence waits for: the newest removals.
    removals: Gate,
    /// What a reply that shows the whole map waits for: the newest writes.
    writes: Gate,
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

    /// Applies one command. What it changed is appended to `changes` as one write; a refused
    /// command changes nothing.
    pub fn apply<'s, 'c>(
        &'s mut self,
        task: impl Into<Task<'c>>,
        context: &Context,
        changes: &mut ChangeBuffer,
    ) -> Applied<'s> {
        let Task { command, hash } = task.into();
        if !command.may_write() {
            return self.query(Task { command, hash }, context);
        }
        let mut gate = Gate::OPEN;
        let level = self.level(command, hash, context);
        let mut write = Write::open(self.seq + 1, level, context, changes);
        write.hash = hash;
        let done = match command {
            Command::Batch(batch) => self.batch(batch, &mut write).map(Reply::Results),
            single => self.write(single, &mut write),
        };
        gate.join(write.gate);
        let cost = write.cost;
        self.undo.end(write.own != Gate::OPEN);
        if write.close() {
            self.seq += 1;
        }
        Applied { reply: done, gate, cost }
    }

    /// Runs a command that only reads.
    pub fn query<'s, 'c>(&'s self, task: impl Into<Task<'c>>, context: &Context) -> Applied<'s> {
        let mut sight = Sight::default();
        let reply = self.read(task.into(), context, &mut sight);
        Applied { reply, gate: sight.gate, cost: sight.cost }
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
    pub fn warm(&self, hashes: impl Iterator<Item = u64>, for_writes: bool) {
        self.map.warm(hashes, for_writes);
    }

    /// A key whose hash may be known.
    fn hashed<'k>(&self, key: &'k [u8], hash: Option<u64>) -> HashedKey<'k> {
        match hash {
            Some(hash) => HashedKey { bytes: key, hash },
            None => self.map.hasher().of(key),
        }
    }

    /// Whether a key has expired at `now`, and waits to be taken out.
    pub fn has_expired(&self, now: Millis) -> bool {
        self.map.has_expired(now)
    }

    fn read<'s>(
        &'s self,
        task: Task<'_>,
        context: &Context,
        sight: &mut Sight,
    ) -> Result<Reply<'s>, Refusal> {
        match task.command {
            Command::Get(get) => {
                let key = self.hashed(&get.key, task.hash);
                Ok(self.get(get, key, context.now, sight))
            }
            Command::GetMulti(get) => self.get_multi(get, context, sight),
            Command::Range(range) => self.range(range, context, sight),
            Command::Batch(batch) => self.read_batch(batch, context, sight).map(Reply::Results),
            Command::Count(count) => Ok(self.count(count, context.now, sight)),
            other => {
                let message = format!("'{}' is not a command of the map", other.method());
                Err(Refusal::new(Code::BadArgument, message))
            }
        }
    }

    /// Runs one command that may write, inside an open write.
    fn write(
        &mut self,
        command: &Command<'_>,
        write: &mut Write<'_>,
    ) -> Result<Reply<'static>, Refusal> {
        match command {
            Command::Set(set) => self.set(set, write),
            Command::SetMulti(set) => Ok(self.set_multi(set, write)),
            Command::Delete(delete) => self.delete(delete, write),
            Command::DeleteMulti(delete) => Ok(self.delete_multi(delete, write)),
            Command::DeleteRange(range) => Ok(self.delete_range(range, write)),
            Command::Incr(incr) => self.incr(incr, write),
            Command::Touch(touch) => Ok(self.touch(touch, write)),
            other => {
                let message = format!("'{}' does not write", other.method());
                Err(Refusal::new(Code::BadArgument, message))
            }
        }
    }
}
