//! A checkpoint: one pass, in key order, over the keys whose rows in the tables are out of date.
//!
//! A checkpoint takes a few keys at a time, and other writes run in between. Each key is written
//! with its value at the time when the pass reaches it: the value at the start, or a newer one. So
//! when the checkpoint ends, the tables hold every write up to its start, and for some keys a later
//! one. The log has that later write too, and replaying it changes nothing.

use super::Store;
use super::map::Entry;
use crate::protocol::change::{Op, SHARED_FROM};
use crate::protocol::{ChangeBuffer, Level};
use std::ops::Bound;

/// Keys that are visited, and written out, before other writers get their turn.
const LOOK_AT_ONCE: usize = 2048;
const WRITE_AT_ONCE: usize = 128;
/// The same limit in bytes written out; one key always fits.
const BYTES_AT_ONCE: usize = 64 * 1024;

/// One pass over a range of the keys.
#[derive(Debug)]
pub struct Checkpoint {
    /// The start of the remaining keys.
    start: Bound<Box<[u8]>>,
    /// The end of the range.
    end: Bound<Box<[u8]>>,
    /// Keys to write out besides those found by the pass, in descending order: the removed keys,
    /// and all keys where they are few.
    listed: Vec<Box<[u8]>>,
    /// Whether the map is still to be walked.
    walks: bool,
}

impl Checkpoint {
    /// Takes the next key of the list, if it comes before `key`.
    fn listed_before(&mut self, key: &[u8]) -> Option<Box<[u8]>> {
        self.listed.pop_if(|listed| **listed < *key)
    }
}

impl Store {
    /// Begins a checkpoint over all keys, in `parts` ranges of about as many keys each.
    pub fn begin_checkpoint(&mut self, parts: usize) -> Vec<Checkpoint> {
        let (mut listed, few) = self.map.take_unwritten();
        let walks = few.is_none();
        listed.extend(few.unwrap_or_default());
        listed.sort_unstable_by(|one, other| other.cmp(one));
        listed.dedup();
        let (mut checkpoints, mut end) = (Vec::with_capacity(parts), Bound::Unbounded);
        for part in (1..parts).rev() {
            let Some(key) = self.map.key_at(self.map.len() * part / parts) else { continue };
            let rest = listed.split_off(listed.partition_point(|other| **other >= *key));
            let start = Bound::Included(key.into());
            checkpoints.push(Checkpoint { start, end, listed, walks });
            (listed, end) = (rest, Bound::Excluded(key.into()));
        }
        checkpoints.push(Checkpoint { start: Bound::Unbounded, end, listed, walks });
        checkpoints
    }

    /// Appends the next keys of a checkpoint to `out` with their current values, in key order.
    /// Returns false at the end of the checkpoint.
    pub fn next_in_checkpoint(
        &mut self,
        checkpoint: &mut Checkpoint,
        out: &mut ChangeBuffer,
    ) -> bool {
        if checkpoint.walks { self.walk(checkpoint, out) } else { self.look_up(checkpoint, out) }
    }

    /// Handles the keys of the list alone.
    fn look_up(&mut self, checkpoint: &mut Checkpoint, out: &mut ChangeBuffer) -> bool {
        while !is_full(out) {
            let Some(key) = checkpoint.listed.pop() else { return false };
            append(&key, self.map.take_dirty(&key), out);
        }
        true
    }

    /// Walks the next part of the map, together with the keys of the list in between.
    fn walk(&mut self, checkpoint: &mut Checkpoint, out: &mut ChangeBuffer) -> bool {
        let bounds = (as_ref(&checkpoint.start), as_ref(&checkpoint.end));
        let (dirty, next) = self.map.dirty_between(bounds, LOOK_AT_ONCE, WRITE_AT_ONCE);
        for handle in dirty {
            while let Some(removed) = checkpoint.listed_before(self.map.at(handle).0) {
                // The key may exist again, and the previous checkpoint may have written it.
                append(&removed, self.map.take_dirty(&removed), out);
                if is_full(out) {
                    checkpoint.start = Bound::Excluded(removed);
                    return true;
                }
            }
            let (key, entry) = self.map.at(handle);
            checkpoint.listed.pop_if(|listed| **listed == *key);
            append(key, Some(entry), out);
            let is_full = is_full(out);
            if is_full {
                checkpoint.start = Bound::Excluded(key.into());
            }
            self.map.written(handle);
            if is_full {
                return true;
            }
        }
        match next {
            Some(key) => checkpoint.start = Bound::Included(key),
            None => checkpoint.walks = false,
        }
        true
    }
}

fn is_full(out: &ChangeBuffer) -> bool {
    out.items() >= WRITE_AT_ONCE || out.len() >= BYTES_AT_ONCE
}

/// Appends a key as the tables are to show it. They do not show a value that is not persisted.
fn append(key: &[u8], entry: Option<Entry<'_>>, out: &mut ChangeBuffer) {
    match entry.filter(|entry| entry.head.persisted) {
        Some(Entry { head, value, shared }) => {
            let mark = out.begin(head.seq, head.level, 0);
            let expires_at = (head.expires_at != 0).then_some(head.expires_at);
            match shared.filter(|value| value.len() >= SHARED_FROM) {
                Some(value) => out.push_shared(false, expires_at, key, value),
                None => out.push(Op::Set, false, expires_at, key, value),
            }
            out.end(mark);
        }
        None => {
            let mark = out.begin(0, Level::Queued, 0);
            out.push(Op::Delete, false, None, key, &[]);
            out.end(mark);
        }
    }
}

fn as_ref(bound: &Bound<Box<[u8]>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

#[cfg(test)]
mod tests {
    use super::super::map::Head;
    use super::*;
    use crate::protocol::change::ChangeReader;
    use std::collections::BTreeMap;

    type Table = BTreeMap<Vec<u8>, Vec<u8>>;

    fn head(seq: u64, level: Level) -> Head {
        Head { seq, expires_at: 0, level, persisted: level != Level::Memory }
    }

    /// Sets or removes a random key, at a random level.
    fn disturb(store: &mut Store, random: &mut fastrand::Rng, seq: u64, keys: u32) {
        let key = random.u32(..keys).to_be_bytes();
        let level = if random.u8(..4) == 0 { Level::Memory } else { Level::Stored };
        match random.u8(..3) {
            0 => {
                store.map.remove(&key);
            }
            _ => {
                let value = vec![seq as u8; random.usize(..300)];
                store.map.insert(&key, head(seq, level), &value);
            }
        }
    }

    /// Now and then sets a range of keys, and as often removes it.
    fn disturb_stretch(store: &mut Store, random: &mut fastrand::Rng, seq: u64, keys: u32) {
        let (kind, from) = (random.u8(..6), random.u32(..keys));
        for number in from..keys.min(from + random.u32(..keys / 4)) {
            let key = number.to_be_bytes();
            match kind {
                0 => drop(store.map.remove(&key)),
                1 => drop(store.map.insert(&key, head(seq, Level::Stored), &[seq as u8])),
                _ => return,
            }
        }
    }

    fn run(
        store: &mut Store,
        parts: usize,
        table: &mut Table,
        mut between: impl FnMut(&mut Store),
    ) {
        for mut checkpoint in store.begin_checkpoint(parts).into_iter().rev() {
            let mut last: Option<Vec<u8>> = None;
            loop {
                let mut out = ChangeBuffer::default();
                let goes_on = store.next_in_checkpoint(&mut checkpoint, &mut out);
                out.fill();
                for change in ChangeReader::new(out.bytes()).map(Result::unwrap) {
                    assert!(last.as_deref() < Some(change.key), "not in order");
                    last = Some(change.key.to_vec());
                    match change.op {
                        Op::Set => table.insert(change.key.to_vec(), change.value.to_vec()),
                        _ => table.remove(change.key),
                    };
                }
                if !goes_on {
                    break;
                }
                between(store);
            }
        }
    }

    fn persisted(store: &Store) -> Table {
        let entries = store.entries().filter(|(_, entry)| entry.head.persisted);
        entries.map(|(key, entry)| (key.to_vec(), entry.value.to_vec())).collect()
    }

    fn has_unwritten(store: &mut Store) -> bool {
        let everywhere = (Bound::Unbounded, Bound::Unbounded);
        let (dirty, _) = store.map.dirty_between(everywhere, usize::MAX, 1);
        let (removed, few) = store.map.take_unwritten();
        !dirty.is_empty() || !removed.is_empty() || few != Some(vec![])
    }

    /// A key that is deleted and set again before a checkpoint reaches it is written by that
    /// checkpoint, and is in the next one's list of removed keys.
    #[test]
    fn a_key_set_again_during_a_checkpoint_stays_dirty_for_the_next() {
        let (mut store, mut table) = (Store::default(), Table::default());
        let key = |number: u32| number.to_be_bytes();
        // Enough keys that a checkpoint walks the map.
        let set_all = |store: &mut Store, seq| {
            for number in (0..6_000).filter(|number| *number != 5_000 || seq == 1) {
                store.map.insert(&key(number), head(seq, Level::Stored), &[seq as u8]);
            }
        };
        set_all(&mut store, 1);
        let mut is_first = true;
        run(&mut store, 1, &mut table, |store| {
            if std::mem::take(&mut is_first) {
                store.map.remove(&key(5_000));
                store.map.insert(&key(5_000), head(2, Level::Stored), &[2]);
            }
        });
        assert!(table == persisted(&store));
        set_all(&mut store, 3);
        run(&mut store, 1, &mut table, |_| {});
        assert_eq!(table.get(&key(5_000)[..]), Some(&vec![2]));
        assert!(table == persisted(&store));
    }

    #[test]
    fn after_a_checkpoint_the_table_equals_the_map() {
        for seed in 0..6 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut store, mut table, mut seq) = (Store::default(), Table::default(), 0);
            let keys = [100, 3_000, 20_000][seed as usize % 3];
            for turn in 0..12 {
                for _ in 0..random.u32(..keys * 2) {
                    seq += 1;
                    disturb(&mut store, &mut random, seq, keys);
                }
                let parts = 1 + seed as usize % 3;
                if turn % 2 == 0 {
                    run(&mut store, parts, &mut table, |_| {});
                    assert!(table == persisted(&store), "seed {seed}, turn {turn}");
                    assert!(!has_unwritten(&mut store), "seed {seed}, turn {turn}");
                } else {
                    run(&mut store, parts, &mut table, |store| {
                        seq += 1;
                        disturb(store, &mut random, seq, keys);
                        disturb_stretch(store, &mut random, seq, keys);
                    });
                }
            }
            run(&mut store, 1, &mut table, |_| {});
            assert!(table == persisted(&store), "seed {seed}");
        }
    }
}
