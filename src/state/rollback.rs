//! Rollback after a failure of the disk: writes that never reached their level are undone, and
//! everything left may be shown.

use super::map::Entry;
use super::undo::{Replaced, Undo};
use super::write::Write;
use super::{Barriers, Store};
use crate::protocol::change::Op;
use crate::protocol::{Change, DurabilityBarrier};
use std::collections::BTreeMap;

impl Store {
    /// Takes the undo buffer of the writes since the last call, and continues with `empty`. The
    /// buffer belongs to the changes that these writes appended.
    pub fn take_undo(&mut self, empty: Undo) -> Undo {
        std::mem::replace(&mut self.undo, empty)
    }

    /// Restores every key whose newest change never reached its level to the value of the newest
    /// change that did. `changes` and `undo` are of the same writes: all those that were not
    /// committed. Returns how many keys were restored.
    ///
    /// No barrier is left afterwards, so no more writes may come.
    pub fn rollback<'a>(
        &mut self,
        changes: impl Iterator<Item = Change<'a>>,
        undo: &'a [Undo],
    ) -> usize {
        let mut lost = undo.iter().flat_map(Undo::replaced).peekable();
        let mut back: BTreeMap<&[u8], Option<Entry<'_>>> = BTreeMap::new();
        for change in changes {
            // All changes of a lost write are among these, in the same order.
            let is_this = |one: &Replaced<'_>| one.by == change.seq && one.key == change.key;
            if let Some(Replaced { key, old, .. }) = lost.next_if(is_this) {
                back.entry(key).or_insert(old);
                continue;
            }
            match change.op {
                Op::Set | Op::Delete => drop(back.remove(change.key)),
                // The touched value is lost, and the touch is not: the restored value gets the new
                // expiry, if a value was left to touch.
                Op::Touch => {
                    if let Some(old) = back.get_mut(change.key) {
                        let left = old.filter(|old| old.head.is_live(change.time_ms));
                        *old = left.map(|old| Entry { head: old.head.touched(&change), ..old });
                    }
                }
                // The expired value is lost, so its expiry did not remove the older value.
                Op::Expire => {}
            }
        }
        // Of a write that never finished.
        for Replaced { key, old, .. } in lost {
            back.entry(key).or_insert(old);
        }
        for (key, old) in &back {
            match old {
                Some(entry) => self.map.restore(key, *entry),
                None => self.map.remove(key),
            };
        }
        (self.removals, self.writes) = (DurabilityBarrier::OPEN, DurabilityBarrier::OPEN);
        back.len()
    }

    /// Restores everything that the open write has replaced, and the barriers from `before` the
    /// write.
    pub(crate) fn roll_back(&mut self, write: &mut Write<'_>, before: Barriers) {
        let undo = self.undo.take_open();
        let replaced: Vec<_> = undo.replaced().collect();
        for Replaced { key, old, .. } in &replaced {
            write.charge(1, key.len() + old.as_ref().map_or(0, Entry::copied_bytes));
        }
        for Replaced { key, old, .. } in replaced.into_iter().rev() {
            match old {
                Some(entry) => self.map.restore(key, entry),
                None => self.map.remove(key),
            };
        }
        (self.removals, self.writes) = (before.removals, before.writes);
        write.undo();
        // The error may reveal the effects of earlier writes; of this write nothing remains to wait
        // for.
        write.barrier = self.writes;
        write.barrier.join(self.removals);
    }
}
