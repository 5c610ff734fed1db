//! Expiry: a change like any other, with its own seq.

use super::write::Write;
use super::{Context, Store};
use crate::clock::Millis;
use crate::protocol::change::Op;
use crate::protocol::{ChangeBuffer, DurabilityBarrier, Level};

impl Store {
    /// Removes at most `most` keys that have expired at the context's time, each with its own seq.
    /// Returns how many.
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
            self.undo.end(write.own != DurabilityBarrier::OPEN);
            if write.close() {
                self.seq += 1;
            }
            expired += 1;
        }
        expired
    }

    /// The time at which the next key expires.
    pub fn next_expiry(&self) -> Option<Millis> {
        self.map.first_expiry().map(|(time, _)| time)
    }
}
