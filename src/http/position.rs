//! A position in the history of one store: a seq, and the store's id.

use super::refuse::Refused;
use crate::protocol::{Refusal, Seq};

/// How many digits a store's id has.
const ID_LEN: usize = 32;

/// The position that a client has seen: `SEQ`, or `STORE-SEQ` with the store's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    store: Option<String>,
    seq: Seq,
}

impl Position {
    /// Parses the argument or header called `name`.
    pub fn read(name: &str, text: &[u8]) -> Result<Self, Refusal> {
        let read = || {
            let text = std::str::from_utf8(text).ok()?;
            let (store, digits) = match text.split_once('-') {
                Some((store, digits)) => (Some(store), digits),
                None => (None, text),
            };
            let is_id = |id: &str| id.len() == ID_LEN && id.bytes().all(|b| b.is_ascii_hexdigit());
            let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
            if !store.is_none_or(is_id) || !is_number {
                return None;
            }
            Some(Self { store: store.map(str::to_ascii_lowercase), seq: digits.parse().ok()? })
        };
        read().ok_or_else(|| {
            let what = "must be a number from 0 to 2^64-1, or a store's id, a hyphen and such a \
                        number";
            Refusal::argument(name, what)
        })
    }

    /// The seq, if it is of this store, whose last seq is `last`.
    pub fn within(&self, store: &str, last: Seq) -> Result<Seq, Refused> {
        let is_ours = self.store.as_deref().is_none_or(|id| id == store) && self.seq <= last;
        if is_ours { Ok(self.seq) } else { Err(Refused::other_history(store, last)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: &str = "0123456789abcdef0123456789abcdef";

    fn within(text: &str) -> Option<Seq> {
        let position = Position::read("from", text.as_bytes()).expect("a position");
        position.within(STORE, 7).ok()
    }

    #[test]
    fn a_position_is_a_seq_with_its_store_or_without() {
        assert_eq!(within("7"), Some(7));
        assert_eq!(within(&format!("{STORE}-0")), Some(0));
        assert_eq!(within(&format!("{}-7", STORE.to_uppercase())), Some(7));
    }

    #[test]
    fn a_seq_that_this_store_never_reached_is_of_another_history() {
        assert_eq!(within("8"), None);
        assert_eq!(within(&format!("{STORE}-8")), None);
        assert_eq!(within(&format!("{}-7", STORE.replace('0', "1"))), None);
        assert_eq!(within("18446744073709551615"), None);
    }

    #[test]
    fn anything_else_is_refused() {
        let none = ["", "x", "-1", "+1", " 1", "1.5", "18446744073709551616", "abc-1", "-", "1-2"];
        for text in none {
            assert!(Position::read("from", text.as_bytes()).is_err(), "{text}");
        }
        assert!(Position::read("from", format!("{STORE}-").as_bytes()).is_err());
        assert!(Position::read("from", format!("{STORE}-x").as_bytes()).is_err());
        assert!(Position::read("from", b"\xFF").is_err());
    }
}
