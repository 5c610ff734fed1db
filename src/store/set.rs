//! `set` and `set_multi`.

use super::joined::Joined;
use super::read::Sight;
use super::write::Write;
use super::{HashedKey, Store};
use crate::wire::change::Op;
use crate::wire::command::{Set, SetMulti};
use crate::wire::options::Condition;
use crate::wire::{Refusal, Reply};

impl Store {
    pub(super) fn set(
        &mut self,
        set: &Set<'_>,
        write: &mut Write<'_>,
    ) -> Result<Reply<'static>, Refusal> {
        let key = self.hashed(&set.key, write.hash);
        if let Some(condition) = set.condition {
            self.check(key, condition, write)?;
        }
        let expires_at = write.deadline(set.ttl_ms);
        self.put(Op::Set, key, set.value, expires_at, write);
        Ok(Reply::Uint(write.seq))
    }

    pub(super) fn set_multi(
        &mut self,
        set: &SetMulti<'_>,
        write: &mut Write<'_>,
    ) -> Reply<'static> {
        let expires_at = write.deadline(set.ttl_ms);
        write.has_many();
        let mut joined = Joined::after(set.prefix);
        for (key, value) in &set.pairs {
            let key = joined.with(key);
            self.put(Op::Set, self.hashed(key, None), value, expires_at, write);
        }
        Reply::Uint(if set.pairs.is_empty() { self.seq } else { write.seq })
    }

    /// Checks a condition; what it shows of the key, the reply waits for.
    pub(super) fn check(
        &self,
        key: HashedKey<'_>,
        condition: Condition,
        write: &mut Write<'_>,
    ) -> Result<(), Refusal> {
        let mut sight = Sight::default();
        let seq = self.look(key, write.now(), &mut sight).map(|entry| entry.head.seq);
        write.saw(&sight);
        let holds = match condition {
            Condition::Absent => seq.is_none(),
            Condition::Present => seq.is_some(),
            Condition::Seq(wanted) => seq == Some(wanted),
        };
        if holds { Ok(()) } else { Err(Refusal::conflict(seq)) }
    }
}
