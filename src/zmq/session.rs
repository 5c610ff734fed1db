//! One client's connection: takes its commands, and answers each in the order of its requests.
//!
//! One task a connection. A turn: release what may be seen, execute what came in, write, read. What
//! one read brought is one call of the engine. A peer that does not read is not read from, and not
//! executed for, so its requests wait in its own socket.

use super::batch::{Batch, Cursor, Room};
use super::link::{Closed, Link};
use super::outbox::Outbox;
use super::pool::{FREE_BYTES, Share};
use super::seldom::Seldom;
use crate::budget::{Cost, WorkBudget};
use crate::engine::{Answers, Caller, Engine, Waiter};
use crate::idle;
use crate::limits::WAITING_EACH_MAX;
use crate::turns::{LIGHT_BYTES, Turn, Turns};
use crate::wire::{Gate, Seq};
use std::cell::RefCell;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// The engine's lock is held for no more requests than this at once.
const EXECUTE_AT_ONCE: usize = 256;
/// Where there is little room for replies, no more requests are decoded than would fill it with
/// replies of this length, or a few.
const REPLY_BYTES: usize = 256;
const REQUESTS_MIN: usize = 16;
/// What a request costs at least.
const REQUEST: Cost = Cost::new(1, 0);
/// What the buffer for replies keeps of its allocation.
const ANSWERS_KEPT_BYTES: usize = 256 * 1024;
/// How long peers may take to read their last replies when the broker stops.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Allocations that the sessions of a thread use one after the other.
#[derive(Default)]
struct Scratch {
    answers: Answers,
    batch: Room,
}

/// What execution waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocked {
    /// Requests.
    Idle,
    /// Another turn: others come first.
    Turn,
    /// Replies that are held, or that the peer is to read.
    Full,
    /// Room in the write queue.
    NoRoom,
}

/// What comes next.
enum Next {
    /// A turn: something was read, written, released or due.
    Turned(Result<(), Closed>),
    /// A look at the clock.
    Look(Instant),
    /// The broker's stop.
    Stop,
}

/// What is seldom waited for.
struct Others<'w> {
    /// Room in the write queue.
    room: Option<&'w mut watch::Receiver<u64>>,
    wake_at: Option<Instant>,
}

impl Others<'_> {
    fn is_any(&self) -> bool {
        self.room.is_some() || self.wake_at.is_some()
    }

    /// Until the first of them.
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
    outbox: Outbox,
    outgoing: Share,
    waiter: Waiter<'e>,
    cursor: Cursor,
    turns: Turns,
    looked: Instant,
    /// How long the peer has been gone while its requests wait for replies to be sent.
    left: Duration,
    /// The next request's reply is so long that it waits for others to read theirs.
    lacks_memory: bool,
    /// What was written up to here is to be appended by this connection, if none does so before.
    to_append: Seq,
    /// Until when the next write may wait for room in the queue.
    room_until: Option<Instant>,
    /// The broker stops: until when the peer may read its last replies.
    stop_until: Option<Instant>,
}

impl<'e> Session<'e> {
    pub(super) fn new(
        link: Link,
        engine: &'e Engine,
        caller: Arc<Caller>,
        outgoing: Share,
    ) -> Self {
        Self {
            link,
            engine,
            caller,
            outbox: Outbox::default(),
            outgoing,
            waiter: engine.waiter(),
            cursor: Cursor::default(),
            turns: Turns::default(),
            looked: Instant::now(),
            left: Duration::ZERO,
            lacks_memory: false,
            to_append: 0,
            room_until: None,
            stop_until: None,
        }
    }

    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) -> Closed {
        match self.serve(&mut stop).await {
            Err(closed) => closed,
            Ok(()) => {
                self.link.close().await;
                Closed::Stopped
            }
        }
    }

    /// Until the peer is gone, or everything is answered after `stop`.
    async fn serve(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), Closed> {
        let mut room = self.engine.room();
        let mut stopped = pin!(stop.wait_for(|stop| *stop));
        let mut stopped = Seldom::new(|cx| stopped.as_mut().poll(cx).map(drop));
        let mut look = interval(self.link.look_period());
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = Seldom::new(move |cx| look.poll_tick(cx));
        loop {
            room.mark_unchanged();
            let may_make = self.outgoing.may_be_large();
            self.outbox.release(self.engine, &mut self.link.outlet, may_make);
            self.engine.append(std::mem::take(&mut self.to_append));
            let blocked = self.execute();
            // A `flush` or `wait` for what has been reached has no progress to wait for.
            self.outbox.release(self.engine, &mut self.link.outlet, may_make);
            if self.is_finished(blocked) {
                return Ok(());
            }
            let has_turn = blocked == Blocked::Turn || self.to_append > 0;
            if has_turn || self.link.has_more() {
                // What others write meanwhile is appended together with this.
                self.turns.give_way().await;
            }
            let reading = blocked == Blocked::Idle && self.stop_until.is_none();
            let (wake_at, gate) = (self.wake_at(blocked), self.outbox.gate());
            let others =
                Others { room: (blocked == Blocked::NoRoom).then_some(&mut room), wake_at };
            if !self.outbox.is_empty() {
                idle::none_is_due();
            }
            let holds = !self.outbox.is_empty();
            let step = (gate.is_none() && holds)
                .then(|| self.outbox.next_step(self.engine, &self.link.outlet));
            let are_others = others.is_any();
            let mut others = pin!(others.wait());
            let next = poll_fn(|cx| {
                // In this order: a peer that always has something for us does not stop the clock.
                if self.stop_until.is_none() && stopped.poll(cx).is_ready() {
                    return Poll::Ready(Next::Stop);
                }
                if let Poll::Ready(now) = look.poll(cx) {
                    return Poll::Ready(Next::Look(now));
                }
                if let Poll::Ready(turned) = self.link.poll_turn(cx, reading) {
                    return Poll::Ready(Next::Turned(turned));
                }
                if has_turn || self.poll_released(cx, gate).is_ready() {
                    return Poll::Ready(Next::Turned(Ok(())));
                }
                if holds && self.poll_due(cx, step).is_ready() {
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
                Next::Stop => self.stop_until = Some(Instant::now() + STOP_PATIENCE),
            }
        }
    }

    fn poll_released(&mut self, context: &Context<'_>, gate: Option<Gate>) -> Poll<()> {
        gate.map_or(Poll::Pending, |gate| self.waiter.poll_released(context, gate))
    }

    /// Ready when a reply that is held may be due, or is made.
    fn poll_due(&mut self, context: &Context<'_>, step: Option<Gate>) -> Poll<()> {
        if self.caller.signal.poll_raised(context).is_ready() {
            return Poll::Ready(());
        }
        step.map_or(Poll::Pending, |step| self.waiter.poll_step(context, step))
    }

    fn look(&mut self, now: Instant, reading: bool, blocked: Blocked) -> Result<(), Closed> {
        let since = now.saturating_duration_since(self.looked);
        self.looked = now;
        let limits = &self.engine.config().limits;
        self.link.look(since, reading)?;
        // A peer that is not read from is not heard to leave. What it sent before is executed where
        // that goes on by itself, but not where nobody is left for whom it could.
        let has_left = blocked == Blocked::Full && self.link.is_ended();
        self.left = if has_left { self.left + since } else { Duration::ZERO };
        if self.left >= Duration::from_millis(limits.stalled_peer_ms) {
            return Err(Closed::ByPeer);
        }
        Ok(())
    }

    fn is_finished(&self, blocked: Blocked) -> bool {
        let is_answered =
            blocked == Blocked::Idle && self.outbox.is_empty() && self.link.outlet.unwritten() == 0;
        self.stop_until.is_some_and(|until| is_answered || Instant::now() >= until)
    }

    fn wake_at(&self, blocked: Blocked) -> Option<Instant> {
        let due = self.outbox.deadline(&self.link.outlet);
        let room_until = self.room_until.filter(|_| blocked == Blocked::NoRoom);
        [room_until, self.stop_until, due].into_iter().flatten().min()
    }

    /// Executes what came in, as far as the peer's bounds and the queue allow.
    fn execute(&mut self) -> Blocked {
        let blocked = self.execute_within_limits();
        if blocked != Blocked::Turn {
            self.turns.leave_line();
        }
        blocked
    }

    fn execute_within_limits(&mut self) -> Blocked {
        let limits = &self.engine.config().limits;
        let waiting = self.waiting();
        let has_memory = self.outgoing.hold(waiting);
        // Also where no request waits: PING is answered without one.
        if !has_memory || waiting >= limits.max_unread_bytes {
            return Blocked::Full;
        }
        if self.link.inbox.messages.is_empty() {
            return Blocked::Idle;
        }
        let may_be_large = self.outgoing.may_be_large();
        // It is made to be measured, which is not to be done again and again.
        if self.lacks_memory && !may_be_large {
            return Blocked::Full;
        }
        let waiting_max = WAITING_EACH_MAX.saturating_sub(self.outbox.waiting());
        if self.outbox.replies() >= limits.max_in_flight || waiting_max == 0 {
            return Blocked::Full;
        }
        let room = self.outgoing.room().min(limits.max_unread_bytes - waiting);
        let in_flight = limits.max_in_flight - self.outbox.replies();
        let requests_max = in_flight.min((room / REPLY_BYTES).max(REQUESTS_MIN));
        let reply_bytes_max = if may_be_large { usize::MAX } else { FREE_BYTES };
        let blocked = SCRATCH.with_borrow_mut(|scratch| {
            scratch.answers.bytes_max = room;
            scratch.answers.reply_bytes_max = reply_bytes_max;
            scratch.answers.waiting_max = waiting_max;
            self.execute_turn(requests_max, scratch)
        });
        self.outgoing.hold(self.waiting());
        blocked
    }

    /// Has its turn, as far as it may do something in it.
    fn execute_turn(&mut self, requests_max: usize, scratch: &mut Scratch) -> Blocked {
        let mut turn = self.turns.begin();
        let is_long = self.cursor.next_bytes(&self.link.inbox) > LIGHT_BYTES;
        if is_long && matches!(turn, Turn::Light(_)) {
            turn = self.turns.begin_heavy();
        }
        loop {
            let (is_heavy, budget) = match turn {
                Turn::Wait => return Blocked::Turn,
                Turn::Heavy => (true, WorkBudget::default()),
                Turn::Light(budget) => (false, budget),
            };
            (scratch.answers.is_heavy, scratch.answers.budget) = (is_heavy, budget);
            scratch.answers.caller = Some(Arc::clone(&self.caller));
            let requests_max = if is_heavy { 1 } else { requests_max };
            let blocked = self.execute_batch(requests_max, scratch);
            let answers = &mut scratch.answers;
            self.to_append = self.to_append.max(answers.to_append);
            self.lacks_memory = answers.lacks_memory;
            let needs_heavy = answers.needs_heavy;
            answers.clear();
            answers.bytes.shrink_to(ANSWERS_KEPT_BYTES);
            if !needs_heavy {
                return blocked;
            }
            turn = self.turns.begin_heavy();
        }
    }

    /// The bytes of what waits to be sent, or to be read.
    fn waiting(&self) -> usize {
        self.outbox.bytes() + self.link.outlet.unwritten()
    }

    fn execute_batch(&mut self, requests_max: usize, scratch: &mut Scratch) -> Blocked {
        let Scratch { answers, batch: room } = scratch;
        let refuse_full = self.stop_until.is_some() || self.is_room_late();
        let Link { inbox, outlet, .. } = &mut self.link;
        let items_max = self.engine.config().limits.command_items;
        let room_taken = std::mem::take(room);
        let batch = Batch::decode(room_taken, inbox, self.cursor, requests_max, items_max);
        let mut executed = 0;
        for requests in batch.requests.chunks(EXECUTE_AT_ONCE) {
            let count = self.engine.execute(requests, refuse_full, answers);
            executed += count;
            if count < requests.len() || !answers.is_heavy && !answers.budget.has_room(REQUEST) {
                break;
            }
        }
        let mut replies = answers.list.as_slice();
        let (done, cursor) = batch.route(executed, |count, framing| {
            let (ours, others) = replies.split_at(count.min(replies.len()));
            replies = others;
            self.outbox.push(self.engine, outlet, &answers.bytes, ours, framing);
        });
        *room = batch.into_room();
        inbox.messages.drain(..done);
        self.cursor = cursor;
        let blocked = match inbox.messages.is_empty() {
            _ if answers.is_blocked => Blocked::NoRoom,
            // Until others have read, which is looked at now and then.
            _ if answers.lacks_memory => Blocked::Full,
            _ if answers.is_out_of_turn || answers.needs_heavy => Blocked::Turn,
            true => Blocked::Idle,
            false => Blocked::Turn,
        };
        self.wait_for_room(blocked, executed);
        blocked
    }

    fn is_room_late(&self) -> bool {
        self.room_until.is_some_and(|until| Instant::now() >= until)
    }

    /// A write waits so long for room, counted from when it came first in line.
    fn wait_for_room(&mut self, blocked: Blocked, executed: usize) {
        if blocked != Blocked::NoRoom {
            self.room_until = None;
        } else if self.room_until.is_none() || executed > 0 {
            let wait = Duration::from_millis(self.engine.config().queue.wait_ms);
            self.room_until = Some(Instant::now() + wait);
        }
    }
}
