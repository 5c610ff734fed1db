//! Replies waiting to be sent to one peer: in order of its requests, each held until it may be
//! seen.

use super::byte_queue::ByteQueue;
use super::late_reply::{Call, LateReply};
use super::send_buffer::SendBuffer;
use super::zmtp::{FRAME_HEAD_BYTES, write_frame, write_frame_head};
use crate::engine::spans::Timed;
use crate::engine::{BarrierStatus, DeferredReply, Engine, PendingReply, ReplyState};
use crate::limits::WAITING_EACH_MAX;
use crate::protocol::reply_buffer::{Piece, WRITTEN_IN_PLACE_BYTES};
use crate::protocol::{DurabilityBarrier, ReplyBuffer, Seq};
use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;
use tokio::time::Instant;

/// Unwritten bytes above which no further message may overtake others.
const DETACHED_UNWRITTEN_BYTES: usize = 1 << 20;

/// How the frames of some replies are placed in their message.
#[derive(Debug, Clone, Copy)]
pub struct Framing {
    /// The peer is a REQ, and these are the first replies of the message: an empty frame leads.
    pub has_delimiter: bool,
    /// These are the first replies of the message.
    pub begins: bool,
    /// These are the last replies of the message.
    pub ends: bool,
}

/// Replies that may not be sent yet.
#[derive(Debug, Default)]
pub struct ReplyQueue {
    /// The frames of all units in order, one after the other.
    held: ByteQueue,
    units: VecDeque<Unit>,
    /// The replies of all units in order; their ranges count from their unit's start.
    replies: VecDeque<PendingReply>,
    /// How many of them wait for an event that may take long.
    waiting: usize,
    /// Messages that are answered as soon as they are due, in any order.
    detached: Vec<Detached>,
    detached_bytes: usize,
    detached_replies: usize,
    detached_waiting: usize,
    /// A page is being made for one of them. Nothing may keep its message from being sent then.
    is_making: bool,
    /// The first unit's page is being made, or the unit is to be sent when nothing else is.
    is_first_next: bool,
    /// The first unit's page is being made.
    is_first_making: bool,
    /// One that is sent late.
    pub late: LateReply,
}

/// Replies of one message that are released together.
#[derive(Debug, Clone, Copy)]
struct Unit {
    barrier: DurabilityBarrier,
    framing: Framing,
    bytes: usize,
    replies: usize,
    /// Some reply has no bytes until it is released.
    is_deferred: bool,
    /// How many replies, from the first on, are known to be due.
    due: usize,
    /// How many replies wait for an event that may take long.
    waiting: usize,
    /// The reply that is a page made later; the engine executes no two such together.
    page: Option<usize>,
    /// The call that they are of.
    timed: Timed,
}

impl Unit {
    /// Whether all its `replies` are due. A reply that was due once is not checked again.
    fn is_due<'r>(
        &mut self,
        engine: &Engine,
        replies: impl Iterator<Item = &'r PendingReply>,
        now: Instant,
    ) -> bool {
        let rest = replies.take(self.replies).skip(self.due);
        self.due += rest.take_while(|reply| engine.is_due(reply, now)).count();
        self.due == self.replies
    }

    /// The page that is not made yet.
    fn unmade<'r>(
        &self,
        mut replies: impl Iterator<Item = &'r PendingReply>,
    ) -> Option<&'r DeferredReply> {
        replies.nth(self.page?)?.deferred().filter(|page| !page.is_made())
    }

    /// Whether the unit leaves its message unfinished, so that nothing else can be sent before its
    /// end.
    fn leaves_begun(&self) -> bool {
        self.framing.begins && !self.framing.ends
    }
}

/// A message with a `wait` in it.
#[derive(Debug)]
struct Detached {
    unit: Unit,
    frames: ByteQueue,
    replies: Vec<PendingReply>,
    /// The page of its reply is being made; then the message is sent.
    is_next: bool,
}

impl ReplyQueue {
    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && self.detached.is_empty()
    }

    /// How many replies are held.
    pub fn replies(&self) -> usize {
        self.replies.len() + self.detached_replies
    }

    /// The size of the held replies in bytes: the frames, and the state of each reply.
    pub fn bytes(&self) -> usize {
        self.held.len() + self.detached_bytes + self.replies() * size_of::<PendingReply>()
    }

    /// How many bytes are allocated; each page being made counts `page_bytes`.
    pub fn held(&self, page_bytes: usize) -> usize {
        let pages = usize::from(self.is_making) + usize::from(self.is_first_making);
        self.held.held()
            + self.units.capacity() * size_of::<Unit>()
            + self.replies.capacity() * size_of::<PendingReply>()
            + self.detached.capacity() * size_of::<Detached>()
            + self.detached_bytes
            + self.detached_replies * size_of::<PendingReply>()
            + pages * page_bytes
    }

    /// Frees the allocations that were kept for reuse.
    pub fn rest(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Whether it holds replies that wait for an event which the peer requested, and not for the
    /// disk.
    pub fn waits_for_long(&self) -> bool {
        self.waiting > 0 || !self.detached.is_empty()
    }

    /// How many replies wait for an event that may take long, and delay the replies after them.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// The barrier that the first reply waits for, if there is no other wait.
    pub fn barrier(&self) -> Option<DurabilityBarrier> {
        let first = self.units.front().filter(|unit| !unit.is_deferred)?;
        self.detached.is_empty().then_some(first.barrier)
    }

    /// How far commits have to come before anything may be due, apart from events that raise the
    /// caller's signal.
    pub fn next_step(&self, engine: &Engine, send_buffer: &SendBuffer) -> DurabilityBarrier {
        // Due replies that cannot be sent yet wait for something else.
        let first = self.units.front().filter(|_| !self.is_first_next).and_then(|unit| {
            let is_known = unit.is_deferred.then(|| self.replies.get(unit.due));
            is_known.map_or(Some(unit.barrier), |reply| reply.and_then(PendingReply::barrier))
        });
        let detached = self.detached.iter().filter(|_| may_overtake(send_buffer));
        let detached = detached.filter_map(|one| one.replies.get(one.unit.due)?.barrier());
        let watermarks = engine.watermarks();
        let nothing =
            DurabilityBarrier { stored: Seq::MAX, synced: Seq::MAX, checkpointed: Seq::MAX };
        detached.chain(first).fold(nothing, |step, barrier| {
            let next = watermarks.next_step(barrier);
            DurabilityBarrier {
                stored: step.stored.min(next.stored),
                synced: step.synced.min(next.synced),
                checkpointed: step.checkpointed.min(next.checkpointed),
            }
        })
    }

    /// When the next `wait` times out; `None` where its message could not be sent then.
    pub fn deadline(&self, send_buffer: &SendBuffer) -> Option<Instant> {
        // A message that is wholly due waits for its page, and the ones after it are not checked
        // yet.
        let unit = self.units.front().filter(|unit| unit.due < unit.replies);
        let first = unit.and_then(|unit| self.replies.get(unit.due)?.until());
        if !may_overtake(send_buffer) {
            return first;
        }
        let detached = self.detached.iter();
        let detached = detached.filter_map(|one| one.replies.get(one.unit.due)?.until());
        detached.chain(first).min()
    }

    /// Sends `replies`, encoded in `encoded`, or holds them until they may be seen.
    pub fn push(
        &mut self,
        engine: &Engine,
        send_buffer: &mut SendBuffer,
        encoded: &ReplyBuffer,
        replies: &[PendingReply],
        framing: Framing,
        call: Call<'_>,
    ) {
        let mut unit = Unit {
            barrier: DurabilityBarrier::OPEN,
            framing,
            bytes: 0,
            replies: replies.len(),
            is_deferred: false,
            due: 0,
            waiting: 0,
            page: None,
            timed: Timed::default(),
        };
        for (index, reply) in replies.iter().enumerate() {
            let deferred = match &reply.state {
                ReplyState::Ready(barrier) => {
                    unit.barrier.join(*barrier);
                    continue;
                }
                ReplyState::Deferred(deferred) => deferred,
            };
            unit.is_deferred = true;
            unit.waiting += usize::from(deferred.may_overtake());
            if deferred.is_page() {
                unit.page = Some(index);
            }
        }
        let is_ready =
            !unit.is_deferred && engine.barrier_status(unit.barrier) == BarrierStatus::Ready;
        let may_be_sent = is_ready && !(self.is_making && unit.leaves_begun());
        if self.units.is_empty() && may_be_sent {
            encode(send_buffer.queue(framing.ends), encoded, replies, framing, |_, _| {});
            self.late.pushed();
            let executed = call.times.executed();
            if engine.is_slow(call.times, executed) {
                self.late.follow(&call.timed(), unit.barrier, executed);
                self.late.queued(send_buffer);
            }
            return;
        }
        unit.timed = call.timed();
        let has_place = self.detached_waiting + unit.waiting <= WAITING_EACH_MAX;
        if framing.begins && framing.ends && unit.waiting > 0 && has_place {
            self.detach(unit, encoded, replies);
            return;
        }
        let start = self.held.len();
        encode(&mut self.held, encoded, replies, framing, |reply, range| {
            self.replies.push_back(PendingReply { range, ..reply.clone() });
        });
        unit.bytes = self.held.len() - start;
        self.waiting += unit.waiting;
        self.units.push_back(unit);
    }

    fn detach(&mut self, mut unit: Unit, encoded: &ReplyBuffer, replies: &[PendingReply]) {
        let (frames, replies_held) = (ByteQueue::default(), Vec::with_capacity(replies.len()));
        let mut one = Detached { unit, frames, replies: replies_held, is_next: false };
        encode(&mut one.frames, encoded, replies, unit.framing, |reply, range| {
            one.replies.push(PendingReply { range, ..reply.clone() });
        });
        unit.bytes = one.frames.len();
        one.unit = unit;
        self.detached_bytes += unit.bytes;
        self.detached_replies += unit.replies;
        self.detached_waiting += unit.waiting;
        self.detached.push(one);
    }

    /// Moves replies that may be seen to the send buffer. Pages are made only if `may_make` says
    /// that there is memory for one.
    pub fn release(
        &mut self,
        engine: &Engine,
        send_buffer: &mut SendBuffer,
        may_make: &mut dyn FnMut() -> bool,
    ) {
        self.release_units(engine, send_buffer, may_make);
        if self.is_making || !self.detached.is_empty() && may_overtake(send_buffer) {
            self.release_detached(engine, send_buffer, may_make);
        }
    }

    fn release_units(
        &mut self,
        engine: &Engine,
        send_buffer: &mut SendBuffer,
        may_make: &mut dyn FnMut() -> bool,
    ) {
        let mut released = 0;
        let mut is_whole = true;
        let mut now = None;
        while let Some(unit) = self.units.front_mut() {
            let release = engine.barrier_status(unit.barrier);
            let is_due = match unit.is_deferred {
                true => unit.is_due(engine, self.replies.iter(), Instant::now()),
                false => release != BarrierStatus::Waiting,
            };
            if !is_due {
                break;
            }
            if self.is_making && unit.leaves_begun() {
                self.is_first_next = true;
                break;
            }
            if let Some(page) = unit.unmade(self.replies.iter()) {
                if self.is_first_making || may_make() {
                    page.make();
                    (self.is_first_next, self.is_first_making) = (true, true);
                }
                break;
            }
            let unit = *unit;
            self.waiting -= unit.waiting;
            let now = *now.get_or_insert_with(|| engine.since_boot());
            // One that is deferred waits for what was asked for.
            if !unit.is_deferred && engine.is_slow(&unit.timed.times, now) {
                self.late.follow(&unit.timed, unit.barrier, now);
            }
            (self.is_first_next, self.is_first_making) = (false, false);
            if release == BarrierStatus::Ready && !unit.is_deferred {
                released += unit.bytes;
                is_whole = unit.framing.ends;
                self.replies.drain(..unit.replies);
            } else {
                self.send(released, is_whole, send_buffer);
                released = 0;
                let replies = self.replies.drain(..unit.replies);
                let out = send_buffer.queue(unit.framing.ends);
                rebuild(engine, out, &mut self.held, replies, unit.framing);
            }
            self.units.pop_front();
        }
        self.send(released, is_whole, send_buffer);
        self.late.queued(send_buffer);
    }

    /// Sends `released` bytes from the front unchanged.
    fn send(&mut self, released: usize, is_whole: bool, send_buffer: &mut SendBuffer) {
        if released > 0 {
            send_buffer.take_from(&mut self.held, released, is_whole);
        }
    }

    fn release_detached(
        &mut self,
        engine: &Engine,
        send_buffer: &mut SendBuffer,
        may_make: &mut dyn FnMut() -> bool,
    ) {
        let now = Instant::now();
        let has_room = Cell::new(has_room_for_more(send_buffer));
        let is_first_next = self.is_first_next;
        let is_making = &mut self.is_making;
        let is_due = |one: &mut Detached| {
            // A finished page is sent at once: other connections wait for its place.
            if !has_room.get() && !one.is_next || !one.unit.is_due(engine, one.replies.iter(), now)
            {
                return false;
            }
            let Some(page) = one.unit.unmade(one.replies.iter()) else {
                *is_making &= !one.is_next;
                return true;
            };
            // One page after the other, so that no connection takes all the memory.
            if !*is_making && !is_first_next && may_make() {
                (*is_making, one.is_next) = (true, true);
                page.make();
            }
            false
        };
        let mut due = self.detached.extract_if(.., is_due);
        while send_buffer.is_between_messages()
            && let Some(mut one) = due.next()
        {
            self.detached_bytes -= one.unit.bytes;
            self.detached_replies -= one.unit.replies;
            self.detached_waiting -= one.unit.waiting;
            let framing = one.unit.framing;
            rebuild(
                engine,
                send_buffer.queue(true),
                &mut one.frames,
                one.replies.into_iter(),
                framing,
            );
            has_room.set(has_room_for_more(send_buffer));
        }
    }
}

/// Whether a message may be sent out of order: not between the frames of another, and not while the
/// peer leaves many bytes unread, which stay where they are counted.
fn may_overtake(send_buffer: &SendBuffer) -> bool {
    send_buffer.is_between_messages() && has_room_for_more(send_buffer)
}

fn has_room_for_more(send_buffer: &SendBuffer) -> bool {
    send_buffer.unwritten() < DETACHED_UNWRITTEN_BYTES
}

/// The most bytes that the frames of `replies` take.
fn encoded_bytes(replies: &[PendingReply]) -> usize {
    let frames = replies.iter().map(|reply| FRAME_HEAD_BYTES + reply.range.len());
    frames.sum::<usize>() + FRAME_HEAD_BYTES
}

/// Appends the frames of `replies`; calls `placed` with each and the range of its frame's body.
fn encode(
    queue: &mut ByteQueue,
    encoded: &ReplyBuffer,
    replies: &[PendingReply],
    framing: Framing,
    mut placed: impl FnMut(&PendingReply, Range<usize>),
) {
    let Some(bytes) = encoded.plain() else {
        return encode_pieces(queue, encoded, replies, framing, placed);
    };
    let out = queue.end(encoded_bytes(replies));
    let start = out.len();
    // Reserved at once, since growing step by step would copy large replies several times.
    out.reserve(encoded_bytes(replies));
    if framing.has_delimiter {
        write_frame(out, true, &[]);
    }
    for (index, reply) in replies.iter().enumerate() {
        let more = !framing.ends || index + 1 < replies.len();
        let body = bytes.get(reply.range.clone()).unwrap_or_default();
        write_frame_head(out, more, body.len());
        let at = out.len() - start;
        out.extend_from_slice(body);
        placed(reply, at..at + body.len());
    }
}

/// The same for replies with large values in them, which are not copied.
fn encode_pieces(
    queue: &mut ByteQueue,
    encoded: &ReplyBuffer,
    replies: &[PendingReply],
    framing: Framing,
    mut placed: impl FnMut(&PendingReply, Range<usize>),
) {
    let start = queue.len();
    if framing.has_delimiter {
        write_frame(queue.end(FRAME_HEAD_BYTES), true, &[]);
    }
    for (index, reply) in replies.iter().enumerate() {
        let more = !framing.ends || index + 1 < replies.len();
        write_frame_head(queue.end(FRAME_HEAD_BYTES), more, reply.range.len());
        let at = queue.len() - start;
        for piece in encoded.pieces(reply.range.clone()) {
            match piece {
                Piece::Shared(value) if value.len() >= WRITTEN_IN_PLACE_BYTES => {
                    queue.share(value);
                }
                piece => queue.end(piece.bytes().len()).extend_from_slice(piece.bytes()),
            }
        }
        placed(reply, at..at + reply.range.len());
    }
}

/// Moves the frames of replies from `frames` to `out`. Some of them differ from the encoded ones:
/// made only now, or failed.
fn rebuild(
    engine: &Engine,
    out: &mut ByteQueue,
    frames: &mut ByteQueue,
    replies: impl ExactSizeIterator<Item = PendingReply>,
    framing: Framing,
) {
    let mut place = 0;
    if framing.has_delimiter {
        let mut delimiter = Vec::new();
        write_frame(&mut delimiter, true, &[]);
        place = delimiter.len();
        frames.move_to(place, out);
    }
    let count = replies.len();
    let mut made = Vec::new();
    for (index, reply) in replies.enumerate() {
        let more = !framing.ends || index + 1 < count;
        made.clear();
        let frame_bytes = reply.range.end - place;
        place = reply.range.end;
        if engine.complete(&reply, &mut made) {
            frames.consume(frame_bytes);
            write_frame(out.end(FRAME_HEAD_BYTES + made.len()), more, &made);
        } else {
            frames.move_to(frame_bytes, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::Request;
    use crate::engine::spans::CallTimes;
    use crate::engine::{Allowance, Replies, engine_on};
    use crate::limits::CHANGES_PAGES_MAX;
    use crate::net::Caller;
    use crate::storage::MemoryStorage;
    use std::sync::Arc;
    use tokio::task::yield_now;

    const PART: Framing = Framing { has_delimiter: false, begins: true, ends: false };
    const REST: Framing = Framing { has_delimiter: false, begins: false, ends: true };
    const NO_TIMES: CallTimes = CallTimes::NONE;
    const CALL: Call<'static> = Call { times: &NO_TIMES, requests: &[] };
    const WHOLE: Framing = Framing { has_delimiter: false, begins: true, ends: true };

    /// An engine that has committed one write.
    fn engine() -> Arc<Engine> {
        let (engine, log) = engine_on(Arc::<MemoryStorage>::default());
        ask(&engine, b"\x94\0\x01\xa3set\x92\xa1k\x01");
        engine.stop();
        engine.commit(log);
        engine
    }

    fn ask(engine: &Engine, frame: &[u8]) -> Replies {
        let (mut allowance, mut replies) = (Allowance::default(), Replies::default());
        let requests = [Request::decode(frame)];
        let progress = engine.call(&Caller::local(), &requests, &mut allowance, &mut replies);
        assert_eq!(progress.done, 1);
        replies
    }

    /// A `changes` request that has changes to return.
    fn changes(engine: &Engine) -> Replies {
        ask(engine, b"\x94\0\x01\xa7changes\x91\0")
    }

    /// A `changes` reply whose page is being made.
    fn made(engine: &Engine) -> Replies {
        let replies = changes(engine);
        replies.list[0].deferred().unwrap().make();
        replies
    }

    fn block_on(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn a_finished_page_never_waits_for_another() {
        block_on(async {
            let engine = engine();
            // There is one place left for all that follow.
            let _others: Vec<_> = (1..CHANGES_PAGES_MAX).map(|_| made(&engine)).collect();
            for _ in 0..CHANGES_PAGES_MAX {
                yield_now().await;
            }
            let (mut reply_queue, mut send_buffer) = (ReplyQueue::default(), SendBuffer::default());
            for framing in [PART, REST, WHOLE] {
                let Replies { encoded, list, .. } = &changes(&engine);
                reply_queue.push(&engine, &mut send_buffer, encoded, list, framing, CALL);
                reply_queue.release(&engine, &mut send_buffer, &mut || true);
            }
            for _ in 0..100 {
                yield_now().await;
                reply_queue.release(&engine, &mut send_buffer, &mut || true);
            }
            assert!(reply_queue.is_empty() && send_buffer.is_between_messages());
        });
    }

    #[test]
    fn replies_behind_an_unmade_page_are_waited_for_later() {
        block_on(async {
            let engine = engine();
            let (mut reply_queue, mut send_buffer) = (ReplyQueue::default(), SendBuffer::default());
            let over = ask(&engine, b"\x94\0\x02\xa4wait\x93\x09\xa6stored\x81\xaatimeout_ms\0");
            for (replies, framing) in [(&changes(&engine), PART), (&over, REST)] {
                let (bytes, list) = (&replies.encoded, &replies.list);
                reply_queue.push(&engine, &mut send_buffer, bytes, list, framing, CALL);
            }
            reply_queue.release(&engine, &mut send_buffer, &mut || false);
            let deadline = reply_queue.deadline(&send_buffer);
            assert_eq!(deadline, None, "it would be over again and again");
        });
    }
}
