//! The replies of calls of the engine, in the one form in which all edges take them: encoded, each
//! with what it waits for.

use super::spans::CallTimes;
use super::{DeferredReply, Engine};
use crate::clock::Millis;
use crate::commands::Admission;
use crate::protocol::refusal::Code;
use crate::protocol::{DurabilityBarrier, Refusal, ReplyBuffer, response};
use crate::wal::watermarks::BarrierStatus;
use bytes::Bytes;
use std::ops::Range;
use tokio::time::Instant;

/// A request that may be executed, or why not; `None` where its decoding has said so.
pub(super) type Admitted = Result<Admission, Option<Refusal>>;

/// What the buffer for replies keeps of its allocation.
const KEPT_BYTES: usize = 256 * 1024;

/// The replies to some requests, in the order of the requests.
#[derive(Debug, Default)]
pub struct Replies {
    /// The encoded responses, one after the other.
    pub encoded: ReplyBuffer,
    /// Where each is, and what it waits for.
    pub list: Vec<PendingReply>,
    /// When the calls that they are of were where; an edge that measures begins it.
    pub times: CallTimes,
    /// The time of its begin, where the call goes on at once and needs no reading of its own.
    pub(super) now: Option<Millis>,
    /// Why requests were refused, for an edge that has its own words for that.
    refusals: Vec<Refusal>,
    /// One of the replies is a page that is made later.
    pub(super) has_page: bool,
    /// Only its allocation is kept.
    pub(super) admitted: Vec<Admitted>,
}

impl Replies {
    /// Forgets all, and keeps the room.
    pub fn clear(&mut self) {
        self.encoded.clear(KEPT_BYTES);
        self.list.clear();
        self.refusals.clear();
        self.has_page = false;
        self.times = CallTimes::default();
        self.now = None;
    }

    /// Appends an error reply; a notification's is cut off again by the engine.
    pub(super) fn refuse(&mut self, id: Option<u64>, refusal: Refusal) {
        response::refusal(self.encoded.bytes_mut(), id, &refusal);
        self.refusals.push(refusal);
    }

    /// The result of the only request: one MessagePack value, or why it was refused. To be taken
    /// when nothing is left to wait for.
    pub fn into_result(mut self, engine: &Engine) -> Result<Bytes, Refusal> {
        if let Some(refusal) = self.refusals.pop() {
            return Err(refusal);
        }
        let Some(reply) = self.list.pop() else { return Err(stopping()) };
        match &reply.state {
            ReplyState::Ready(barrier)
                if engine.barrier_status(*barrier) == BarrierStatus::Failed =>
            {
                Err(engine.storage_refusal())
            }
            ReplyState::Ready(_) => {
                Ok(self.encoded.into_bytes_from(reply.range.start + response::result_at(reply.id)))
            }
            ReplyState::Deferred(deferred) => deferred.result(engine),
        }
    }
}

/// One reply.
#[derive(Debug, Clone)]
pub struct PendingReply {
    /// The id of its request.
    pub id: Option<u64>,
    /// Where it is in [`Replies::encoded`]; empty for one that is deferred.
    pub range: Range<usize>,
    /// When it is sent.
    pub state: ReplyState,
}

/// When a reply is sent.
#[derive(Debug, Clone)]
pub enum ReplyState {
    /// As it was encoded, when its barrier opens.
    Ready(DurabilityBarrier),
    /// When what it waits for has come.
    Deferred(DeferredReply),
}

impl PendingReply {
    /// The reply, where it is deferred.
    #[inline]
    pub fn deferred(&self) -> Option<&DeferredReply> {
        match &self.state {
            ReplyState::Ready(_) => None,
            ReplyState::Deferred(deferred) => Some(deferred),
        }
    }

    /// How far the writes must come before it may be sent; `None` where its caller's signal tells.
    pub fn barrier(&self) -> Option<DurabilityBarrier> {
        match &self.state {
            ReplyState::Ready(barrier) => Some(*barrier),
            ReplyState::Deferred(deferred) => deferred.barrier(),
        }
    }

    /// Whether the reply may be sent before earlier ones.
    pub fn may_overtake(&self) -> bool {
        self.deferred().is_some_and(DeferredReply::may_overtake)
    }

    /// When the reply is due though its barrier has not opened.
    pub fn until(&self) -> Option<Instant> {
        self.deferred()?.until()
    }
}

impl Engine {
    /// Appends the response of a reply that is due, where it is not its encoded bytes: a deferred
    /// result, or the error for a barrier that will never open.
    ///
    /// Returns whether anything was appended; if not, the reply's own bytes are the response.
    pub fn complete(&self, reply: &PendingReply, out: &mut Vec<u8>) -> bool {
        match &reply.state {
            ReplyState::Ready(barrier) => {
                let has_failed = self.barrier_status(*barrier) == BarrierStatus::Failed;
                if has_failed {
                    response::refusal(out, reply.id, &self.storage_refusal());
                }
                has_failed
            }
            ReplyState::Deferred(deferred) => {
                match deferred.result(self) {
                    Ok(result) => response::encoded(out, reply.id, &result),
                    Err(refusal) => response::refusal(out, reply.id, &refusal),
                }
                true
            }
        }
    }

    /// Whether nothing is left to wait for at `now`: only then may a reply be completed and sent,
    /// and one that is made later be made.
    pub fn is_due(&self, reply: &PendingReply, now: Instant) -> bool {
        match &reply.state {
            ReplyState::Ready(barrier) => self.barrier_status(*barrier) != BarrierStatus::Waiting,
            ReplyState::Deferred(deferred) => deferred.is_due(self, now),
        }
    }

    /// Whether a barrier waits for a write that nobody has made, and the broker stops.
    pub(super) fn is_in_vain(&self, barrier: DurabilityBarrier) -> bool {
        // Most have been made, and those the committer still takes care of.
        barrier.stored > self.watermarks.stored()
            && self.watermarks.is_stopping()
            && barrier.stored > self.core().store.seq()
    }

    /// `STORAGE`, with the system's words.
    pub(super) fn storage_refusal(&self) -> Refusal {
        let reason =
            self.watermarks.failure().map_or_else(String::new, |reason| reason.to_string());
        Refusal::new(Code::Storage, format!("the disk failed, writes are refused: {reason}"))
    }
}

/// `STOPPING`.
pub(super) fn stopping() -> Refusal {
    Refusal::new(Code::Stopping, "the broker is stopping; connect again later")
}
