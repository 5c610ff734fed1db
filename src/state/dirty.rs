//! The dirty entries: those whose rows in the tables are out of date.

use super::arena::{Handle, SLOT_UNITS_MIN};

const BITS: usize = u64::BITS as usize;
/// This many handles are also kept in a list, so that a few dirty ones among many keys are found
/// without a walk over all keys.
const LISTED_MAX: usize = 4096;

/// A set of handles: a bit for each offset where an entry can begin.
#[derive(Debug, Default)]
pub struct Dirty {
    words: Vec<u64>,
    /// The handles added since the list was last taken, as far as there is room; some may have been
    /// removed again.
    list: Vec<Handle>,
    is_list_full: bool,
}

/// The word and the bit of a handle. No two entries share a bit: no entry is smaller than the unit
/// that a bit stands for.
fn place(handle: Handle) -> (usize, u64) {
    let bit = handle as usize / SLOT_UNITS_MIN;
    (bit / BITS, 1 << (bit % BITS))
}

impl Dirty {
    /// Whether the set contains `handle`.
    pub fn has(&self, handle: Handle) -> bool {
        let (word, bit) = place(handle);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Reads the word of `handle`, to load it into the processor's caches.
    pub fn touch(&self, handle: Handle) -> u8 {
        self.words.get(place(handle).0).map_or(0, |word| *word as u8)
    }

    /// Adds `handle`.
    pub fn add(&mut self, handle: Handle) {
        let (number, bit) = place(handle);
        if number >= self.words.len() {
            self.words.resize(number + 1, 0);
        }
        let Some(word) = self.words.get_mut(number) else { return };
        if *word & bit != 0 {
            return;
        }
        *word |= bit;
        match self.list.len() < LISTED_MAX {
            true => self.list.push(handle),
            false => self.is_list_full = true,
        }
    }

    /// Removes `handle`; returns whether the set contained it.
    pub fn take(&mut self, handle: Handle) -> bool {
        let (number, bit) = place(handle);
        let Some(word) = self.words.get_mut(number) else { return false };
        let was_in = *word & bit != 0;
        *word &= !bit;
        was_in
    }

    /// Takes the handles added since the last call, or `None` if they are too many for a list. A
    /// handle may be in the list twice.
    pub fn take_list(&mut self) -> Option<Vec<Handle>> {
        let mut list = std::mem::take(&mut self.list);
        list.retain(|handle| self.has(*handle));
        let is_full = std::mem::take(&mut self.is_list_full);
        (!is_full).then_some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dirty_set_agrees_with_a_plain_set() {
        let mut random = fastrand::Rng::with_seed(5);
        let (mut dirty, mut model) = (Dirty::default(), std::collections::BTreeSet::new());
        for _ in 0..20_000 {
            let handle = random.u32(..5_000) * SLOT_UNITS_MIN as u32;
            if random.bool() {
                dirty.add(handle);
                model.insert(handle);
            } else {
                assert_eq!(dirty.take(handle), model.remove(&handle));
            }
            assert_eq!(dirty.has(handle), model.contains(&handle));
        }
        let all = (0..5_000).map(|number| number * SLOT_UNITS_MIN as u32);
        assert!(all.filter(|handle| dirty.has(*handle)).eq(model));
    }

    #[test]
    fn few_dirty_handles_are_listed_and_many_are_not() {
        let mut dirty = Dirty::default();
        (1..=10).for_each(|number| dirty.add(number * 100));
        dirty.take(300);
        let listed = dirty.take_list().unwrap();
        assert_eq!(listed, [100, 200, 400, 500, 600, 700, 800, 900, 1000]);
        dirty.add(100);
        assert_eq!(dirty.take_list(), Some(vec![]), "it was in all along");
        (0..=LISTED_MAX as u32).for_each(|number| dirty.add(20_000 + number * 10));
        assert_eq!(dirty.take_list(), None);
    }
}
