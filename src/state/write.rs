//! A write in progress: its seq, its changes so far, and their undo.

use super::map::{Entry, Head};
use super::read_set::ReadSet;
use super::undo::Undo;
use super::{Context, HashedKey, Store};
use crate::budget::Cost;
use crate::clock::Millis;
use crate::protocol::change::SHARED_FROM;
use crate::protocol::change::{Mark, Op};
use crate::protocol::{ChangeBuffer, DurabilityBarrier, Level, Seq, Shared, WriteCost};

/// An open write. All its changes carry one seq.
pub(crate) struct Write<'w> {
    pub(crate) seq: Seq,
    pub(crate) level: Level,
    pub(crate) context: &'w Context,
    /// The barrier of its reply.
    pub(crate) barrier: DurabilityBarrier,
    /// The barrier of its changes: before it opens they may still be lost.
    pub(crate) own: DurabilityBarrier,
    /// The hash of the only key that the command names, where it is known.
    pub(crate) hash: Option<u64>,
    /// How many entries it visited in key order.
    pub(crate) looks: usize,
    /// Its cost so far.
    pub(crate) cost: Cost,
    /// Whether every replaced entry is kept, for a rollback.
    pub(crate) keeps_all: bool,
    changes: &'w mut ChangeBuffer,
    mark: Mark,
}

impl<'w> Write<'w> {
    pub(crate) fn open(
        seq: Seq,
        level: Level,
        context: &'w Context,
        changes: &'w mut ChangeBuffer,
    ) -> Self {
        let mark = changes.begin(seq, level, context.now);
        let (barrier, own) = (DurabilityBarrier::OPEN, DurabilityBarrier::OPEN);
        let (hash, looks, cost, keeps_all) = (None, 0, Cost::default(), false);
        Self { seq, level, context, barrier, own, hash, looks, cost, keeps_all, changes, mark }
    }

    pub(crate) fn now(&self) -> Millis {
        self.context.now
    }

    /// Whether its keys and values exceed the limit of a write. The cost of a command is known
    /// before it runs, except for what it finds: a touch writes the existing value again.
    pub(crate) fn is_over(&self) -> bool {
        let (items, bytes) = self.changes.since(self.mark);
        WriteCost { items, bytes }.is_over(self.context.write_bytes)
    }

    /// Counts entries that were looked up or written, and bytes that were copied.
    pub(crate) fn charge(&mut self, entries: usize, bytes: usize) {
        self.cost = self.cost.plus(Cost::new(entries, bytes));
    }

    /// Adds what a read within the write has seen.
    pub(crate) fn saw(&mut self, seen: &ReadSet) {
        self.barrier.join(seen.barrier);
        self.cost = self.cost.plus(seen.cost);
    }

    /// Ends the write; returns whether it changed anything.
    pub(crate) fn close(self) -> bool {
        self.changes.end(self.mark)
    }

    /// Rolls back the changes made so far.
    pub(crate) fn undo(&mut self) {
        self.changes.undo(self.mark);
        self.mark = self.changes.begin(self.seq, self.level, self.context.now);
        self.own = DurabilityBarrier::OPEN;
    }

    /// Declares that more than one key will change, and that the changes reach their level
    /// together. Of a `memory` write, any change may have to wait.
    pub(crate) fn has_many(&mut self) {
        self.keeps_all |= self.level == Level::Memory;
    }

    /// The barrier of a change that replaces `below`: this write's level. A `memory` write that
    /// hides a persisted value waits until its removal is as durable as that value was; otherwise a
    /// crash would bring the value back.
    fn wait_for(&self, below: Option<&Head>) -> DurabilityBarrier {
        let mut barrier = DurabilityBarrier::OPEN;
        barrier.require(self.level, self.seq);
        if let (Level::Memory, Some(Head { persisted: true, level, .. })) = (self.level, below) {
            barrier.require(*level, self.seq);
        }
        barrier
    }

    /// Records a change. The reply waits for the barrier of the change.
    fn note(
        &mut self,
        op: Op,
        below: Option<Head>,
        expires_at: Millis,
        key: &[u8],
        value: Noted<'_>,
    ) -> DurabilityBarrier {
        // In the map, and in the log; a touch keeps the value where it is.
        self.charge(1, 2 * (key.len() + value.len()));
        let covers = below.is_some_and(|head| head.persisted);
        let expires_at = (expires_at != 0).then_some(expires_at);
        match value {
            Noted::Copied(value) => self.changes.push(op, covers, expires_at, key, value),
            Noted::Shared(value) => self.changes.push_shared(covers, expires_at, key, value),
        }
        let barrier = self.wait_for(below.as_ref());
        self.barrier.join(barrier);
        self.own.join(barrier);
        barrier
    }
}

/// A value on its way to the log.
enum Noted<'v> {
    Copied(&'v [u8]),
    Shared(&'v Shared),
}

impl Noted<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Copied(value) => value.len(),
            Self::Shared(value) => value.len(),
        }
    }
}

impl Store {
    /// The entry of `key` if it is live. An expired entry that was not removed yet expires now,
    /// within `write`.
    pub(crate) fn current(
        &mut self,
        key: HashedKey<'_>,
        write: &mut Write<'_>,
    ) -> Option<Entry<'_>> {
        write.charge(1, 0);
        let is_live = self.map.get(key)?.head.is_live(write.now());
        if !is_live {
            self.take(Op::Expire, key, write);
            return None;
        }
        self.map.get(key)
    }

    /// Sets the value of `key`; records the change.
    pub(crate) fn put(
        &mut self,
        op: Op,
        hashed: HashedKey<'_>,
        value: &[u8],
        expires_at: Millis,
        write: &mut Write<'_>,
    ) {
        let (level, seq) = (write.level, write.seq);
        let persisted = level != Level::Memory;
        let head = Head { seq, expires_at, level, persisted };
        let shared = (value.len() >= SHARED_FROM).then(|| self.prepared.take(value));
        let Self { map, undo, .. } = self;
        let key = hashed.bytes;
        let entry = Entry { head, value, shared: shared.as_ref() };
        let old = map.replace(hashed, entry, |old| remember(undo, key, old, write));
        let noted = shared.as_ref().map_or(Noted::Copied(value), Noted::Shared);
        let barrier = write.note(op, old, expires_at, key, noted);
        self.writes.join(barrier);
    }

    /// Changes the expiry of a key's entry, and keeps its value; records the change.
    pub(crate) fn retime(
        &mut self,
        hashed: HashedKey<'_>,
        old: Head,
        expires_at: Millis,
        write: &mut Write<'_>,
    ) {
        let head = old.retimed(write.seq, write.level, expires_at);
        let Self { map, undo, .. } = self;
        let key = hashed.bytes;
        map.set_head(hashed, head, |old| remember(undo, key, Some(old), write));
        let barrier = write.note(Op::Touch, Some(old), expires_at, key, Noted::Copied(&[]));
        self.writes.join(barrier);
    }

    /// Deletes a key. The reply reveals whether the key existed, and so waits for the barrier of
    /// that. Returns whether it existed.
    pub(crate) fn delete(&mut self, key: HashedKey<'_>, write: &mut Write<'_>) -> bool {
        let old = match self.current(key, write) {
            Some(_) => self.take(Op::Delete, key, write),
            None => None,
        };
        match old {
            Some(old) => write.barrier.require(old.level, old.seq),
            None => write.barrier.join(self.removals),
        }
        old.is_some()
    }

    /// Removes `key`, if it exists; records the change.
    pub(crate) fn take(
        &mut self,
        op: Op,
        hashed: HashedKey<'_>,
        write: &mut Write<'_>,
    ) -> Option<Head> {
        let Self { map, undo, .. } = self;
        let key = hashed.bytes;
        let old = map.take(hashed, |old| remember(undo, key, Some(old), write))?;
        let mut barrier = write.note(op, Some(old), 0, key, Noted::Copied(&[]));
        if op == Op::Expire {
            // A client that misses the key learns that it existed and that its time is over: a
            // restart continues from the times in the log.
            barrier.require(old.level, old.seq);
            if old.persisted {
                barrier.require(Level::Stored, write.seq);
            }
        }
        self.removals.join(barrier);
        self.writes.join(barrier);
        Some(old)
    }
}

/// Keeps the entry of `key`, where the coming change may have to be rolled back.
fn remember(undo: &mut Undo, key: &[u8], old: Option<Entry<'_>>, write: &mut Write<'_>) {
    if write.level == Level::Queued && !write.keeps_all {
        return;
    }
    let barrier = write.wait_for(old.as_ref().map(|entry| &entry.head));
    if write.keeps_all || barrier != DurabilityBarrier::OPEN || write.own != DurabilityBarrier::OPEN
    {
        let copied = old.as_ref().map_or(0, Entry::copied_bytes);
        write.charge(0, key.len() + copied);
        undo.push(write.seq, key, old);
    }
}
