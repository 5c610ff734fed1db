//! ROUTER: takes commands from REQ and DEALER clients, and answers each in the order of its
//! requests.
//!
//! One task a connection. A turn: release what may be seen, execute what came in, write, read. What
//! one read brought is one call of the engine. A peer that does not read is not read from, and not
//! executed for, so its requests wait in its own socket.

use super::batch::{Batch, Cursor};
use super::edge::{Edge, EdgeError};
use super::link::{Closed, Link, look_period};
use super::outbox::Outbox;
use super::pool::{Pool, Share};
use super::stream::Stream;
use super::zmtp::Kind;
use crate::engine::{Answers, Engine, Waiter};
use crate::limits::WAITING_EACH_MAX;
use crate::loops::Loops;
use crate::wire::Seq;
use std::cell::RefCell;
use std::future::{poll_fn, ready};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

/// The engine's lock is held for no more requests than this at once.
const EXECUTE_AT_ONCE: usize = 256;
/// What the buffer for replies keeps of its allocation.
const ANSWERS_KEPT_BYTES: usize = 256 * 1024;
/// How long peers may take to read their last replies when the broker stops.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

thread_local! {
    static ANSWERS: RefCell<Answers> = RefCell::default();
}

/// The command edge, listening.
#[derive(Debug)]
pub struct Router {
    edge: Edge,
    engine: Arc<Engine>,
    outgoing: Arc<Pool>,
}

impl Router {
    /// Listens on `endpoints`, which `--router` named.
    pub async fn bind(endpoints: &[String], engine: Arc<Engine>) -> Result<Self, EdgeError> {
        let limits = &engine.config().limits;
        let refusing = Arc::clone(&engine);
        let refused = move || refusing.counters().refused_connections.up();
        let edge = Edge::bind("--router", endpoints, limits, refused).await?;
        let outgoing = Pool::new(limits.max_outgoing_bytes);
        Ok(Self { edge, engine, outgoing })
    }

    /// Where it really listens.
    pub fn endpoints(&self) -> Vec<String> {
        self.edge.endpoints()
    }

    /// Serves on `loops` until `stop` says true, then until everything that was taken is answered.
    /// The engine must still commit until this returns.
    pub async fn run(self, loops: Arc<Loops>, stop: watch::Receiver<bool>) {
        let (engine, outgoing, incoming) = (self.engine, self.outgoing, self.edge.incoming());
        let stopping = stop.clone();
        let serve = move |stream| {
            let (engine, stop) = (Arc::clone(&engine), stopping.clone());
            let (outgoing, incoming) = (Share::of(&outgoing), Arc::clone(&incoming));
            async move {
                engine.counters().connections.up();
                let ended = connection(stream, &engine, &incoming, outgoing, stop).await;
                engine.counters().connections.down();
                if ended.is_cut() {
                    engine.counters().refused_connections.up();
                }
                tracing::debug!("a client's connection ended: {ended}");
            }
        };
        self.edge.run(loops, stop, serve).await;
    }
}

async fn connection(
    stream: Stream,
    engine: &Engine,
    incoming: &Arc<Pool>,
    outgoing: Share,
    mut stop: watch::Receiver<bool>,
) -> Closed {
    let greeting = Link::greet(stream, Kind::Router, &engine.config().limits, incoming);
    let greeted = tokio::select! {
        greeted = greeting => greeted,
        _ = stop.wait_for(|stop| *stop) => return Closed::Stopped,
    };
    match greeted {
        Ok(link) => Session::new(link, engine, outgoing).run(stop).await,
        Err(closed) => closed,
    }
}

/// What execution waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocked {
    /// Requests.
    Idle,
    /// Another turn: others come first.
    Turn,
    /// The peer: it is to read its replies.
    Full,
    /// Room in the write queue.
    NoRoom,
}

/// One client's connection.
struct Session<'e> {
    link: Link,
    engine: &'e Engine,
    outbox: Outbox,
    outgoing: Share,
    waiter: Waiter<'e>,
    cursor: Cursor,
    look: Interval,
    looked: Instant,
    /// What was written up to here is to be appended by this connection, if none does so before.
    to_append: Seq,
    /// Until when the next write may wait for room in the queue.
    room_until: Option<Instant>,
    /// The broker stops: until when the peer may read its last replies.
    stop_until: Option<Instant>,
}

impl<'e> Session<'e> {
    fn new(link: Link, engine: &'e Engine, outgoing: Share) -> Self {
        let mut look = interval(look_period(&engine.config().limits));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            link,
            engine,
            outbox: Outbox::default(),
            outgoing,
            waiter: engine.waiter(),
            cursor: Cursor::default(),
            look,
            looked: Instant::now(),
            to_append: 0,
            room_until: None,
            stop_until: None,
        }
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) -> Closed {
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
        let mut progress = self.engine.progress();
        let mut room = self.engine.room();
        loop {
            progress.mark_unchanged();
            room.mark_unchanged();
            self.outbox.release(self.engine, &mut self.link);
            self.engine.append(std::mem::take(&mut self.to_append));
            let blocked = self.execute();
            // A `flush` or `wait` for what has been reached has no progress to wait for.
            self.outbox.release(self.engine, &mut self.link);
            if self.is_finished(blocked) {
                return Ok(());
            }
            let has_turn = blocked == Blocked::Turn || self.to_append > 0;
            if has_turn || self.link.has_more() {
                // What others write meanwhile is appended together with this.
                yield_now().await;
            }
            let reading = blocked == Blocked::Idle && self.stop_until.is_none();
            let (wake_at, gate) = (self.wake_at(), self.outbox.gate());
            tokio::select! {
                // In this order: a peer that always has something for us does not stop the clock.
                biased;
                _ = stop.wait_for(|stop| *stop), if self.stop_until.is_none() => {
                    self.stop_until = Some(Instant::now() + STOP_PATIENCE);
                }
                now = self.look.tick() => {
                    let since = now.saturating_duration_since(self.looked);
                    self.looked = now;
                    self.link.look(since, reading, &self.engine.config().limits)?;
                }
                turned = poll_fn(|cx| self.link.poll_turn(cx, reading)) => turned?,
                () = ready(()), if has_turn => {}
                () = poll_fn(|cx| self.waiter.poll_released(cx, gate.unwrap_or_default())),
                    if gate.is_some() => {}
                _ = progress.changed(), if gate.is_none() && !self.outbox.is_empty() => {}
                _ = room.changed(), if blocked == Blocked::NoRoom => {}
                () = sleep_until(wake_at.unwrap_or(self.looked)), if wake_at.is_some() => {}
            }
        }
    }

    fn is_finished(&self, blocked: Blocked) -> bool {
        let is_answered =
            blocked == Blocked::Idle && self.outbox.is_empty() && self.link.unwritten() == 0;
        self.stop_until.is_some_and(|until| is_answered || Instant::now() >= until)
    }

    fn wake_at(&self) -> Option<Instant> {
        let due = self.outbox.deadline(&self.link);
        [self.room_until, self.stop_until, due].into_iter().flatten().min()
    }

    /// Executes what came in, as far as the peer's bounds and the queue allow.
    fn execute(&mut self) -> Blocked {
        let limits = &self.engine.config().limits;
        let waiting = self.outbox.bytes() + self.link.unwritten();
        let has_memory = self.outgoing.hold(waiting);
        // Also where no request waits: PING is answered without one.
        if !has_memory || waiting >= limits.max_unread_bytes {
            return Blocked::Full;
        }
        if self.link.inbox.messages.is_empty() {
            return Blocked::Idle;
        }
        if self.outbox.replies() >= limits.max_in_flight
            || self.outbox.waiting() >= WAITING_EACH_MAX
        {
            return Blocked::Full;
        }
        let requests_max = limits.max_in_flight - self.outbox.replies();
        let room = self.outgoing.room().min(limits.max_unread_bytes - waiting);
        let blocked = ANSWERS.with_borrow_mut(|answers| {
            answers.bytes_max = room;
            let blocked = self.execute_batch(requests_max, answers);
            self.to_append = answers.to_append;
            answers.clear();
            answers.bytes.shrink_to(ANSWERS_KEPT_BYTES);
            blocked
        });
        let waiting = self.outbox.bytes() + self.link.unwritten();
        self.outgoing.hold(waiting);
        blocked
    }

    fn execute_batch(&mut self, requests_max: usize, answers: &mut Answers) -> Blocked {
        let mut inbox = std::mem::take(&mut self.link.inbox);
        let batch = Batch::decode(&inbox, self.cursor);
        let refuse_full = self.stop_until.is_some() || self.is_room_late();
        let allowed = batch.requests.get(..requests_max).unwrap_or(&batch.requests);
        let mut executed = 0;
        for requests in allowed.chunks(EXECUTE_AT_ONCE) {
            let count = self.engine.execute(requests, refuse_full, answers);
            executed += count;
            if count < requests.len() {
                break;
            }
        }
        let is_stuck = executed < allowed.len() && !answers.is_full();
        let mut replies = answers.list.as_slice();
        let (done, cursor) = batch.route(executed, |count, framing| {
            let (ours, others) = replies.split_at(count.min(replies.len()));
            replies = others;
            self.outbox.push(self.engine, &mut self.link, &answers.bytes, ours, framing);
        });
        drop(batch);
        inbox.messages.drain(..done);
        self.cursor = cursor;
        let is_empty = inbox.messages.is_empty();
        self.link.inbox = inbox;
        let blocked = match (is_stuck, is_empty) {
            (true, _) => Blocked::NoRoom,
            (false, true) => Blocked::Idle,
            (false, false) => Blocked::Turn,
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
