//! `delete` and `delete_multi`.

use super::Store;
use super::write::Write;
use crate::wire::change::Op;
use crate::wire::command::{Delete, DeleteMulti};
use crate::wire::{Refusal, Reply};

impl Store {
    pub(super) fn delete(
        &mut self,
        delete: &Delete<'_>,
        write: &mut Write<'_>,
    ) -> Result<Reply<'static>, Refusal> {
        if let Some(condition) = delete.condition {
            self.check(&delete.key, condition, write)?;
        }
        let old = self.remove(&delete.key, write);
        Ok(match (old, delete.return_value) {
            (Some(value), true) => Reply::Removed(value.into()),
            (None, true) => Reply::Nil,
            (old, false) => Reply::Bool(old.is_some()),
        })
    }

    pub(super) fn delete_multi(
        &mut self,
        delete: &DeleteMulti<'_>,
        write: &mut Write<'_>,
    ) -> Reply<'static> {
        let existed = delete.keys.iter().filter(|key| self.remove(key, write).is_some()).count();
        Reply::Uint(existed as u64)
    }

    /// Removes a key; the reply tells of what was there, and so waits for it.
    fn remove(&mut self, key: &[u8], write: &mut Write<'_>) -> Option<Box<[u8]>> {
        if self.current(key, write).is_none() {
            write.gate.join(self.removals);
            return None;
        }
        let old = self.take(Op::Delete, key, write)?;
        write.gate.require(old.level, old.seq);
        Some(old.value)
    }
}
