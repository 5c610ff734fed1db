//! The one path: requests in order in, encoded replies out.

use super::answers::{Answer, Answers, Kind, stopping};
use super::asked::Asked;
use super::{BarrierStatus, Caller, Core, Engine};
use crate::budget::Cost;
use crate::commands::{
    Applied, ChangesQuery, Command, CommandCost, Deferred, Outcome as Ran, Request, Task, Wait,
};
use crate::net::PeerAddress;
use crate::net::turns::LIGHT_BYTES;
use crate::protocol::refusal::{Code, Detail};
use crate::protocol::reply_buffer::Sink;
use crate::protocol::{DurabilityBarrier, Refusal, Reply, WriteCost, response};
use crate::state::map::PAGES_BYTES_MAX;
use crate::state::{Context, REPLY_LIMIT, Store};

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Most keys that expire in one call, so that many at once do not stop everybody.
const EXPIRE_AT_ONCE: usize = 256;

/// What every request costs.
const REQUEST: Cost = Cost::new(1, 0);

/// With fewer requests than this, fetching the memory of their keys beforehand does not pay.
const WARM_FROM: usize = 4;

/// The request that a command came in, and where its answer goes.
type Rest<'r> = (&'r Request<'r>, &'r mut Answers);

/// What became of one request.
pub(super) enum Outcome {
    Answered(DurabilityBarrier, Kind),
    Refused(Refusal),
    /// It needs room in the write queue.
    Blocked,
    /// Its reply is longer than may be made now; nothing was changed.
    TooLong,
    /// Many keys have expired that are to be taken out first.
    NotYet,
}

impl Engine {
    /// Executes requests in their order; appends a response to `answers` for each that is not a
    /// notification. Returns how many were executed: fewer than were given means that `answers` are
    /// full, or have one reply that is made later and the next would be another, or that there is
    /// no memory for the next one's reply (see [`Answers::lacks_memory`]), or that the turn's
    /// budget is used up (see [`Answers::is_out_of_turn`] and [`Answers::needs_heavy`]), or else
    /// that the next one waits for room in the queue (see [`Answers::is_blocked`] and
    /// [`Engine::room`]). With `refuse_full` it is refused with `WRITE_QUEUE_FULL` instead.
    ///
    /// Afterwards see to [`Answers::to_append`]; what is forgotten waits for the committer's next
    /// look.
    pub fn execute(
        &self,
        requests: &[Request<'_>],
        refuse_full: bool,
        answers: &mut Answers,
    ) -> usize {
        let mut context = self.context();
        context.reply_bytes = context.reply_bytes.min(answers.reply_limit());
        if !answers.is_heavy {
            context.walk = Cost::new(answers.budget.max().entries, LIGHT_BYTES);
        }
        let copied_before = answers.replies.to_copy();
        // Before the lock is taken.
        let mut hashes = std::mem::take(&mut answers.hashes);
        hashes.clear();
        hashes.extend(requests.iter().map(|request| self.key_hash(request)));
        let executed = self.execute_hashed(requests, &hashes, &context, refuse_full, answers);
        answers.hashes = hashes;
        // The lock is left: short values are copied on their way to the peer.
        let copied = answers.replies.to_copy() - copied_before;
        answers.budget.charge(Cost::new(0, copied));
        executed
    }

    /// The hash of the key that a command names.
    fn key_hash(&self, request: &Request<'_>) -> Option<u64> {
        let key = request.command.as_ref().ok().and_then(Command::only_key)?;
        Some(self.hasher.hash(key))
    }

    fn execute_hashed(
        &self,
        requests: &[Request<'_>],
        hashes: &[Option<u64>],
        context: &Context,
        refuse_full: bool,
        answers: &mut Answers,
    ) -> usize {
        if requests.iter().all(is_read) {
            let core = self.core();
            // What has expired is taken out before anyone looks, and that is a write; where there
            // are none any more, it is only not shown.
            if !core.store.has_expired(context.now) || self.watermarks.has_failed() {
                if hashes.len() >= WARM_FROM {
                    prefetch(&core.store, hashes, false);
                }
                let core = &*core;
                return self.each(core, requests, hashes, answers, |core, task, cost, rest| {
                    let done = self.read_or_ask(core, task, cost, context, rest);
                    done.unwrap_or_else(|_| Outcome::Refused(stopping()))
                });
            }
        }
        self.warm_beforehand(hashes);
        let mut guard = self.core_mut();
        let core = &mut *guard;
        let mut is_expiring = false;
        if !self.watermarks.has_failed() {
            let expired = self.expire(core, context, EXPIRE_AT_ONCE);
            answers.budget.charge_beyond(Cost::new(expired, 0));
            is_expiring = expired == EXPIRE_AT_ONCE && core.store.has_expired(context.now);
        }
        let executed =
            self.each(&mut *core, requests, hashes, answers, |core, task, cost, rest| {
                // It would pass over all of them.
                if is_expiring && task.command.effects().walks {
                    return Outcome::NotYet;
                }
                self.write(core, task, cost, context, refuse_full, rest)
            });
        let dropped = core.store.take_dropped();
        let is_news = self.account_and_signal(core);
        let is_ours = core.is_for_anyone() && self.has_cores();
        if is_ours {
            answers.to_append = core.pending.last_seq();
        }
        let is_to_wake = is_news && !is_ours && std::mem::take(&mut core.is_committer_idle);
        drop(guard);
        drop(dropped);
        if is_to_wake {
            self.wake_committer();
        }
        executed
    }

    /// Takes out keys that have expired, `most` at the farthest and no more than seqs are promised
    /// for: the others are not shown, and go when there are. Returns how many.
    pub(super) fn expire(&self, core: &mut Core, context: &Context, most: usize) -> usize {
        let most = most.min(self.queue.spare_expiries(core.unreserved()));
        core.store.expire(context, most, &mut core.pending)
    }

    /// Has the memory of all keys fetched before the core is taken alone: those who write wait for
    /// memory at the same time then, and not for each other.
    fn warm_beforehand(&self, hashes: &[Option<u64>]) {
        if hashes.len() >= WARM_FROM
            && let Some(core) = self.core_soon()
        {
            prefetch(&core.store, hashes, true);
        }
    }

    /// Has `one` execute each command, and appends the responses; returns how many were executed.
    fn each<C: Deref<Target = Core>>(
        &self,
        mut core: C,
        requests: &[Request<'_>],
        hashes: &[Option<u64>],
        answers: &mut Answers,
        mut one: impl FnMut(&mut C, Task<'_>, CommandCost, Rest<'_>) -> Outcome,
    ) -> usize {
        let mut executed = 0;
        for (request, hash) in requests.iter().zip(hashes) {
            if answers.is_full() || answers.has_later && is_later(request) {
                break;
            }
            let cost = match &request.command {
                Ok(command) => command.cost(&core.store, *hash),
                Err(_) => CommandCost { work: REQUEST, ..CommandCost::default() },
            };
            if !answers.admits(cost.work) {
                break;
            }
            let (mark, start) = (answers.replies.mark(), answers.replies.len());
            let copied = answers.replies.copied();
            let outcome = match &request.command {
                // Nobody would see the reply, and nothing else comes of it.
                Ok(command) if request.notification && !command.effects().acts => {
                    answers.budget.charge(REQUEST);
                    executed += 1;
                    continue;
                }
                Ok(command) => {
                    one(&mut core, Task { command, hash: *hash }, cost, (request, answers))
                }
                Err(refusal) => Outcome::Refused(refusal.clone()),
            };
            let (barrier, kind) = match outcome {
                Outcome::Blocked => {
                    answers.is_blocked = true;
                    break;
                }
                Outcome::NotYet => {
                    answers.is_out_of_turn = true;
                    break;
                }
                Outcome::TooLong => {
                    answers.budget.charge(Cost::new(1, answers.replies.copied() - copied));
                    answers.replies.truncate(mark);
                    answers.leave_long_reply();
                    break;
                }
                Outcome::Answered(barrier, kind) => (barrier, kind),
                Outcome::Refused(refusal) => {
                    self.refuse(request, &refusal, answers);
                    (DurabilityBarrier::OPEN, Kind::Ready)
                }
            };
            executed += 1;
            answers.budget.charge(Cost::new(1, answers.replies.copied() - copied));
            if request.notification {
                answers.replies.truncate(mark);
            } else {
                let range = start..answers.replies.len();
                answers.list.push(Answer { id: request.id, range, barrier, kind });
            }
        }
        self.counters.commands.add(executed as u64);
        executed
    }

    /// Appends and counts an error reply; a notification's is only counted, its bytes are cut off.
    fn refuse(&self, request: &Request<'_>, refusal: &Refusal, answers: &mut Answers) {
        self.counters.refused_commands.up();
        if request.notification {
            self.counters.refused_notifications.up();
        }
        response::refusal(answers.replies.bytes(), request.id, refusal);
    }

    /// Executes one command that changes nothing; `Err` for one that waits.
    fn read_or_ask(
        &self,
        core: &Core,
        task: Task<'_>,
        cost: CommandCost,
        context: &Context,
        (request, answers): Rest<'_>,
    ) -> Result<Outcome, Deferred> {
        match task.command.ask(&Asked { engine: self, core }) {
            None => Ok(self.read(core, task, context, request, answers)),
            Some(Ok(Ran::Deferred(deferred))) => Err(deferred),
            Some(Err(refusal)) => Ok(Outcome::Refused(refusal)),
            Some(Ok(Ran::Reply(reply))) => {
                if matches!(reply, Reply::Encoded(_)) {
                    answers.budget.charge(cost.work);
                }
                response::success(&mut answers.replies, request.id, &reply);
                Ok(Outcome::Answered(DurabilityBarrier::OPEN, Kind::Ready))
            }
        }
    }

    /// Executes one command that only reads the map. Whoever wrote what it waits for has made the
    /// committer hurry.
    fn read(
        &self,
        core: &Core,
        task: Task<'_>,
        context: &Context,
        request: &Request<'_>,
        answers: &mut Answers,
    ) -> Outcome {
        let start = answers.replies.len();
        let applied = core.store.query(task, context);
        let barrier = self.answer(applied, context, request, answers).unwrap_or_default();
        let bytes = answers.replies.len() - start;
        let is_too_long = bytes > answers.reply_limit();
        let Some(barrier) = barrier.filter(|_| !is_too_long) else {
            answers.lacking_bytes = bytes;
            return Outcome::TooLong;
        };
        let is_ready = self.barrier_status(barrier) == BarrierStatus::Ready;
        let barrier = if is_ready { DurabilityBarrier::OPEN } else { barrier };
        Outcome::Answered(barrier, Kind::Ready)
    }

    /// Executes one command that may write.
    fn write(
        &self,
        core: &mut Core,
        task: Task<'_>,
        cost: CommandCost,
        context: &Context,
        refuse_full: bool,
        (request, answers): Rest<'_>,
    ) -> Outcome {
        if !task.command.effects().writes {
            let done = self.read_or_ask(core, task, cost, context, (request, answers));
            return done.unwrap_or_else(|deferred| self.defer(core, deferred, answers));
        }
        if let Some(outcome) = self.admit(core, task.command, cost.write, refuse_full) {
            return outcome;
        }
        let applied = core.store.apply(task, context, &mut core.pending);
        match self.answer(applied, context, request, answers) {
            Ok(Some(barrier)) => Outcome::Answered(self.hurry(core, barrier), Kind::Ready),
            Ok(None) => Outcome::TooLong,
            Err(deferred) => self.defer(core, deferred, answers),
        }
    }

    /// Appends the response; returns what it waits for. `None` where it was refused for no more
    /// than that there is little memory for responses at the moment. `Err` where it is made later.
    fn answer(
        &self,
        applied: Applied<'_>,
        context: &Context,
        request: &Request<'_>,
        answers: &mut Answers,
    ) -> Result<Option<DurabilityBarrier>, Deferred> {
        answers.budget.charge(applied.cost);
        match applied.outcome {
            Ok(Ran::Reply(reply)) => response::success(&mut answers.replies, request.id, &reply),
            Ok(Ran::Deferred(deferred)) => return Err(deferred),
            Err(refusal) => {
                let max = self.config.limits.max_message_bytes;
                let is_bounded = context.reply_bytes < max || context.walk != Cost::MAX;
                if is_bounded && refusal.is_over(REPLY_LIMIT) {
                    return Ok(None);
                }
                self.refuse(request, &refusal, answers);
            }
        }
        Ok(Some(applied.barrier))
    }

    /// Begins to wait.
    fn defer(&self, core: &mut Core, deferred: Deferred, answers: &mut Answers) -> Outcome {
        match deferred {
            Deferred::Flush => self.flush(core),
            Deferred::Wait(wait) => self.wait(core, wait, answers),
            Deferred::Changes(query) => self.later(core, query, answers),
        }
    }

    /// Makes the committer hurry where somebody waits. Returns what is left to wait for.
    fn hurry(&self, core: &mut Core, barrier: DurabilityBarrier) -> DurabilityBarrier {
        if self.barrier_status(barrier) == BarrierStatus::Ready {
            return DurabilityBarrier::OPEN;
        }
        core.is_urgent = true;
        core.wants_sync |= barrier.synced > 0;
        barrier
    }

    /// Whether a write of this cost may be applied now: `None` if so. Room is there before the
    /// map changes, or a refusal would leave memory ahead of the log.
    fn admit(
        &self,
        core: &Core,
        command: &Command<'_>,
        cost: WriteCost,
        refuse_full: bool,
    ) -> Option<Outcome> {
        if self.watermarks.has_failed() {
            return Some(Outcome::Refused(self.storage_refusal()));
        }
        if core.is_stopping {
            return Some(Outcome::Refused(stopping()));
        }
        let bytes_max = self.config.limits.write_bytes();
        if cost.is_over(bytes_max) {
            return Some(Outcome::Refused(Refusal::too_large("write_bytes", bytes_max)));
        }
        if command.effects().adds
            && let Some(refusal) =
                self.lacks_memory(core, cost).or_else(|| self.lacks_disk(command))
        {
            return Some(Outcome::Refused(refusal));
        }
        if self.queue.has_room(cost, core.unreserved()) {
            return None;
        }
        self.queue.want_flush(core.store.seq());
        if !refuse_full {
            return Some(Outcome::Blocked);
        }
        if self.watermarks.progress().is_stopping {
            return Some(Outcome::Refused(stopping()));
        }
        let (items, bytes) = self.queue.load();
        let waited = self.config.write_queue.wait_ms;
        let message = format!("the write queue had no room for {waited} ms; nothing was changed");
        let refusal = Refusal::new(Code::WriteQueueFull, message)
            .with("items", Detail::Number(items as u64))
            .with("bytes", Detail::Number(bytes as u64));
        Some(Outcome::Refused(refusal))
    }

    /// Why a write that adds something may not be applied, if the map may not grow by it.
    fn lacks_memory(&self, core: &Core, cost: WriteCost) -> Option<Refusal> {
        let max = self.max_data_bytes();
        if core.store.has_room(cost.bytes, max) {
            return None;
        }
        let message = format!(
            "the data would be over max_data_bytes ({max}); nothing was changed: delete keys, or \
             raise --max-data-bytes"
        );
        let refusal = Refusal::new(Code::TooLarge, message);
        let limit = Detail::Text("max_data_bytes".to_owned());
        Some(refusal.with("limit", limit).with("max", Detail::Number(max as u64)))
    }

    /// What `--max-data-bytes` says, or as much as the map can name.
    pub(super) fn max_data_bytes(&self) -> usize {
        self.config.limits.max_data_bytes.unwrap_or(usize::MAX).min(PAGES_BYTES_MAX)
    }

    fn flush(&self, core: &mut Core) -> Outcome {
        if !self.checkpoint_fits(core.store.row_bytes()) {
            return Outcome::Refused(self.disk_is_full());
        }
        let seq = core.last_written.max(core.pending.last_seq());
        let barrier = DurabilityBarrier { stored: seq, synced: seq, checkpointed: seq };
        self.queue.want_flush(seq);
        Outcome::Answered(self.hurry(core, barrier), Kind::Flush)
    }

    fn wait(&self, core: &mut Core, wait: Wait, answers: &mut Answers) -> Outcome {
        answers.waiting += 1;
        let mut barrier = DurabilityBarrier::OPEN;
        barrier.require(wait.level, wait.seq);
        if wait.seq > core.store.seq() {
            // Not written yet: being with the system implies every weaker level.
            barrier.stored = wait.seq;
        }
        let timeout = wait.timeout_ms.map(Duration::from_millis);
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Outcome::Answered(self.hurry(core, barrier), Kind::Wait { until })
    }

    fn later(&self, core: &Core, query: ChangesQuery, answers: &mut Answers) -> Outcome {
        let last = core.store.seq();
        if query.after > last {
            return Outcome::Refused(Refusal::other_history(last));
        }
        answers.waiting += 1;
        answers.has_later = true;
        let caller = answers.caller.get_or_insert_with(|| Caller::new(PeerAddress::Local));
        match self.begin_changes(query, caller) {
            Ok(later) => Outcome::Answered(DurabilityBarrier::OPEN, Kind::Later(Arc::new(later))),
            Err(refusal) => Outcome::Refused(refusal),
        }
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

/// Has the memory of all keys fetched together.
fn prefetch(store: &Store, hashes: &[Option<u64>], for_writes: bool) {
    store.prefetch(hashes.iter().copied().flatten(), for_writes);
}

fn is_later(request: &Request<'_>) -> bool {
    request.command.as_ref().is_ok_and(|command| command.effects().pages)
}

/// Whether a request only reads the map, or asks the broker.
fn is_read(request: &Request<'_>) -> bool {
    request.command.as_ref().map_or(true, |command| command.effects().is_shared())
}

impl Core {
    /// What is applied and has not taken its room in the queue yet.
    fn unreserved(&self) -> WriteCost {
        WriteCost {
            items: self.pending.items() - self.taken.items,
            bytes: self.pending.bytes().len() - self.taken.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::append_lock::tests::engine;
    use super::*;
    use crate::commands::options::Expiry;
    use crate::commands::{Count, Set};
    use crate::limits::QUEUE_ITEMS_MAX;
    use crate::protocol::Level;

    #[test]
    fn keys_expire_as_far_as_seqs_are_promised() {
        let (engine, _log) = engine(&Arc::default());
        let mut answers = Answers::default();
        let mut run = |command: Command<'_>| {
            let request = Request { id: Some(1), notification: false, command: Ok(command) };
            answers.clear();
            assert_eq!(engine.execute(&[request], true, &mut answers), 1);
            answers.replies.plain().and_then(|bytes| bytes.last().copied())
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
