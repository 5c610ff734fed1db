//! `delete` and `delete_multi`.

use super::joined::Joined;
use super::write::Write;
use super::{HashedKey, REPLY_LIMIT, Store};
use crate::wire::change::Op;
use crate::wire::command::{Delete, DeleteMulti};
use crate::wire::{Refusal, Reply};

impl Store {
    pub(super) fn delete(
        &mut self,
        delete: &Delete<'_>,
        write: &mut Write<'_>,
    ) -> Result<Reply<'static>, Refusal> {
        let key = self.hashed(&delete.key, write.hash);
        if let Some(condition) = delete.condition {
            self.check(key, condition, write)?;
        }
        let value = match delete.return_value {
            true => self.current(key, write).map(|entry| entry.kept()),
            false => None,
        };
        let reply_bytes = write.context.reply_bytes;
        if value.as_ref().is_some_and(|value| value.len() > reply_bytes) {
            return Err(Refusal::too_large(REPLY_LIMIT, reply_bytes));
        }
        let existed = self.remove(key, write);
        Ok(match (value, delete.return_value) {
            (Some(value), _) => Reply::Removed(value),
            (None, true) => Reply::Nil,
            (None, false) => Reply::Bool(existed),
        })
    }

    pub(super) fn delete_multi(
        &mut self,
        delete: &DeleteMulti<'_>,
        write: &mut Write<'_>,
    ) -> Reply<'static> {
        write.has_many();
        let mut joined = Joined::after(delete.prefix);
        let keys = delete.keys.iter();
        let existed =
            keys.filter(|key| self.remove(self.hashed(joined.with(key), None), write)).count();
        Reply::Uint(existed as u64)
    }

    /// Removes a key; the reply tells of what was there, and so waits for it.
    pub(super) fn remove(&mut self, key: HashedKey<'_>, write: &mut Write<'_>) -> bool {
        let old = match self.current(key, write) {
            Some(_) => self.take(Op::Delete, key, write),
            None => None,
        };
        match old {
            Some(old) => write.gate.require(old.level, old.seq),
            None => write.gate.join(self.removals),
        }
        old.is_some()
    }
}
