//! A failure: what never reached its level is taken back, and everything left may be shown.

use super::Store;
use super::map::{Entry, Head};
use super::undo::{Replaced, Undo};
use crate::wire::change::Op;
use crate::wire::{Change, Gate};
use std::collections::BTreeMap;

impl Store {
    /// Hands out what the writes since the last time have replaced. It belongs to the changes that
    /// they appended.
    pub fn take_undo(&mut self) -> Undo {
        std::mem::take(&mut self.undo)
    }

    /// Puts every key back whose newest change never reached its level, to what the newest change
    /// that did left there. `changes` and `undo` are of the same writes, all those that may not
    /// have reached theirs. Returns how many keys were put back.
    ///
    /// Nothing that is left waits for anything, so no more writes may come.
    pub fn take_back<'a>(
        &mut self,
        changes: impl Iterator<Item = Change<'a>>,
        undo: &'a [Undo],
        is_open: impl Fn(Gate) -> bool,
    ) -> usize {
        let replaced = undo.iter().flat_map(Undo::replaced);
        let mut lost = replaced.filter(|replaced| !is_open(replaced.gate)).peekable();
        let mut back: BTreeMap<&[u8], Option<Entry<'_>>> = BTreeMap::new();
        for change in changes {
            // All changes of a lost write are among those, in the same order.
            let is_this = |one: &Replaced<'_>| one.seq == change.seq && one.key == change.key;
            if let Some(Replaced { key, old, .. }) = lost.next_if(is_this) {
                back.entry(key).or_insert(old);
                continue;
            }
            match change.op {
                Op::Set | Op::Delete => drop(back.remove(change.key)),
                // What was touched is lost, the new time to live is not: what is put back gets it,
                // if there was anything left to touch.
                Op::Touch => {
                    if let Some(old) = back.get_mut(change.key) {
                        let head = Head::of(&change);
                        let left = old.filter(|old| old.head.is_live(change.time_ms));
                        *old = left.map(|Entry { value, .. }| Entry { head, value });
                    }
                }
                // What expired is lost, and so it is not what took the older value away.
                Op::Expire => {}
            }
        }
        // Of a write that was never finished.
        for Replaced { key, old, .. } in lost {
            back.entry(key).or_insert(old);
        }
        for (key, old) in &back {
            match old {
                Some(Entry { head, value }) => self.map.insert(key, *head, value),
                None => self.map.remove(key),
            };
        }
        (self.removals, self.writes) = (Gate::OPEN, Gate::OPEN);
        back.len()
    }

    /// Puts everything back that the open write has replaced.
    pub(super) fn roll_back(&mut self) {
        let undo = self.undo.take_open();
        let replaced: Vec<_> = undo.replaced().collect();
        for Replaced { key, old, .. } in replaced.into_iter().rev() {
            match old {
                Some(Entry { head, value }) => self.map.insert(key, head, value),
                None => self.map.remove(key),
            };
        }
    }
}
