//! PUB: sends every subscriber the changes that it subscribed to, and reports missed ones.
//!
//! Nothing is pushed. Each subscriber's task has a position in the feed of committed records and
//! reads on from there when its socket has room. So a slow subscriber delays no other and costs no
//! memory of its own. When the feed has dropped records that it did not read, it gets a `\xFFlost`
//! message and continues after them.
//!
//! A subscriber's task works in bulk turns: one commit wakes all of them, and requests are executed
//! in between.

use super::edge::{Edge, EdgeError};
use super::encoded_record::{self, EncodedRecord};
use super::link::{Closed, Link};
use super::stream::Stream;
use super::subscriptions::Subscriptions;
use super::zmtp::{Kind, Signal, write_frame};
use crate::engine::Engine;
use crate::limits::Limits;
use crate::net::io_threads::IoThreads;
use crate::net::turns::bulk;
use crate::net::{Activity, Category, Reservation, Slot};
use crate::protocol::change::Header;
use crate::protocol::{Level, Seq};
use crate::wal::Record;
use crate::wal::feed::{FeedRead, FeedReader};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// The topic of the beat, which comes each second.
pub const BEAT: &[u8] = b"\xFFbeat";
/// The topic of a notice that changes were missed.
pub const LOST: &[u8] = b"\xFFlost";
/// How often the beat comes.
const BEAT_PERIOD: Duration = Duration::from_secs(1);
/// Unwritten bytes above which nothing more is read from the feed.
const UNWRITTEN_BYTES: usize = 256 * 1024;
/// The memory that a subscriber reserves for small changes; larger ones take more.
const SEND_BYTES: usize = 64 * 1024;
/// The longest message that a subscriber may send: a subscription.
const MESSAGE_BYTES: usize = 64 * 1024;
/// Bytes read in a turn: subscriptions are short, and each takes an entry in a map.
const TURN_BYTES: usize = 1024;
/// The longest beat, in bytes.
const NOTICE_BYTES: usize = 128;
/// How long subscribers may take to read the last changes when the broker stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// The PUB edge, listening.
#[derive(Debug)]
pub struct Publisher {
    edge: Edge,
    engine: Arc<Engine>,
    limits: Limits,
}

impl Publisher {
    /// Listens on `endpoints`, the values of `--publisher`.
    pub async fn bind(endpoints: &[String], engine: Arc<Engine>) -> Result<Self, EdgeError> {
        let limits = &engine.config().limits;
        let refusing = Arc::clone(&engine);
        let refused = move || refusing.counters().refused_connections.up();
        let edge = Edge::bind("--publisher", endpoints, limits, refused).await?;
        let max_message_bytes = limits.max_message_bytes.min(MESSAGE_BYTES);
        let limits = Limits { max_message_bytes, max_frames: 1, ..limits.clone() };
        Ok(Self { edge, engine, limits })
    }

    /// The endpoints in use, with the ports that the system chose.
    pub fn endpoints(&self) -> Vec<String> {
        self.edge.endpoints()
    }

    /// Serves on `io_threads` until `stop` is true; changes committed by then are still sent.
    pub async fn run(self, io_threads: Arc<IoThreads>, stop: watch::Receiver<bool>) {
        let shared = Arc::new((self.engine, self.limits));
        let stopping = stop.clone();
        let serve = move |stream, slot| {
            let (shared, stop) = (Arc::clone(&shared), stopping.clone());
            async move {
                let (engine, limits) = &*shared;
                engine.counters().subscribers.up();
                let ended = subscriber(stream, engine, limits, slot, stop).await;
                engine.counters().subscribers.down();
                if ended.is_cut() {
                    engine.counters().refused_connections.up();
                }
                if matches!(ended, Closed::Subscriptions(_)) {
                    // A subscriber connects again by itself, but its end should be found in the log
                    // all the same.
                    tracing::warn!("a subscriber's connection ended: {ended}");
                } else {
                    tracing::debug!("a subscriber's connection ended: {ended}");
                }
            }
        };
        self.edge.run(io_threads, stop, serve).await;
    }
}

pub(super) async fn subscriber(
    stream: Stream,
    engine: &Engine,
    limits: &Limits,
    slot: Slot,
    mut stop: watch::Receiver<bool>,
) -> Closed {
    let greeting = Link::greet(stream, Kind::Publisher, limits, engine.quota(), slot);
    let greeted = tokio::select! {
        greeted = greeting => greeted,
        _ = stop.wait_for(|stop| *stop) => return Closed::Stopped,
    };
    let link = match greeted {
        Ok(link) => link,
        Err(closed) => return closed,
    };
    let subscriptions = Subscriptions::new(limits);
    let memory = engine.quota().account(Category::Subscriptions).reservation();
    let (reader, prev, wants_most) = (None, 0, false);
    let mut subscriber =
        Subscriber { link, engine, subscriptions, memory, reader, prev, wants_most };
    subscriber.link.read_at_most(TURN_BYTES);
    subscriber.run(stop).await
}

/// One subscriber.
struct Subscriber<'e> {
    link: Link,
    engine: &'e Engine,
    subscriptions: Subscriptions,
    /// The memory reserved for its subscriptions.
    memory: Reservation,
    /// Its position in the feed; `None` without a subscription.
    reader: Option<FeedReader>,
    /// The seq of the last change sent to it.
    prev: Seq,
    /// It got most of the last record, so a record that is encoded whole is of use to it.
    wants_most: bool,
}

/// How far sending went.
#[derive(PartialEq, Eq)]
enum Progress {
    /// Everything was sent.
    All,
    /// As much as one turn allows.
    Some,
    /// As much as the peer reads.
    Full,
    /// As much as there is memory for: the account is in line for more.
    InLine,
}

impl Subscriber<'_> {
    async fn run(mut self, mut stop: watch::Receiver<bool>) -> Closed {
        let served = self.serve(&mut stop).await;
        // Thousands may end at once, and each has a map to free.
        bulk::turn().await;
        match served {
            Err(closed) => closed,
            Ok(()) => {
                if self.link.slot().is_evicted() {
                    // Another connection has its slot by now.
                    return Closed::Evicted;
                }
                self.link.close().await;
                Closed::Stopped
            }
        }
    }

    /// Runs until the peer is gone, or until everything is sent after `stop`.
    async fn serve(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), Closed> {
        let mut committed = self.engine.feed().subscribe();
        let mut beat = interval(BEAT_PERIOD);
        let mut look = interval(self.link.look_period());
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = Instant::now();
        let mut deadline = None;
        let slot = self.link.slot();
        let mut reading = true;
        loop {
            bulk::turn().await;
            // Inside the turn, and not in the wait below: reading is a part of the turn.
            poll_fn(|cx| Poll::Ready(self.turn(cx, reading))).await?;
            self.subscribe()?;
            if self.link.is_over() {
                return Err(Closed::ByPeer);
            }
            committed.mark_unchanged();
            let progress = self.send_new();
            let finished = progress == Progress::All && self.link.send_buffer.unwritten() == 0;
            if deadline.is_some_and(|deadline| finished || Instant::now() >= deadline) {
                return Ok(());
            }
            // Queued bytes are written now, and not in the next turn.
            poll_fn(|cx| Poll::Ready(self.turn(cx, false))).await?;
            reading =
                progress != Progress::Full && self.link.send_buffer.unwritten() < UNWRITTEN_BYTES;
            let in_line = progress == Progress::InLine;
            if self.link.has_more() {
                yield_now().await;
            }
            tokio::select! {
                ready = poll_fn(|cx| self.poll_ready(cx, reading, in_line)) => ready?,
                _ = committed.changed(), if progress == Progress::All && self.reader.is_some() => {}
                () = yield_now(), if progress == Progress::Some => {}
                () = slot.evicted() => return Ok(()),
                _ = beat.tick() => self.beat(),
                now = look.tick() => {
                    let since = now.saturating_duration_since(looked);
                    looked = now;
                    let is_quiet = self.link.send_buffer.unwritten() == 0;
                    let activity = match (is_quiet, self.subscriptions.is_empty()) {
                        (true, true) => Activity::Quiet,
                        (true, false) => Activity::Following,
                        (false, _) => Activity::Busy,
                    };
                    self.link.look(since, reading, activity)?;
                    if is_quiet && progress != Progress::InLine {
                        self.link.outgoing.settle_exactly(self.link.send_buffer.held());
                    }
                }
                _ = stop.wait_for(|stop| *stop), if deadline.is_none() => {
                    deadline = Some(Instant::now() + STOP_PATIENCE);
                }
            }
        }
    }

    /// Runs a turn of the link, as far as it goes without waiting.
    fn turn(&mut self, context: &mut Context<'_>, reading: bool) -> Result<(), Closed> {
        match self.link.poll_turn(context, reading) {
            Poll::Ready(turned) => turned,
            Poll::Pending => Ok(()),
        }
    }

    /// Ready when the link has a turn to run, or when memory was granted.
    fn poll_ready(
        &mut self,
        context: &mut Context<'_>,
        reading: bool,
        in_line: bool,
    ) -> Poll<Result<(), Closed>> {
        if let Poll::Ready(ready) = self.link.poll_ready(context, reading) {
            return Poll::Ready(ready);
        }
        match in_line {
            true => self.link.outgoing.poll_turn(context).map(Ok),
            false => Poll::Pending,
        }
    }

    /// Applies subscriptions, sent by command (ZMTP 3.1) or by message (ZMTP 3.0).
    fn subscribe(&mut self) -> Result<(), Closed> {
        while let Some(signal) = self.link.inbox.signals.pop_front() {
            match signal {
                Signal::Subscribe(topic) => self.add(&topic)?,
                Signal::Cancel(topic) => self.subscriptions.remove(&topic),
            }
        }
        self.memory.settle(self.subscriptions.held());
        if self.subscriptions.is_empty() {
            self.reader = None;
        }
        Ok(())
    }

    fn add(&mut self, topic: &[u8]) -> Result<(), Closed> {
        if !self.subscriptions.add(topic) {
            return Err(Closed::Subscriptions("--max-subscriptions, or their length"));
        }
        if !self.memory.try_cover(self.subscriptions.held()) {
            return Err(Closed::Subscriptions("--max-subscription-bytes"));
        }
        let reader = self.reader.get_or_insert_with(|| self.engine.feed().reader());
        // Changes before this one took effect must show as a gap: a client that connects anew sends
        // its subscriptions in any order, one by one.
        self.prev = reader.seq();
        Ok(())
    }

    /// Queues new changes, as far as there is room.
    fn send_new(&mut self) -> Progress {
        let progress = self.send_next();
        if progress != Progress::InLine {
            self.link.outgoing.leave_line();
        }
        self.link.outgoing.settle(self.link.send_buffer.held());
        progress
    }

    fn send_next(&mut self) -> Progress {
        let Some(reader) = &mut self.reader else { return Progress::All };
        if self.link.send_buffer.unwritten() >= UNWRITTEN_BYTES {
            return Progress::Full;
        }
        if self.link.outgoing.is_in_line() {
            return Progress::InLine;
        }
        let held = self.link.send_buffer.held();
        // Where memory is short, the free part has to do.
        self.link.outgoing.try_cover(held + SEND_BYTES);
        let free = self.link.outgoing.covered().saturating_sub(held);
        let FeedRead { records, lost, large } =
            reader.read_small(free, encoded_record::record_bytes_max);
        if let Some(lost) = lost {
            self.engine.counters().lost.up();
            self.notice(LOST, "lost", lost);
            self.prev = lost;
        }
        if let Some(record) = large {
            return self.send_large(&record);
        }
        if records.is_empty() {
            return Progress::All;
        }
        for record in &records {
            self.send_record(record);
        }
        Progress::Some
    }

    fn send_record(&mut self, record: &Arc<Record>) {
        let has_others = self.engine.counters().subscribers.get() > 1;
        let shared = if has_others && self.wants_most { EncodedRecord::of(record) } else { None };
        let count = match shared {
            Some(encoded) => self.send_encoded(&encoded),
            None => self.encode_record(record),
        };
        self.wants_most = count * 2 > record.items;
    }

    /// Sends a record that may need more memory than is free. Its position in the feed stays until
    /// there is some, as far as the feed reaches back.
    fn send_large(&mut self, record: &Arc<Record>) -> Progress {
        let held = self.link.send_buffer.held();
        if !self.link.outgoing.try_cover(held + encoded_record::record_bytes_max(record)) {
            // The subscriber's part of the record may need less.
            let wanted = self.subscriptions.matcher();
            let changes = record.changes().filter(|change| wanted.matches(change.key));
            let bytes = changes.map(|change| encoded_record::bytes_max(&change)).sum::<usize>();
            if bytes > 0 && !self.link.outgoing.cover(held + bytes) {
                return Progress::InLine;
            }
        }
        if let Some(reader) = &mut self.reader {
            reader.pass(record);
        }
        self.send_record(record);
        Progress::Some
    }

    /// Sends its part of a record; returns how many changes that were.
    fn encode_record(&mut self, record: &Record) -> usize {
        let (wanted, mut count) = (self.subscriptions.matcher(), 0);
        for change in record.changes().filter(|change| wanted.matches(change.key)) {
            let out = self.link.send_buffer.out(true, encoded_record::bytes_max(&change));
            encoded_record::append(out, &change, self.prev);
            self.prev = change.seq;
            count += 1;
        }
        count
    }

    /// Sends its part of an encoded record; returns how many changes that were.
    fn send_encoded(&mut self, encoded: &EncodedRecord) -> usize {
        let (wanted, mut count) = (self.subscriptions.matcher(), 0);
        for (change, prev, message) in encoded.each() {
            if !wanted.matches(change.key) {
                continue;
            }
            count += 1;
            let out = self.link.send_buffer.out(true, encoded_record::bytes_max(&change));
            if prev == self.prev {
                out.extend_from_slice(message);
            } else {
                encoded_record::append(out, &change, self.prev);
            }
            self.prev = change.seq;
        }
        count
    }

    /// The beat says up to which seq everything was sent; a lagging subscriber gets none.
    fn beat(&mut self) {
        if let Some(seq) = self.reader.as_ref().map(FeedReader::seq)
            && self.link.send_buffer.unwritten() < UNWRITTEN_BYTES
            && self.subscriptions.matcher().matches(BEAT)
        {
            self.notice(BEAT, "beat", seq);
        }
    }

    fn notice(&mut self, topic: &[u8], op: &str, seq: Seq) {
        let (prev, level) = (self.prev, Level::Memory);
        let notice = Header { seq, op, index: 0, count: 0, prev, ttl_ms: None, level };
        let send_buffer = &mut self.link.send_buffer;
        let out = match topic == BEAT {
            true => send_buffer.beat(NOTICE_BYTES),
            false => send_buffer.out(true, NOTICE_BYTES),
        };
        write_frame(out, true, topic);
        encoded_record::write_header(out, &notice);
        write_frame(out, false, &[]);
    }
}
