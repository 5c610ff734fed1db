//! The replies of one call of [`Engine::execute`](super::Engine::execute): encoded, each with its
//! barrier.

use super::{Caller, DeferredReply, Engine};
use crate::budget::{Cost, WorkBudget};
use crate::net::turns::LIGHT_BYTES;
use crate::protocol::refusal::Code;
use crate::protocol::{DurabilityBarrier, Refusal, Reply, ReplyBuffer, Seq, response};
use crate::wal::watermarks::BarrierStatus;
use std::ops::Range;
use std::sync::Arc;
use tokio::time::Instant;

/// What the buffer for replies keeps of its allocation.
const KEPT_BYTES: usize = 256 * 1024;

/// The replies to some requests, in the order of the requests.
#[derive(Debug)]
pub struct Answers {
    /// The encoded responses, one after the other.
    pub replies: ReplyBuffer,
    /// Where each is, and what it waits for.
    pub list: Vec<Answer>,
    /// No further request is executed when the responses have so many bytes.
    pub bytes_max: usize,
    /// A request whose own response would have more is left for later, if that changes nothing.
    pub reply_bytes_max: usize,
    /// The next request was left for that reason.
    pub lacks_memory: bool,
    /// How long its response is, where that is known.
    pub lacking_bytes: usize,
    /// What may be done in this turn. No request is begun that would be over it, as far as that is
    /// known before.
    pub budget: WorkBudget,
    /// One request of whatever cost may be executed.
    pub is_heavy: bool,
    /// The next request is left for a turn in which that is so.
    pub needs_heavy: bool,
    /// The next request is left for another turn.
    pub is_out_of_turn: bool,
    /// Nor when so many of them wait for what may take long: for a `wait`, or a `changes`.
    pub waiting_max: usize,
    /// How many do.
    pub(super) waiting: usize,
    /// What was written up to this seq is to be appended by whoever wrote, with
    /// [`Engine::append`]; 0 for nothing.
    pub to_append: Seq,
    /// The next request waits for room in the queue.
    pub is_blocked: bool,
    /// Whose requests these are; `None` for nobody's connection.
    pub caller: Option<Arc<Caller>>,
    /// One of the replies is made later.
    pub(super) has_later: bool,
    /// Of the keys of the requests; only its allocation is kept.
    pub(super) hashes: Vec<Option<u64>>,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            replies: ReplyBuffer::default(),
            list: Vec::new(),
            bytes_max: usize::MAX,
            reply_bytes_max: usize::MAX,
            lacks_memory: false,
            lacking_bytes: 0,
            budget: WorkBudget::default(),
            is_heavy: true,
            needs_heavy: false,
            is_out_of_turn: false,
            waiting_max: usize::MAX,
            waiting: 0,
            to_append: 0,
            is_blocked: false,
            caller: None,
            has_later: false,
            hashes: Vec::new(),
        }
    }
}

impl Answers {
    /// Whether no further request is executed before these are sent.
    pub fn is_full(&self) -> bool {
        self.replies.len() >= self.bytes_max || self.waiting >= self.waiting_max
    }

    /// The longest reply that is made now.
    pub(super) fn reply_limit(&self) -> usize {
        if self.is_heavy { self.reply_bytes_max } else { self.reply_bytes_max.min(LIGHT_BYTES) }
    }

    /// The next request's reply is longer than that.
    pub(super) fn leave_long_reply(&mut self) {
        let is_light = !self.is_heavy && LIGHT_BYTES < self.reply_bytes_max;
        self.needs_heavy |= is_light;
        self.lacks_memory |= !is_light;
    }

    /// Whether a request that is known to cost so much is begun in this turn.
    #[inline]
    pub(super) fn admits(&mut self, cost: Cost) -> bool {
        if self.is_heavy || self.budget.has_room(cost) {
            return true;
        }
        match cost.fits(self.budget.max()) {
            true => self.is_out_of_turn = true,
            false => self.needs_heavy = true,
        }
        false
    }

    /// Forgets all, and keeps the room.
    pub fn clear(&mut self) {
        self.replies.clear(KEPT_BYTES);
        self.list.clear();
        (self.waiting, self.to_append, self.lacking_bytes) = (0, 0, 0);
        (self.is_blocked, self.has_later, self.lacks_memory) = (false, false, false);
        (self.needs_heavy, self.is_out_of_turn) = (false, false);
    }
}

/// One reply.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The id of its request.
    pub id: Option<u64>,
    /// Where it is in [`Answers::replies`]; empty for one that is encoded when it is due.
    pub range: Range<usize>,
    /// What it waits for.
    pub barrier: DurabilityBarrier,
    /// How it is sent.
    pub kind: Kind,
}

/// How a reply is sent.
#[derive(Debug, Clone)]
pub enum Kind {
    /// As it was encoded, when its barrier opens.
    Ready,
    /// Encoded when its barrier opens: the status line.
    Flush,
    /// `true` when its barrier opens, `false` when the time is up first; may be sent out of order.
    Wait {
        /// When the time is up.
        until: Option<Instant>,
    },
    /// Made elsewhere, sent when it is there; may be sent out of order.
    Later(Arc<DeferredReply>),
}

impl Kind {
    /// Whether the reply is its encoded bytes.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }

    /// Whether the reply may be sent before earlier ones.
    pub fn may_overtake(&self) -> bool {
        matches!(self, Self::Wait { .. } | Self::Later(_))
    }

    /// When the reply is due though its barrier has not opened.
    pub fn until(&self) -> Option<Instant> {
        match self {
            Self::Wait { until } => *until,
            Self::Later(later) => later.until(),
            _ => None,
        }
    }
}

impl Engine {
    /// Appends the response of an answer that is due, where it is not its encoded bytes: a deferred
    /// result, or the error for a barrier that will never open.
    ///
    /// Returns whether anything was appended; if not, the answer's own bytes are the response.
    pub fn complete(&self, answer: &Answer, release: BarrierStatus, out: &mut Vec<u8>) -> bool {
        match (release, &answer.kind) {
            (_, Kind::Later(later)) => {
                match later.result() {
                    Some(Ok(result)) => {
                        response::success(out, answer.id, &Reply::Value(result[..].into()));
                    }
                    Some(Err(refusal)) => response::refusal(out, answer.id, refusal),
                    None => response::refusal(out, answer.id, &stopping()),
                }
                true
            }
            (BarrierStatus::Failed, _) => {
                response::refusal(out, answer.id, &self.storage_refusal());
                true
            }
            (_, Kind::Ready) => false,
            (_, Kind::Flush) => {
                let mut line = Vec::new();
                crate::protocol::writer::str(&mut line, &self.status_line());
                response::success(out, answer.id, &Reply::Encoded(line));
                true
            }
            (BarrierStatus::Waiting, Kind::Wait { .. }) if self.is_in_vain(answer.barrier) => {
                response::refusal(out, answer.id, &stopping());
                true
            }
            (_, Kind::Wait { .. }) => {
                response::success(out, answer.id, &Reply::Bool(release == BarrierStatus::Ready));
                true
            }
        }
    }

    /// What has become of an answer.
    pub fn look(&self, answer: &Answer) -> BarrierStatus {
        match &answer.kind {
            Kind::Later(later) if later.result().is_none() => BarrierStatus::Waiting,
            _ => self.barrier_status(answer.barrier),
        }
    }

    /// Whether nothing is left to wait for at `now`: only then may an answer be completed and sent,
    /// and one that is made later be made.
    pub fn is_due(&self, answer: &Answer, now: Instant) -> bool {
        match &answer.kind {
            Kind::Later(later) => later.is_due(now),
            Kind::Wait { until: Some(until) } if *until <= now => true,
            Kind::Wait { .. } if self.is_in_vain(answer.barrier) => true,
            _ => self.barrier_status(answer.barrier) != BarrierStatus::Waiting,
        }
    }

    /// Whether a barrier waits for a write that nobody has made, and the broker stops.
    fn is_in_vain(&self, barrier: DurabilityBarrier) -> bool {
        // Most have been made, and those the committer still takes care of.
        barrier.stored > self.watermarks.stored()
            && self.watermarks.is_stopping()
            && barrier.stored > self.core().store.seq()
    }

    /// `STORAGE`, with the system's words.
    pub(super) fn storage_refusal(&self) -> Refusal {
        let reason = self.watermarks.failure().unwrap_or_else(|| Arc::from("unknown"));
        Refusal::new(Code::Storage, format!("the disk failed, writes are refused: {reason}"))
    }
}

/// `STOPPING`.
pub(super) fn stopping() -> Refusal {
    Refusal::new(Code::Stopping, "the broker is stopping; connect again later")
}
