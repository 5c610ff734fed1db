//! Large values of requests, copied before the engine's lock is taken.

use crate::protocol::Shared;
use crate::protocol::change::SHARED_FROM;

/// Copies of large values. Each is known by the address of the bytes that it was copied from, which
/// stay as they are while their request is executed. An address is compared, never read from.
#[derive(Debug, Default)]
pub struct Prepared(Vec<(usize, Shared)>);

impl Prepared {
    /// Copies a value, if it is large.
    pub fn copy(&mut self, value: &[u8]) {
        if value.len() >= SHARED_FROM {
            self.0.push((value.as_ptr().addr(), value.into()));
        }
    }

    /// The copy of a value; made now, if it was not made before.
    pub(super) fn take(&mut self, value: &[u8]) -> Shared {
        let address = value.as_ptr().addr();
        let is_of =
            |(place, copy): &(usize, Shared)| *place == address && copy.len() == value.len();
        match self.0.iter().position(is_of) {
            Some(at) => self.0.swap_remove(at).1,
            None => value.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_prepared_value_is_not_copied_again() {
        let (mut prepared, value) = (Prepared::default(), vec![7; SHARED_FROM]);
        let (short, other) = (&value[1..], vec![7; SHARED_FROM]);
        prepared.copy(&value);
        prepared.copy(short);
        assert_eq!(prepared.0.len(), 1, "a short value is copied where it goes");
        let copy = Arc::as_ptr(&prepared.0[0].1);
        assert!(!std::ptr::eq(Arc::as_ptr(&prepared.take(&other)), copy), "of other bytes");
        assert!(std::ptr::eq(Arc::as_ptr(&prepared.take(&value)), copy));
        assert_eq!(*prepared.take(&value), *value, "made anew when it is gone");
    }
}
