//! One client's connection: executes its commands, and answers them in order of its requests.
//!
//! One task a connection. A turn: release replies that may be seen, execute received requests,
//! write, read. All requests of one read are one call of the engine. While a peer does not read, it
//! is neither read from nor executed for, so its requests wait in its own socket.

use super::batch::{Batch, Cursor, Room};
use super::late_reply::Call;
use super::link::{Closed, Link};
use super::poll_on_wake::PollOnWake;
use super::reply_queue::ReplyQueue;
use crate::budget::{Cost, WorkBudget};
use crate::clock::Nanos;
use crate::engine::spans::Timed;
use crate::engine::{Allowance, End, Engine, Replies, Waiter};
use crate::limits::WAITING_EACH_MAX;
use crate::net::busy_poll;
use crate::net::turns::bulk;
use crate::net::turns::{LIGHT_BYTES, Turn, Turns};
use crate::net::{Activity, Caller, Slot};
use crate::protocol::DurabilityBarrier;
use std::cell::RefCell;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// The most requests for which the engine's lock is held at once.
const EXECUTE_AT_ONCE: usize = 256;
/// Where there is little memory for replies, no more requests are decoded than would fill it with
/// replies of this length, or a few.
const REPLY_BYTES: usize = 128;
const REQUESTS_MIN: usize = 16;
/// So much is decoded within some microseconds, which are not worth a reading of the clock.
const SHORT_BYTES: usize = 4096;
/// The least that a request costs.
const REQUEST: Cost = Cost::new(1, 0);
/// The memory that a turn reserves for replies: usually, at most, and where memory is short.
const TURN_BYTES: usize = 64 * 1024;
const TURN_BYTES_MAX: usize = 1 << 20;
const TURN_BYTES_MIN: usize = 4 * 1024;
/// How long peers may take to read their last replies when the broker stops.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// The same for a connection that gives its slot to another.
const EVICTED_PATIENCE: Duration = Duration::from_secs(1);

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Allocations that the sessions of a thread share, one session at a time.
#[derive(Default)]
struct Scratch {
    replies: Replies,
    batch: Room,
}

/// Why execution does not go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocked {
    /// There are no requests.
    Idle,
    /// The turn is over: other connections come first.
    Turn,
    /// Replies are held, or the peer is to read them.
    Full,
    /// There is no room in the write queue.
    NoRoom,
    /// There is no memory for replies: the account is in line.
    NoMemory,
}

/// The memory that a turn may take for replies.
struct Memory {
    /// For the longest one.
    longest: usize,
    /// For the other replies.
    others: usize,
}

/// The next event of a session.
enum Next {
    /// A turn: something was read, written, released or due.
    Turned(Result<(), Closed>),
    /// A check of the timeouts.
    Look(Instant),
    /// The broker stops, or the slot was lost: how long the peer may take to read the rest.
    Stop(Duration),
}

/// Rare events.
struct Others<'w> {
    /// Room in the write queue was freed.
    room: Option<&'w mut watch::Receiver<u64>>,
    wake_at: Option<Instant>,
}

impl Others<'_> {
    fn is_any(&self) -> bool {
        self.room.is_some() || self.wake_at.is_some()
    }

    /// Waits until the first of them.
    async fn wait(self) {
        let Self { room, wake_at } = self;
        tokio::select! {
            biased;
            () = changed(room) => {}
            () = until(wake_at) => {}
        }
    }
}

async fn changed<T>(receiver: Option<&mut watch::Receiver<T>>) {
    match receiver {
        // The sender is the engine's, and so lives as long as its edges.
        Some(receiver) => drop(receiver.changed().await),
        None => pending().await,
    }
}

/// Waits until the broker stops, or another connection needs the slot; returns how long the peer
/// may take then to read its last replies.
async fn patience_at_the_end(stop: &mut watch::Receiver<bool>, slot: &Slot) -> Duration {
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => STOP_PATIENCE,
        () = slot.evicted() => EVICTED_PATIENCE,
    }
}

async fn until(wake_at: Option<Instant>) {
    match wake_at {
        Some(wake_at) => sleep_until(wake_at).await,
        None => pending().await,
    }
}

/// One client's connection.
pub(super) struct Session<'e> {
    link: Link,
    engine: &'e Engine,
    caller: Arc<Caller>,
    reply_queue: ReplyQueue,
    waiter: Waiter<'e>,
    cursor: Cursor,
    turns: Turns,
    looked: Instant,
    /// How long the peer has been gone while its requests wait for replies to be sent.
    left: Duration,
    /// The memory that a turn reserves for replies.
    turn_bytes: usize,
    /// The length of the longest recent reply, if that was long: the next ones may be long, too.
    longest: usize,
    /// The next request's reply is longer than the memory reserved for it: the bytes it needs, or
    /// may need.
    lacks: Option<usize>,
    /// The memory for a page that is made later, with its copy.
    page_bytes: usize,
    /// Until when the next write may wait for room in the write queue.
    room_until: Option<Instant>,
    /// The broker stops: until when the peer may read its last replies.
    stop_until: Option<Instant>,
    /// Since when requests wait that came and are not executed, in nanoseconds since boot.
    waits_since: Option<Nanos>,
    /// The last call.
    last: Timed,
}

impl<'e> Session<'e> {
    pub(super) fn new(link: Link, engine: &'e Engine, caller: Arc<Caller>) -> Self {
        Self {
            link,
            engine,
            caller,
            reply_queue: ReplyQueue::default(),
            waiter: engine.waiter(),
            cursor: Cursor::default(),
            turns: Turns::default(),
            looked: Instant::now(),
            left: Duration::ZERO,
            turn_bytes: TURN_BYTES,
            longest: 0,
            lacks: None,
            page_bytes: engine.config().limits.range_bytes.saturating_mul(2),
            room_until: None,
            stop_until: None,
            waits_since: None,
            last: Timed::default(),
        }
    }

    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) -> Closed {
        let served = self.serve(&mut stop).await;
        // A process that ends closes thousands of connections at once.
        bulk::turn().await;
        self.reply_queue.late.end(self.engine, &self.caller);
        match served {
            Err(closed) => closed,
            Ok(()) => {
                let is_over = self.link.is_over();
                if self.link.slot().is_evicted() {
                    // Another connection has its slot by now.
                    return Closed::Evicted;
                }
                self.link.close().await;
                if is_over { Closed::ByPeer } else { Closed::Stopped }
            }
        }
    }

    /// Runs until the peer is gone, or until everything is answered after `stop`.
    async fn serve(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), Closed> {
        let mut room = self.engine.room();
        let slot = self.link.slot();
        let mut stopped = pin!(patience_at_the_end(stop, &slot));
        let mut stopped = PollOnWake::new(|cx| stopped.as_mut().poll(cx));
        let mut look = interval(self.link.look_period());
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = PollOnWake::new(move |cx| look.poll_tick(cx));
        loop {
            room.mark_unchanged();
            self.release();
            let blocked = self.execute();
            // A `flush` or `wait` for a position already reached has no progress to wait for.
            self.release();
            self.link.outgoing.settle(self.held());
            if self.is_finished(blocked) {
                return Ok(());
            }
            let has_turn = blocked == Blocked::Turn;
            if has_turn || self.link.has_more() {
                self.turns.give_way().await;
            }
            let is_over = self.link.is_over();
            let reading = blocked == Blocked::Idle && self.stop_until.is_none() && !is_over;
            let (wake_at, barrier) = (self.wake_at(blocked), self.reply_queue.barrier());
            let others =
                Others { room: (blocked == Blocked::NoRoom).then_some(&mut room), wake_at };
            if !self.reply_queue.is_empty() {
                busy_poll::none_is_due();
            }
            let holds = !self.reply_queue.is_empty();
            let step = (barrier.is_none() && holds)
                .then(|| self.reply_queue.next_step(self.engine, &self.link.send_buffer));
            let are_others = others.is_any();
            let mut others = pin!(others.wait());
            let next = poll_fn(|cx| {
                // In this order: a peer that always sends does not stop the clock.
                if self.stop_until.is_none()
                    && let Poll::Ready(patience) = stopped.poll(cx)
                {
                    return Poll::Ready(Next::Stop(patience));
                }
                if let Poll::Ready(now) = look.poll(cx) {
                    return Poll::Ready(Next::Look(now));
                }
                let turned = self.link.poll_turn(cx, reading);
                self.follow_late();
                if let Poll::Ready(turned) = turned {
                    return Poll::Ready(Next::Turned(turned));
                }
                if has_turn || self.poll_released(cx, barrier).is_ready() {
                    return Poll::Ready(Next::Turned(Ok(())));
                }
                let has_memory = self.link.outgoing.poll_turn(cx).is_ready();
                if has_memory || holds && self.poll_due(cx, step).is_ready() {
                    return Poll::Ready(Next::Turned(Ok(())));
                }
                if !are_others {
                    return Poll::Pending;
                }
                others.as_mut().poll(cx).map(|()| Next::Turned(Ok(())))
            });
            match next.await {
                Next::Turned(turned) => turned?,
                Next::Look(now) => self.look(now, reading, blocked)?,
                Next::Stop(patience) => self.stop_until = Some(Instant::now() + patience),
            }
        }
    }

    /// What was released, and is not written yet, may be late.
    #[inline]
    fn follow_late(&mut self) {
        let Self { reply_queue, engine, caller, link, last, .. } = self;
        reply_queue.late.wrote(engine, caller, &link.send_buffer, last);
    }

    fn poll_released(
        &mut self,
        context: &Context<'_>,
        barrier: Option<DurabilityBarrier>,
    ) -> Poll<()> {
        barrier.map_or(Poll::Pending, |barrier| self.waiter.poll_released(context, barrier))
    }

    /// Ready when a held reply may be due, or its page is made.
    fn poll_due(&mut self, context: &Context<'_>, step: Option<DurabilityBarrier>) -> Poll<()> {
        if self.caller.signal.poll_raised(context).is_ready() {
            return Poll::Ready(());
        }
        step.map_or(Poll::Pending, |step| self.waiter.poll_step(context, step))
    }

    fn look(&mut self, now: Instant, reading: bool, blocked: Blocked) -> Result<(), Closed> {
        let since = now.saturating_duration_since(self.looked);
        self.looked = now;
        let waits_for_long = self.reply_queue.waits_for_long();
        let is_quiet = blocked == Blocked::Idle && self.link.send_buffer.unwritten() == 0;
        let activity = match (is_quiet, self.reply_queue.is_empty(), waits_for_long) {
            (true, true, _) => Activity::Quiet,
            (true, _, true) => Activity::Following,
            _ => Activity::Busy,
        };
        self.link.hold_back(waits_for_long && self.link.send_buffer.unwritten() == 0);
        self.link.look(since, reading, activity)?;
        if activity == Activity::Quiet {
            self.reply_queue.rest();
            (self.turn_bytes, self.longest) = (TURN_BYTES, 0);
            self.link.outgoing.settle_exactly(self.held());
        }
        // While reads are paused, a disconnect goes unnoticed. Requests received before are
        // executed where that goes on by itself, but not where no peer is left to read the replies.
        // A peer that ended only its side may wait for its replies.
        let is_full = matches!(blocked, Blocked::Full | Blocked::NoMemory);
        let has_left = self.link.is_over() || is_full && self.link.is_ended();
        let waits_in_vain = has_left && self.link.send_buffer.unwritten() == 0;
        if waits_in_vain && self.link.is_over() {
            self.link.probe();
        }
        self.left = if waits_in_vain { self.left + since } else { Duration::ZERO };
        if self.left >= Duration::from_millis(self.engine.config().limits.write_timeout_ms) {
            return Err(Closed::ByPeer);
        }
        Ok(())
    }

    fn is_finished(&self, blocked: Blocked) -> bool {
        let is_answered = blocked == Blocked::Idle
            && self.reply_queue.is_empty()
            && self.link.send_buffer.unwritten() == 0;
        let is_over = self.link.is_over() && is_answered;
        is_over || self.stop_until.is_some_and(|until| is_answered || Instant::now() >= until)
    }

    fn wake_at(&self, blocked: Blocked) -> Option<Instant> {
        let due = self.reply_queue.deadline(&self.link.send_buffer);
        let room_until = self.room_until.filter(|_| blocked == Blocked::NoRoom);
        [room_until, self.stop_until, due].into_iter().flatten().min()
    }

    /// Executes received requests, as far as the peer's bounds and the write queue allow.
    fn execute(&mut self) -> Blocked {
        let blocked = self.execute_within_limits();
        if blocked != Blocked::Turn {
            self.turns.leave_line();
        }
        if self.link.inbox.messages.is_empty() {
            self.waits_since = None;
        } else if self.waits_since.is_none() {
            self.waits_since = Some(self.engine.since_boot());
        }
        blocked
    }

    fn execute_within_limits(&mut self) -> Blocked {
        let limits = &self.engine.config().limits;
        let unread = self.reply_queue.bytes() + self.link.send_buffer.unwritten();
        // Also where no request waits: a PING needs no request to be answered.
        if unread >= limits.max_unread_bytes || !self.link.outgoing.try_cover(self.held()) {
            return Blocked::Full;
        }
        if self.link.inbox.messages.is_empty() {
            return Blocked::Idle;
        }
        let waiting_max = WAITING_EACH_MAX.saturating_sub(self.reply_queue.waiting());
        if self.reply_queue.replies() >= limits.max_in_flight || waiting_max == 0 {
            return Blocked::Full;
        }
        let Some(Memory { longest, others }) = self.reserve() else {
            return Blocked::NoMemory;
        };
        let others = others.min(limits.max_unread_bytes - unread);
        let in_flight = limits.max_in_flight - self.reply_queue.replies();
        let requests_max = in_flight.min((others / REPLY_BYTES).max(REQUESTS_MIN));
        let reply_bytes = if longest >= limits.max_message_bytes { usize::MAX } else { longest };
        let refuses_full = self.stop_until.is_some() || self.is_room_late();
        let mut allowance = Allowance {
            bytes: others,
            reply_bytes,
            deferred: waiting_max,
            may_wait_for_room: !refuses_full,
            ..Allowance::default()
        };
        SCRATCH.with_borrow_mut(|scratch| {
            let blocked = self.execute_turn(requests_max, &mut allowance, scratch);
            if blocked == Blocked::Turn {
                self.turn_bytes = (self.turn_bytes * 2).min(TURN_BYTES_MAX);
            }
            blocked
        })
    }

    /// Executes a turn, as far as the turn's share allows.
    fn execute_turn(
        &mut self,
        requests_max: usize,
        allowance: &mut Allowance,
        scratch: &mut Scratch,
    ) -> Blocked {
        let mut turn = self.turns.begin();
        let is_long = self.cursor.next_bytes(&self.link.inbox) > LIGHT_BYTES;
        if is_long && matches!(turn, Turn::Light(_)) {
            turn = self.turns.begin_heavy();
        }
        loop {
            (allowance.is_heavy, allowance.work) = match turn {
                Turn::Wait => return Blocked::Turn,
                Turn::Heavy => (true, WorkBudget::default()),
                Turn::Light(budget) => (false, budget),
            };
            let requests_max = if allowance.is_heavy { 1 } else { requests_max };
            let (blocked, end) = self.execute_batch(requests_max, allowance, scratch);
            scratch.replies.clear();
            self.lacks = match end {
                End::NeedsMemory { bytes } => Some(bytes),
                _ => None,
            };
            if end != End::NeedsHeavyTurn {
                return blocked;
            }
            turn = self.turns.begin_heavy();
        }
    }

    /// Reserves memory for the replies of a turn before they are made; `None` where there is none,
    /// and the account enters the line.
    fn reserve(&mut self) -> Option<Memory> {
        let held = self.held();
        let outgoing = &mut self.link.outgoing;
        if outgoing.is_in_line() {
            return None;
        }
        if let Some(lacks) = self.lacks {
            let longest = lacks.min(self.engine.config().limits.max_message_bytes);
            let others = TURN_BYTES / 2;
            self.longest = longest;
            return outgoing.cover(held + longest + others).then_some(Memory { longest, others });
        }
        let wanted = self.turn_bytes.max(self.longest + TURN_BYTES / 2);
        let is_covered = outgoing.try_cover(held + wanted);
        let spare = outgoing.covered().saturating_sub(held);
        if is_covered && self.longest > spare / 2 {
            let longest = self.longest;
            return Some(Memory { longest, others: spare - longest });
        }
        if is_covered || spare >= TURN_BYTES_MIN || outgoing.cover(held + TURN_BYTES_MIN) {
            let half = outgoing.covered().saturating_sub(held) / 2;
            return Some(Memory { longest: half, others: half });
        }
        None
    }

    /// Moves replies that may be seen to the send buffer.
    fn release(&mut self) {
        let wanted = self.held() + self.page_bytes;
        let Link { send_buffer, outgoing, .. } = &mut self.link;
        self.reply_queue.release(self.engine, send_buffer, &mut || outgoing.cover(wanted));
    }

    /// The memory that replies take until they are sent.
    fn held(&self) -> usize {
        self.reply_queue.held(self.page_bytes) + self.link.send_buffer.held()
    }

    fn execute_batch(
        &mut self,
        requests_max: usize,
        allowance: &mut Allowance,
        scratch: &mut Scratch,
    ) -> (Blocked, End) {
        let Scratch { replies, batch: room } = scratch;
        let Link { inbox, send_buffer, .. } = &mut self.link;
        let items_max = self.engine.config().limits.command_items;
        let room_taken = std::mem::take(room);
        self.engine.begin(&mut self.waits_since, inbox.bytes() <= SHORT_BYTES, replies);
        let batch = Batch::decode(room_taken, inbox, self.cursor, requests_max, items_max);
        let (mut executed, mut end) = (0, End::Done);
        for requests in batch.requests.chunks(EXECUTE_AT_ONCE) {
            let progress = self.engine.call(&self.caller, requests, allowance, replies);
            (executed, end) = (executed + progress.done, progress.end);
            if end != End::Done || !allowance.is_heavy && !allowance.work.has_room(REQUEST) {
                break;
            }
        }
        let mut others = replies.list.as_slice();
        let times = replies.times;
        let (done, cursor) = batch.route(executed, |count, framing, requests| {
            let (ours, rest) = others.split_at(count.min(others.len()));
            others = rest;
            let (encoded, call) = (&replies.encoded, Call { times: &times, requests });
            self.reply_queue.push(self.engine, send_buffer, encoded, ours, framing, call);
        });
        self.last = Timed::new(&times, &batch.requests);
        *room = batch.into_room();
        inbox.messages.drain(..done);
        self.cursor = cursor;
        let blocked = match end {
            End::WriteQueueFull => Blocked::NoRoom,
            End::Done | End::Full if inbox.messages.is_empty() => Blocked::Idle,
            _ => Blocked::Turn,
        };
        self.wait_for_room(blocked, executed);
        (blocked, end)
    }

    fn is_room_late(&self) -> bool {
        self.room_until.is_some_and(|until| Instant::now() >= until)
    }

    /// Starts or keeps the time limit of a write that waits for room; it counts from the first
    /// wait.
    fn wait_for_room(&mut self, blocked: Blocked, executed: usize) {
        if blocked != Blocked::NoRoom {
            self.room_until = None;
        } else if self.room_until.is_none() || executed > 0 {
            let wait = Duration::from_millis(self.engine.config().write_queue.wait_ms);
            self.room_until = Some(Instant::now() + wait);
        }
    }
}
