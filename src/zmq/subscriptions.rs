//! What one subscriber wants: a bounded set of key prefixes.

use crate::limits::Limits;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Most bytes of all prefixes of one subscriber together.
const PREFIX_BYTES_MAX: usize = 1 << 20;

/// A set of prefixes. The same prefix may be there several times, and goes when each is cancelled.
#[derive(Debug)]
pub struct Subscriptions {
    prefixes: BTreeMap<Box<[u8]>, u32>,
    bytes: usize,
    count_max: usize,
}

impl Subscriptions {
    /// No prefix yet.
    pub fn new(limits: &Limits) -> Self {
        Self { prefixes: BTreeMap::new(), bytes: 0, count_max: limits.max_subscriptions }
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// How many bytes the prefixes have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a prefix; false when that is too much.
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
        self.prefixes.insert(prefix.into(), 1);
        true
    }

    /// Cancels a prefix once; one that is not there is none to cancel.
    pub fn remove(&mut self, prefix: &[u8]) {
        let Some(times) = self.prefixes.get_mut(prefix) else { return };
        *times -= 1;
        if *times == 0 {
            self.prefixes.remove(prefix);
            self.bytes -= prefix.len();
        }
    }

    /// Whether `topic` begins with one of the prefixes.
    pub fn matches(&self, mut topic: &[u8]) -> bool {
        // Every prefix of the topic that is in the set is also a prefix of whatever lies between
        // the two in order. So look at the nearest below, and if it is none, go on with what both
        // have in common.
        loop {
            let below = (Bound::Unbounded, Bound::Included(topic));
            let Some((nearest, _)) = self.prefixes.range::<[u8], _>(below).next_back() else {
                return false;
            };
            if topic.starts_with(nearest) {
                return true;
            }
            let common = topic.iter().zip(nearest.iter()).take_while(|(a, b)| a == b).count();
            topic = topic.get(..common).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> Subscriptions {
        Subscriptions::new(&Limits { max_subscriptions: 500, ..Limits::default() })
    }

    #[test]
    fn matching_agrees_with_asking_every_prefix() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut word = move || -> Vec<u8> {
            (0..random.usize(..7)).map(|_| b"ab\xFF"[random.usize(..3)]).collect()
        };
        for round in 0..300 {
            let mut set = none();
            let prefixes: Vec<_> = (0..round % 12).map(|_| word()).collect();
            for prefix in &prefixes {
                assert!(set.add(prefix));
            }
            for _ in 0..100 {
                let topic = word();
                let wanted = prefixes.iter().any(|prefix| topic.starts_with(prefix));
                assert_eq!(set.matches(&topic), wanted, "{topic:?} in {prefixes:?}");
            }
        }
    }

    #[test]
    fn a_prefix_asked_for_twice_stays_until_cancelled_twice() {
        let mut set = none();
        assert!(set.add(b"a") && set.add(b"a"));
        set.remove(b"a");
        set.remove(b"never there");
        assert!(set.matches(b"abc"));
        set.remove(b"a");
        assert!(!set.matches(b"abc") && set.is_empty() && set.bytes() == 0);
    }

    #[test]
    fn there_is_a_bound_on_count_and_bytes() {
        let mut set = none();
        assert!((0..500u32).all(|n| set.add(&n.to_be_bytes())));
        assert!(!set.add(b"one more") && set.add(&7u32.to_be_bytes()));
        let mut set = none();
        assert!(set.add(&vec![1; PREFIX_BYTES_MAX]) && !set.add(b"x"));
    }
}
