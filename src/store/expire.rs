//! Expiry: a change like others, with its own seq.

use super::write::Write;
use super::{Context, Store};
use crate::clock::Millis;
use crate::wire::change::Op;
use crate::wire::{ChangeBuffer, Gate, Level};

impl Store {
    /// Takes out keys that have expired at the context's time, `most` of them at the farthest, each
    /// with its own seq. Returns how many.
    pub fn expire(&mut self, context: &Context, most: usize, changes: &mut ChangeBuffer) -> usize {
        let mut expired = 0;
        while expired < most {
            let Some((time, key)) = self.map.first_expiry() else {
                break;
            };
            if time > context.now {
                break;
            }
            let key: Box<[u8]> = key.into();
            let hashed = self.hashed(&key, None);
            let is_persisted = self.map.get(hashed).is_some_and(|entry| entry.head.persisted);
            let level = if is_persisted { Level::Queued } else { Level::Memory };
            let mut write = Write::open(self.seq + 1, level, context, changes);
            self.take(Op::Expire, hashed, &mut write);
            self.undo.end(write.own != Gate::OPEN);
            if write.close() {
                self.seq += 1;
            }
            expired += 1;
        }
        expired
    }

    /// When the next key expires.
    pub fn next_expiry(&self) -> Option<Millis> {
        self.map.first_expiry().map(|(time, _)| time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Command;
    use crate::wire::command::{Get, GetMulti, Range, Set};

    #[test]
    fn who_misses_an_expired_value_waits_as_if_it_had_been_shown() {
        let context = |now| Context::unbounded(now, Level::Synced);
        let mut store = Store::default();
        let mut changes = ChangeBuffer::default();
        let key = (&b"k"[..]).into();
        let set = Set { key, value: b"\x01", ttl_ms: Some(1), condition: None, durability: None };
        assert!(store.apply(&Command::Set(set), &context(1), &mut changes).reply.is_ok());
        // Whether it has been taken out or not: many expire at once.
        let waits = Gate { synced: 1, ..Gate::OPEN };
        let get = Command::Get(Get { key: (&b"k"[..]).into(), meta: false });
        assert_eq!(store.query(&get, &context(9)).gate, waits);
        let get_multi = Command::GetMulti(GetMulti { keys: vec![b"k"] });
        assert_eq!(store.query(&get_multi, &context(9)).gate, waits);
        assert_eq!(store.query(&Command::Range(Range::default()), &context(9)).gate, waits);
        assert_eq!(store.expire(&context(9), usize::MAX, &mut changes), 1);
        // By then the log holds that its time was over, or a restart could begin before its end.
        let waits = Gate { stored: 2, ..waits };
        assert_eq!(store.query(&get, &context(9)).gate, waits);
    }
}
