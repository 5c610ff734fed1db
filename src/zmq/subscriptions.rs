//! One subscriber's set of key prefixes, bounded.

use crate::limits::Limits;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most bytes of all prefixes of one subscriber together.
const PREFIX_BYTES_MAX: usize = 1 << 20;

/// Memory of a prefix besides its bytes: its entry in a leaf of the map that may be half full, its
/// entry in the list of the shortest that may be twice as long, its counts, and the allocator's
/// overhead.
const PREFIX_COST: usize = 2 * (size_of::<Prefix>() + size_of::<u32>())
    + 2 * size_of::<Prefix>()
    + 2 * size_of::<usize>()
    + ALLOCATION_COST;
/// The allocator's overhead for an allocation, its rounding included.
const ALLOCATION_COST: usize = 24;

type Prefix = Arc<[u8]>;

/// A set of prefixes. A prefix may be in it several times; it goes when each is cancelled.
#[derive(Debug)]
pub struct Subscriptions {
    prefixes: BTreeMap<Prefix, u32>,
    /// The prefixes that do not begin with another one, in order; built on demand.
    shortest: Option<Vec<Prefix>>,
    bytes: usize,
    count_max: usize,
}

impl Subscriptions {
    /// No prefix yet.
    pub fn new(limits: &Limits) -> Self {
        let (prefixes, shortest) = (BTreeMap::new(), None);
        Self { prefixes, shortest, bytes: 0, count_max: limits.max_subscriptions }
    }

    /// Whether there is no subscription.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// The memory that the prefixes take, in bytes.
    pub fn held(&self) -> usize {
        self.bytes + self.prefixes.len() * PREFIX_COST
    }

    /// Adds a prefix; false above a subscriber's limit.
    pub fn add(&mut self, prefix: &[u8]) -> bool {
        if let Some(times) = self.prefixes.get_mut(prefix) {
            *times = times.saturating_add(1);
            return true;
        }
        let bytes = self.bytes + prefix.len();
        if self.prefixes.len() >= self.count_max || bytes > PREFIX_BYTES_MAX {
            return false;
        }
        self.bytes = bytes;
        self.shortest = None;
        self.prefixes.insert(prefix.into(), 1);
        true
    }

    /// Cancels a prefix once; does nothing for an unknown one.
    pub fn remove(&mut self, prefix: &[u8]) {
        let Some(times) = self.prefixes.get_mut(prefix) else { return };
        *times -= 1;
        if *times == 0 {
            self.shortest = None;
            self.prefixes.remove(prefix);
            self.bytes -= prefix.len();
        }
    }

    /// Returns a matcher of topics, valid until the next change of the set.
    pub fn matcher(&mut self) -> Matcher<'_> {
        let Self { prefixes, shortest, .. } = self;
        Matcher(shortest.get_or_insert_with(|| {
            let mut shortest: Vec<Prefix> = Vec::new();
            for prefix in prefixes.keys() {
                // In this order, a prefix that begins with another one comes after it.
                if !shortest.last().is_some_and(|last| prefix.starts_with(last)) {
                    shortest.push(Arc::clone(prefix));
                }
            }
            shortest
        }))
    }
}

/// Prefixes in order, none of which begins with another one.
#[derive(Debug, Clone, Copy)]
pub struct Matcher<'s>(&'s [Prefix]);

impl Matcher<'_> {
    /// Whether `topic` begins with one of the prefixes.
    pub fn matches(&self, topic: &[u8]) -> bool {
        // All strings between a prefix of the topic and the topic begin with that prefix too. So if
        // there is one, it is the nearest below.
        let below = self.0.partition_point(|prefix| **prefix <= *topic);
        let nearest = below.checked_sub(1).and_then(|place| self.0.get(place));
        nearest.is_some_and(|prefix| topic.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> Subscriptions {
        Subscriptions::new(&Limits { max_subscriptions: 500, ..Limits::default() })
    }

    #[test]
    fn the_matcher_agrees_with_a_check_of_every_prefix() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut word = move || -> Vec<u8> {
            (0..random.usize(..7)).map(|_| b"ab\xFF"[random.usize(..3)]).collect()
        };
        for round in 0..300 {
            let mut set = none();
            let mut prefixes: Vec<_> = (0..round % 12).map(|_| word()).collect();
            for prefix in &prefixes {
                assert!(set.add(prefix));
                set.matcher();
            }
            let gone = word();
            if prefixes.contains(&gone) {
                // Cancels one of several subscriptions to the same prefix.
                set.remove(&gone);
                prefixes.remove(prefixes.iter().position(|prefix| *prefix == gone).unwrap());
            }
            for _ in 0..100 {
                let topic = word();
                let wanted = prefixes.iter().any(|prefix| topic.starts_with(prefix));
                assert_eq!(set.matcher().matches(&topic), wanted, "{topic:?} in {prefixes:?}");
            }
        }
    }

    #[test]
    fn a_prefix_added_twice_stays_until_cancelled_twice() {
        let mut set = none();
        assert!(set.add(b"a") && set.add(b"a"));
        set.remove(b"a");
        set.remove(b"never there");
        assert!(set.matcher().matches(b"abc"));
        set.remove(b"a");
        assert!(!set.matcher().matches(b"abc") && set.is_empty() && set.held() == 0);
    }

    #[test]
    fn the_count_and_bytes_of_prefixes_are_bounded() {
        let mut set = none();
        assert!((0..500u32).all(|n| set.add(&n.to_be_bytes())));
        assert!(!set.add(b"one more") && set.add(&7u32.to_be_bytes()));
        let mut set = none();
        assert!(set.add(&vec![1; PREFIX_BYTES_MAX]) && !set.add(b"x"));
    }
}
