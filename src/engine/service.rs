//! The one path: requests in order in, encoded replies out.
//!
//! A call has two steps. [`Engine::admit`] looks at the requests without the lock; `run` executes
//! them under it, and does no I/O. What was written and can be appended by anyone is appended when
//! the thread has looked at its other connections (`append_soon`).

use super::admit::Batch;
use super::allowance::{Allowance, Progress};
use super::replies::{Admitted, Replies};
use super::{Core, Engine};
use crate::budget::Cost;
use crate::commands::Request;
use crate::net::Caller;
use crate::net::turns::LIGHT_BYTES;
use crate::protocol::Seq;
use crate::state::{Context, Prepared, Store};
use std::sync::Arc;

/// Most keys that expire in one call, so that many at once do not stop everybody.
const EXPIRE_AT_ONCE: usize = 256;

/// With fewer requests than this, fetching the memory of their keys beforehand does not pay.
const WARM_FROM: usize = 4;

/// A call while it is executed.
pub(super) struct Call<'c> {
    pub(super) caller: &'c Arc<Caller>,
    pub(super) context: Context,
    pub(super) allowance: &'c mut Allowance,
    pub(super) replies: &'c mut Replies,
    /// There is less room for a reply, or for a walk, than there can be.
    pub(super) is_bounded: bool,
}

impl Engine {
    /// Executes requests of `caller` in their order, as far as `allowance` allows; appends a reply
    /// to `replies` for each that is not a notification. What is done is taken off the allowance.
    pub fn call(
        &self,
        caller: &Arc<Caller>,
        requests: &[Request<'_>],
        allowance: &mut Allowance,
        replies: &mut Replies,
    ) -> Progress {
        let now = replies.now.take().unwrap_or_else(|| {
            let (now, called) = self.clock.now_and_since_boot();
            replies.times.call(called);
            now
        });
        let mut context = self.context(now);
        let reply_bytes_max = context.reply_bytes;
        context.reply_bytes = context.reply_bytes.min(allowance.reply_limit());
        if !allowance.is_heavy {
            context.walk = Cost::new(allowance.work.max().entries, LIGHT_BYTES);
        }
        let batch = self.admit(caller, requests, replies);
        let prepared = if allowance.is_heavy { prepare(requests) } else { Prepared::default() };
        let mut admitted = std::mem::take(&mut replies.admitted);
        let copied_before = replies.encoded.to_copy();
        let is_bounded = !allowance.is_heavy || context.reply_bytes < reply_bytes_max;
        let mut call = Call { caller, context, allowance, replies, is_bounded };
        let (progress, to_append) = self.run(requests, &mut admitted, (batch, prepared), &mut call);
        replies.admitted = admitted;
        replies.times.execute(self.clock.since_boot());
        // The lock is left: short values are copied on their way to the peer.
        let copied = replies.encoded.to_copy() - copied_before;
        allowance.work.charge(Cost::new(0, copied));
        if to_append > 0 {
            self.append_soon(to_append);
        }
        progress
    }

    /// Executes what was admitted, under the lock. Returns up to which seq writes are left to be
    /// appended by whoever wrote; 0 for none.
    fn run(
        &self,
        requests: &[Request<'_>],
        admitted: &mut [Admitted],
        (batch, prepared): (Batch, Prepared),
        call: &mut Call<'_>,
    ) -> (Progress, Seq) {
        let is_many = requests.len() >= WARM_FROM;
        if batch.is_shared {
            let core = self.core_timed(&mut call.replies.times.lock);
            // What has expired is taken out before anyone looks, and that is a write; where there
            // are none any more, it is only not shown.
            if !core.store.has_expired(call.context.now) || self.watermarks.has_failed() {
                if is_many {
                    prefetch(&core.store, admitted, false);
                }
                return (self.run_shared(&core, requests, admitted, call), 0);
            }
        }
        // Those who write wait for memory at the same time then, and not for each other.
        if is_many && let Some(core) = self.core_soon() {
            prefetch(&core.store, admitted, true);
        }
        let mut guard = self.core_mut_timed(&mut call.replies.times.lock);
        let core = &mut *guard;
        let mut is_expiring = false;
        if !self.watermarks.has_failed() {
            let expired = self.expire(core, &call.context, EXPIRE_AT_ONCE);
            call.allowance.work.charge_beyond(Cost::new(expired, 0));
            is_expiring = expired == EXPIRE_AT_ONCE && core.store.has_expired(call.context.now);
        }
        core.store.prepare(prepared);
        let progress = self.run_alone(core, requests, admitted, is_expiring, call);
        let unused = core.store.prepare(Prepared::default());
        let dropped = core.store.take_dropped();
        let is_news = self.account_and_signal(core);
        let is_ours = core.is_for_anyone() && self.has_cores();
        let to_append = if is_ours { core.pending.last_seq() } else { 0 };
        let is_to_wake = is_news && !is_ours && std::mem::take(&mut core.is_committer_idle);
        drop(guard);
        drop((dropped, unused));
        if is_to_wake {
            self.wake_committer();
        }
        (progress, to_append)
    }

    /// Takes out keys that have expired, `most` at the farthest and no more than seqs are promised
    /// for: the others are not shown, and go when there are. Returns how many.
    pub(super) fn expire(&self, core: &mut Core, context: &Context, most: usize) -> usize {
        let most = most.min(self.queue.spare_expiries(core.unreserved()));
        core.store.expire(context, most, &mut core.pending)
    }

    /// Takes room for what was applied. Returns whether the committer has something new to do.
    pub(super) fn account_and_signal(&self, core: &mut Core) -> bool {
        let new = core.unreserved();
        if new.items > 0 {
            core.last_written = core.pending.last_seq();
            core.taken = core.taken.plus(new);
            self.queue.take(new.items, new.bytes);
        }
        let is_first = core.taken == new && new.items > 0;
        let is_due = core.is_urgent && core.pending.items() >= core.enough_items;
        is_due || core.is_full() || is_first
    }
}

/// Copies the large values of requests, so that the lock is not held meanwhile.
fn prepare(requests: &[Request<'_>]) -> Prepared {
    let mut prepared = Prepared::default();
    for command in requests.iter().filter_map(|request| request.command.as_ref().ok()) {
        command.values(&mut |value| prepared.copy(value));
    }
    prepared
}

/// Has the memory of all keys fetched together.
fn prefetch(store: &Store, admitted: &[Admitted], for_writes: bool) {
    let hashes = admitted.iter().filter_map(|one| one.as_ref().ok()?.hash);
    store.prefetch(hashes, for_writes);
}

#[cfg(test)]
mod tests {
    use super::super::allowance::End;
    use super::super::append_lock::tests::engine;
    use super::*;
    use crate::commands::options::Expiry;
    use crate::commands::{Command, Count, Set};
    use crate::limits::QUEUE_ITEMS_MAX;
    use crate::protocol::Level;

    #[test]
    fn keys_expire_as_far_as_seqs_are_promised() {
        let (engine, _log) = engine(&Arc::default());
        let (caller, mut replies) = (Caller::local(), Replies::default());
        let mut run = |command: Command<'_>| {
            let request = Request { id: Some(1), notification: false, command: Ok(command) };
            replies.clear();
            let progress =
                engine.call(&caller, &[request], &mut Allowance::default(), &mut replies);
            assert_eq!(progress, Progress { done: 1, end: End::Done });
            replies.encoded.plain().and_then(|bytes| bytes.last().copied())
        };
        for key in [b"a", b"b", b"c", b"d", b"e"] {
            let (expiry, durability) = (Some(Expiry::After(1_000)), Some(Level::Queued));
            let set = Set {
                key: key[..].into(),
                value: b"\x01",
                expiry,
                condition: None,
                durability,
                return_value: false,
            };
            run(Command::Set(set));
        }
        engine.queue.take(QUEUE_ITEMS_MAX - 7, 0);
        engine.clock.advance_to(engine.clock.now() + 2_000);
        assert_eq!(run(Command::Count(Count { prefix: b"" })), Some(0), "none is shown");
        assert_eq!(engine.queue.load().0, QUEUE_ITEMS_MAX, "there were seqs for two");
        assert_eq!(engine.len(), 3, "three are to be taken out");
    }
}
