//! `touch`.

use super::Store;
use super::write::Write;
use crate::wire::Reply;
use crate::wire::change::Op;
use crate::wire::command::Touch;

impl Store {
    pub(super) fn touch(&mut self, touch: &Touch<'_>, write: &mut Write<'_>) -> Reply<'static> {
        let key = self.hashed(&touch.key, write.hash);
        let Some(entry) = self.current(key, write) else {
            write.gate.join(self.removals);
            return Reply::Bool(false);
        };
        // The value is written again with its new end, so that log and tables need no older record.
        let value = entry.value.to_vec();
        let (level, seq) = (entry.head.level, entry.head.seq);
        write.gate.require(level, seq);
        let expires_at = write.deadline(touch.ttl_ms);
        self.put(Op::Touch, key, &value, expires_at, write);
        Reply::Bool(true)
    }
}
