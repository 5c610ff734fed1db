//! A write while it happens: its seq, its changes so far, and the way back.

use super::map::{Entry, Head};
use super::{Context, Store};
use crate::clock::Millis;
use crate::wire::change::{Mark, Op};
use crate::wire::{ChangeBuffer, Gate, Level, Seq};

/// An entry as it was before an open batch touched its key.
pub(super) type Replaced = (Box<[u8]>, Option<(Head, Box<[u8]>)>);

/// An open write. All its changes carry one seq.
pub(super) struct Write<'w> {
    pub(super) seq: Seq,
    pub(super) level: Level,
    pub(super) context: &'w Context,
    pub(super) gate: Gate,
    changes: &'w mut ChangeBuffer,
    mark: Mark,
}

impl<'w> Write<'w> {
    pub(super) fn open(
        seq: Seq,
        level: Level,
        context: &'w Context,
        changes: &'w mut ChangeBuffer,
    ) -> Self {
        let mark = changes.begin(seq, level, context.now);
        Self { seq, level, context, gate: Gate::OPEN, changes, mark }
    }

    pub(super) fn now(&self) -> Millis {
        self.context.now
    }

    /// The time at which something with this time to live expires; 0 never.
    pub(super) fn deadline(&self, ttl_ms: Option<Millis>) -> Millis {
        ttl_ms.map_or(0, |ttl| self.context.now.saturating_add(ttl))
    }

    /// Ends the write; returns whether it changed anything.
    pub(super) fn close(self) -> bool {
        self.changes.end(self.mark)
    }

    /// Takes back the changes made so far.
    pub(super) fn undo(&mut self) {
        self.changes.undo(self.mark);
        self.mark = self.changes.begin(self.seq, self.level, self.context.now);
    }

    /// Notes a change. The reply waits for this write's level; a `memory` write that hides a
    /// persisted value waits until its removal is as durable as that value was, or a crash would
    /// bring it back.
    fn note(
        &mut self,
        op: Op,
        below: Option<Head>,
        expires_at: Millis,
        key: &[u8],
        value: &[u8],
    ) -> Gate {
        let covers = below.is_some_and(|head| head.persisted);
        let expires_at = (expires_at != 0).then_some(expires_at);
        self.changes.push(op, covers, expires_at, key, value);
        let mut gate = Gate::OPEN;
        gate.require(self.level, self.seq);
        if let (Level::Memory, true, Some(below)) = (self.level, covers, below) {
            gate.require(below.level, self.seq);
        }
        self.gate.join(gate);
        gate
    }
}

impl Store {
    /// The entry of `key` if it is live. One that has expired unnoticed expires now, within
    /// `write`.
    pub(super) fn current(&mut self, key: &[u8], write: &mut Write<'_>) -> Option<Entry<'_>> {
        let is_live = self.map.get(key)?.head.is_live(write.now());
        if !is_live {
            self.take(Op::Expire, key, write);
            return None;
        }
        self.map.get(key)
    }

    /// Puts a value at `key`; notes the change.
    pub(super) fn put(
        &mut self,
        op: Op,
        key: &[u8],
        value: &[u8],
        expires_at: Millis,
        write: &mut Write<'_>,
    ) {
        let (level, seq) = (write.level, write.seq);
        let persisted = level != Level::Memory;
        self.remember(key);
        let head = Head { seq, expires_at, level, persisted };
        let old = self.map.insert(key, head, value);
        let gate = write.note(op, old, expires_at, key, value);
        self.writes.join(gate);
    }

    /// Takes `key` out, if it is there; notes the change.
    pub(super) fn take(&mut self, op: Op, key: &[u8], write: &mut Write<'_>) -> Option<Head> {
        self.remember(key);
        let old = self.map.remove(key)?;
        let gate = write.note(op, Some(old), 0, key, &[]);
        self.removals.join(gate);
        self.writes.join(gate);
        Some(old)
    }

    /// Keeps what is at `key`, where a batch may have to be taken back.
    fn remember(&mut self, key: &[u8]) {
        if let Some(undo) = &mut self.undo {
            let old = self.map.get(key).map(|entry| (entry.head, entry.value.into()));
            undo.push((key.into(), old));
        }
    }

    /// Puts everything back that has been replaced since the undo list was opened.
    pub(super) fn roll_back(&mut self) {
        for (key, old) in self.undo.take().unwrap_or_default().into_iter().rev() {
            match old {
                Some((head, value)) => self.map.insert(&key, head, &value),
                None => self.map.remove(&key),
            };
        }
    }
}
