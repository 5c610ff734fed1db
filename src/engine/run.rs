//! The second step of a call: requests executed one after the other, under the lock. No I/O.

use super::allowance::{End, Progress};
use super::broker_view::BrokerView;
use super::deferred::levels::{AwaitedFlush, AwaitedLevel};
use super::replies::Admitted;
use super::replies::{PendingReply, ReplyState, stopping};
use super::service::Call;
use super::{BarrierStatus, Core, DeferredReply, Engine};
use crate::budget::Cost;
use crate::commands::{
    Admission, Answer, Answered, ChangesQuery, Command, Deferred, LevelWait, Outcome, Request,
};
use crate::protocol::refusal::{Code, Detail};
use crate::protocol::{DurabilityBarrier, Refusal, Reply, WriteCost, response};
use crate::state::map::PAGES_BYTES_MAX;
use crate::state::{REPLY_LIMIT, Store};
use std::ops::Deref;
use std::time::Duration;
use tokio::time::Instant;

/// What every request costs.
const REQUEST: Cost = Cost::new(1, 0);

/// What became of one request.
enum Ran {
    /// Its reply is encoded, or is made later.
    Done(ReplyState),
    Refused(Refusal),
    /// It was not executed, and nothing was changed.
    Left(End),
}

/// A request, and what was found out about it.
#[derive(Clone, Copy)]
struct Job<'r> {
    id: Option<u64>,
    command: &'r Command<'r>,
    admission: &'r Admission,
}

impl Engine {
    /// Executes requests that change nothing.
    pub(super) fn run_shared(
        &self,
        core: &Core,
        requests: &[Request<'_>],
        admitted: &mut [Admitted],
        call: &mut Call<'_>,
    ) -> Progress {
        self.each(core, requests, admitted, call, |core, job, call, cost| {
            match job.admission.is_for_broker {
                false => self.read(core, job, call, cost),
                true => {
                    self.ask(core, job, call, cost).unwrap_or_else(|_| Ran::Refused(stopping()))
                }
            }
        })
    }

    /// Executes requests of all kinds; those that walk only unless keys are expiring: they would
    /// pass over all of them.
    pub(super) fn run_alone(
        &self,
        core: &mut Core,
        requests: &[Request<'_>],
        admitted: &mut [Admitted],
        is_expiring: bool,
        call: &mut Call<'_>,
    ) -> Progress {
        self.each(core, requests, admitted, call, |core, job, call, cost| {
            let effects = &job.admission.effects;
            if is_expiring && effects.walks {
                return Ran::Left(End::OutOfTurn);
            }
            if effects.writes {
                return self.write(core, job, call, cost);
            }
            if !job.admission.is_for_broker {
                return self.read(core, job, call, cost);
            }
            let asked = self.ask(core, job, call, cost);
            asked.unwrap_or_else(|deferred| self.defer(core, deferred, call))
        })
    }

    /// Has `one` execute each request, which adds what it cost, and appends the replies.
    #[inline]
    fn each<C: Deref<Target = Core>>(
        &self,
        mut core: C,
        requests: &[Request<'_>],
        admitted: &mut [Admitted],
        call: &mut Call<'_>,
        mut one: impl FnMut(&mut C, Job<'_>, &mut Call<'_>, &mut Cost) -> Ran,
    ) -> Progress {
        let (mut done, mut end) = (0, End::Done);
        for (request, admitted) in requests.iter().zip(admitted) {
            if call.replies.encoded.len() >= call.allowance.bytes || call.allowance.deferred == 0 {
                end = End::Full;
                break;
            }
            let (mark, start) = (call.replies.encoded.mark(), call.replies.encoded.len());
            let copied = call.replies.encoded.copied();
            let mut cost = REQUEST;
            let ran = match (&request.command, admitted) {
                (Ok(command), Ok(admission)) => {
                    if let Some(why) = leaves(&core.store, command, admission, call) {
                        end = why;
                        break;
                    }
                    if request.notification && !admission.effects.acts {
                        // Nobody would see the reply, and nothing else comes of it.
                        call.allowance.work.charge(REQUEST);
                        done += 1;
                        continue;
                    }
                    one(&mut core, Job { id: request.id, command, admission }, call, &mut cost)
                }
                (command, admitted) => {
                    if let Some(why) = call.allowance.refuses(REQUEST) {
                        end = why;
                        break;
                    }
                    Ran::Refused(refused(command, admitted))
                }
            };
            let state = match ran {
                Ran::Done(state) => state,
                Ran::Refused(refusal) => {
                    self.refuse(request, refusal, call);
                    ReplyState::Ready(DurabilityBarrier::OPEN)
                }
                Ran::Left(why) => {
                    if matches!(why, End::NeedsMemory { .. } | End::NeedsHeavyTurn) {
                        cost.bytes += call.replies.encoded.copied() - copied;
                        call.allowance.work.charge(cost);
                        call.replies.encoded.truncate(mark);
                    }
                    end = why;
                    break;
                }
            };
            done += 1;
            cost.bytes += call.replies.encoded.copied() - copied;
            call.allowance.work.charge(cost);
            if request.notification {
                call.replies.encoded.truncate(mark);
            } else {
                let range = start..call.replies.encoded.len();
                call.replies.list.push(PendingReply { id: request.id, range, state });
            }
        }
        self.counters.commands.add(done as u64);
        Progress { done, end }
    }

    /// Appends and counts an error reply.
    #[cold]
    fn refuse(&self, request: &Request<'_>, refusal: Refusal, call: &mut Call<'_>) {
        self.counters.refused_commands.up();
        if request.notification {
            self.counters.refused_notifications.up();
        }
        call.replies.refuse(request.id, refusal);
    }

    /// Executes one command that asks the broker; `Err` for one that waits.
    fn ask(
        &self,
        core: &Core,
        job: Job<'_>,
        call: &mut Call<'_>,
        cost: &mut Cost,
    ) -> Result<Ran, Deferred> {
        let (engine, work) = (self, job.admission.cost.work);
        match job.command.ask(&BrokerView { engine, core }) {
            Some(Ok(Outcome::Deferred(deferred))) => Err(deferred),
            Some(Err(refusal)) => Ok(Ran::Refused(refusal)),
            Some(Ok(Outcome::Reply(reply))) => {
                if matches!(reply, Reply::Encoded(_)) {
                    *cost = cost.plus(work);
                }
                response::success(&mut call.replies.encoded, job.id, &reply);
                Ok(Ran::Done(ReplyState::Ready(DurabilityBarrier::OPEN)))
            }
            None => Ok(Ran::Refused(stopping())),
        }
    }

    /// Executes one command that only reads the map. Whoever wrote what it waits for has made the
    /// committer hurry.
    #[inline]
    fn read(&self, core: &Core, job: Job<'_>, call: &mut Call<'_>, cost: &mut Cost) -> Ran {
        let start = call.replies.encoded.len();
        let answer = Answer { id: job.id, out: &mut call.replies.encoded };
        let Answered { outcome, barrier, cost: spent } =
            job.command.query(&core.store, job.admission.hash, &call.context, |outcome| {
                answer.give(outcome)
            });
        *cost = cost.plus(spent);
        if let Err(refusal) = outcome {
            return refused_or_left(refusal, call);
        }
        let bytes = call.replies.encoded.len() - start;
        if bytes > call.allowance.reply_limit() {
            return Ran::Left(call.allowance.long_reply(bytes));
        }
        let is_ready = self.barrier_status(barrier) == BarrierStatus::Ready;
        Ran::Done(ReplyState::Ready(if is_ready { DurabilityBarrier::OPEN } else { barrier }))
    }

    /// Executes one command that may write.
    fn write(&self, core: &mut Core, job: Job<'_>, call: &mut Call<'_>, cost: &mut Cost) -> Ran {
        if let Some(left) = self.room_for(core, job, call.allowance.may_wait_for_room) {
            return left;
        }
        let answer = Answer { id: job.id, out: &mut call.replies.encoded };
        let (store, hash) = (&mut core.store, job.admission.hash);
        let Answered { outcome, barrier, cost: spent } =
            job.command.apply(store, hash, &call.context, &mut core.pending, |outcome| {
                answer.give(outcome)
            });
        *cost = cost.plus(spent);
        match outcome {
            Ok(None) => Ran::Done(ReplyState::Ready(self.hurry(core, barrier))),
            Ok(Some(deferred)) => self.defer(core, *deferred, call),
            Err(refusal) => refused_or_left(refusal, call),
        }
    }

    /// Begins to wait.
    fn defer(&self, core: &mut Core, deferred: Deferred, call: &mut Call<'_>) -> Ran {
        let begun = match deferred {
            Deferred::Flush => self.flush(core),
            Deferred::Wait(wait) => Ok(self.wait(core, wait)),
            Deferred::Changes(query) => self.changes_later(core, query, call),
        };
        match begun {
            Ok(reply) => {
                call.allowance.deferred -= usize::from(reply.may_overtake());
                call.replies.has_page |= reply.is_page();
                Ran::Done(ReplyState::Deferred(reply))
            }
            Err(refusal) => Ran::Refused(refusal),
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

    fn flush(&self, core: &mut Core) -> Result<DeferredReply, Refusal> {
        if !self.checkpoint_fits(core.store.row_bytes()) {
            return Err(self.disk_is_full());
        }
        let seq = core.last_written.max(core.pending.last_seq());
        let barrier = DurabilityBarrier { stored: seq, synced: seq, checkpointed: seq };
        self.queue.want_flush(seq);
        Ok(DeferredReply::new(AwaitedFlush { barrier: self.hurry(core, barrier) }))
    }

    fn wait(&self, core: &mut Core, wait: LevelWait) -> DeferredReply {
        let mut barrier = DurabilityBarrier::OPEN;
        barrier.require(wait.level, wait.seq);
        if wait.seq > core.store.seq() {
            // Not written yet: being with the system implies every weaker level.
            barrier.stored = wait.seq;
        }
        let timeout = wait.timeout_ms.map(Duration::from_millis);
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        DeferredReply::new(AwaitedLevel { barrier: self.hurry(core, barrier), until })
    }

    fn changes_later(
        &self,
        core: &Core,
        query: ChangesQuery,
        call: &Call<'_>,
    ) -> Result<DeferredReply, Refusal> {
        let last = core.store.seq();
        if query.after > last {
            return Err(Refusal::other_history(last));
        }
        self.begin_changes(query, call.caller).map(DeferredReply::new)
    }

    /// Whether a write of this cost may be applied now: `None` if so. Room is there before the
    /// map changes, or a refusal would leave memory ahead of the log.
    fn room_for(&self, core: &Core, job: Job<'_>, may_wait: bool) -> Option<Ran> {
        let cost = job.admission.cost.write;
        if self.watermarks.has_failed() {
            return Some(Ran::Refused(self.storage_refusal()));
        }
        if core.is_stopping {
            return Some(Ran::Refused(stopping()));
        }
        let bytes_max = self.config.limits.write_bytes();
        if cost.is_over(bytes_max) {
            return Some(Ran::Refused(Refusal::too_large("write_bytes", bytes_max)));
        }
        if job.admission.effects.adds
            && let Some(refusal) =
                self.lacks_memory(core, cost).or_else(|| self.lacks_disk(job.command))
        {
            return Some(Ran::Refused(refusal));
        }
        if self.queue.has_room(cost, core.unreserved()) {
            return None;
        }
        self.queue.want_flush(core.store.seq());
        Some(if may_wait {
            Ran::Left(End::WriteQueueFull)
        } else {
            Ran::Refused(self.queue_is_full())
        })
    }

    fn queue_is_full(&self) -> Refusal {
        if self.watermarks.progress().is_stopping {
            return stopping();
        }
        let (items, bytes) = self.queue.load();
        let waited = self.config.write_queue.wait_ms;
        let message = format!("the write queue had no room for {waited} ms; nothing was changed");
        Refusal::new(Code::WriteQueueFull, message)
            .with("items", Detail::Number(items as u64))
            .with("bytes", Detail::Number(bytes as u64))
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
}

/// What becomes of a request that was refused: it is left, where that was for no more than that
/// there is little memory for replies at the moment.
#[cold]
fn refused_or_left(refusal: Refusal, call: &Call<'_>) -> Ran {
    match call.is_bounded && refusal.is_over(REPLY_LIMIT) {
        true => Ran::Left(call.allowance.long_reply(0)),
        false => Ran::Refused(refusal),
    }
}

/// Why a request is left before it is begun, if it is.
#[inline]
fn leaves(
    store: &Store,
    command: &Command<'_>,
    admission: &mut Admission,
    call: &Call<'_>,
) -> Option<End> {
    if admission.effects.pages && call.replies.has_page {
        return Some(End::Full);
    }
    if admission.effects.measured {
        admission.cost = command.cost_on(store, admission.hash);
    }
    call.allowance.refuses(admission.cost.work)
}

/// Why a request was not admitted.
#[cold]
fn refused(command: &Result<Command<'_>, Refusal>, admitted: &mut Admitted) -> Refusal {
    let denied = admitted.as_mut().err().and_then(Option::take);
    denied.or_else(|| command.as_ref().err().cloned()).unwrap_or_else(stopping)
}

impl Core {
    /// What is applied and has not taken its room in the queue yet.
    pub(super) fn unreserved(&self) -> WriteCost {
        WriteCost {
            items: self.pending.items() - self.taken.items,
            bytes: self.pending.len() - self.taken.bytes,
        }
    }
}
