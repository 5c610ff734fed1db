//! Rebuilds the state from the persisted data: first the tables, then the tail of the log.

use super::Store;
use super::map::{Entry, Head};
use crate::clock::Millis;
use crate::protocol::change::Op;
use crate::protocol::{Change, Level, Seq};

impl Head {
    /// The head of the entry that a change made.
    pub(super) fn of(change: &Change<'_>) -> Self {
        let Change { seq, level, expires_at, .. } = *change;
        let persisted = level != Level::Memory;
        Self { seq, expires_at: expires_at.unwrap_or(0), level, persisted }
    }

    /// The head of an entry after a touch: the value stays persisted if it was before.
    pub(super) fn retimed(self, seq: Seq, level: Level, expires_at: Millis) -> Self {
        let persisted = self.persisted;
        let level = if persisted { level.max(Level::Queued) } else { Level::Memory };
        Self { seq, expires_at, level, persisted }
    }

    /// The same for a decoded touch.
    pub(super) fn touched(self, change: &Change<'_>) -> Self {
        self.retimed(change.seq, change.level, change.expires_at.unwrap_or(0))
    }
}

impl Store {
    /// Makes room for `keys` keys.
    pub fn reserve(&mut self, keys: usize) {
        self.map.reserve(keys);
    }

    /// Adds an entry read from the tables.
    pub fn load(&mut self, row: &Change<'_>) {
        self.seq = self.seq.max(row.seq);
        self.map.load(row.key, Head { persisted: true, ..Head::of(row) }, row.value);
    }

    /// Applies a change read from the log. Replaying a change twice, or one that the tables already
    /// hold, leaves the state as it was.
    pub fn replay(&mut self, change: &Change<'_>) {
        self.seq = self.seq.max(change.seq);
        match change.op {
            Op::Set => {
                self.map.insert(change.key, Head::of(change), change.value);
            }
            // Older versions stored the value with a touch.
            Op::Touch if !change.value.is_empty() => {
                self.map.insert(change.key, Head::of(change), change.value);
            }
            // Where the key does not exist, its value was of level `memory`, or a later change
            // removed it and the tables reflect that change already.
            Op::Touch => {
                let key = self.map.hasher().of(change.key);
                if let Some(entry) = self.map.get(key) {
                    let head = entry.head.touched(change);
                    self.map.set_head(key, head, |_| {});
                }
            }
            Op::Delete | Op::Expire => {
                self.map.remove(change.key);
            }
        }
    }

    /// Continues from `seq`, so that no seq is assigned twice.
    pub fn resume_at(&mut self, seq: Seq) {
        self.seq = self.seq.max(seq);
    }

    /// Every entry, in the order of the keys.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], Entry<'_>)> {
        self.map.range(std::ops::Bound::Unbounded, std::ops::Bound::Unbounded)
    }
}
