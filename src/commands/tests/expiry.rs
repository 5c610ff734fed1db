//! The barriers of replies that miss an expired value.

use crate::commands::options::Expiry;
use crate::commands::{Command, Get, GetMulti, Range, Set};
use crate::protocol::{ChangeBuffer, DurabilityBarrier, Level};
use crate::state::{Context, Store};

#[test]
fn a_reply_that_misses_an_expired_value_waits_as_if_it_showed_the_value() {
    let context = |now| Context::unbounded(now, Level::Synced);
    let mut store = Store::default();
    let mut changes = ChangeBuffer::default();
    let key = (&b"k"[..]).into();
    let set = Set {
        key,
        value: b"\x01",
        expiry: Some(Expiry::After(1)),
        condition: None,
        durability: None,
        return_value: false,
    };
    assert!(store.apply(&Command::Set(set), &context(1), &mut changes).outcome.is_ok());
    // Whether its entry was removed or not: many expire at once.
    let waits = DurabilityBarrier { synced: 1, ..DurabilityBarrier::OPEN };
    let get = Command::Get(Get { key: (&b"k"[..]).into(), meta: false });
    assert_eq!(store.query(&get, &context(9)).barrier, waits);
    let get_multi = Command::GetMulti(GetMulti { keys: vec![b"k"] });
    assert_eq!(store.query(&get_multi, &context(9)).barrier, waits);
    assert_eq!(store.query(&Command::Range(Range::default()), &context(9)).barrier, waits);
    assert_eq!(store.expire(&context(9), usize::MAX, &mut changes), 1);
    // By then the log holds the expiry, or a restart could begin before its time.
    let waits = DurabilityBarrier { stored: 2, ..waits };
    assert_eq!(store.query(&get, &context(9)).barrier, waits);
}
