//! The rollback of failed commands.

use crate::commands::options::Expiry;
use crate::commands::{Command, Incr, Set, SetMulti};
use crate::protocol::change::ChangeReader;
use crate::protocol::{ChangeBuffer, Level};
use crate::state::undo::Undo;
use crate::state::{Context, Store};

/// Applies one command at a time, before expired entries are removed.
fn apply(store: &mut Store, command: &Command<'_>, now: u64) -> ChangeBuffer {
    let context = Context::unbounded(now, Level::Synced);
    let mut changes = ChangeBuffer::default();
    store.apply(command, &context, &mut changes).outcome.unwrap();
    changes
}

#[test]
fn a_write_that_also_expires_entries_is_rolled_back_whole() {
    let mut store = Store::default();
    let key = (&b"n"[..]).into();
    let set = Set {
        key,
        value: b"\x07",
        expiry: Some(Expiry::After(10)),
        condition: None,
        durability: None,
        return_value: false,
    };
    apply(&mut store, &Command::Set(set), 100);
    drop(store.take_undo(Undo::default()));
    let durability = Some(Level::Memory);
    let incr =
        Incr { key: (&b"n"[..]).into(), delta: 1, initial: Some(1), expiry: None, durability };
    let changes = apply(&mut store, &Command::Incr(incr), 200);
    let undo = [store.take_undo(Undo::default())];
    let changes = ChangeReader::new(changes.bytes()).map(Result::unwrap);
    assert_eq!(store.rollback(changes, &undo), 1);
    assert_eq!(store.entries().next().unwrap().1.value, b"\x07");
}

#[test]
fn a_write_whose_reply_does_not_wait_keeps_no_old_values() {
    let mut store = Store::default();
    for (level, kept) in [(Level::Queued, 0), (Level::Memory, 0), (Level::Stored, 2)] {
        let pairs = vec![((&b"a"[..]).into(), &b"\x01"[..]), ((&b"b"[..]).into(), b"\x02")];
        let set = SetMulti { prefix: &[], pairs, expiry: None, durability: Some(level) };
        apply(&mut store, &Command::SetMulti(set), 1);
        assert_eq!(store.take_undo(Undo::default()).replaced().count(), kept, "{level}");
    }
}
