//! A socket and its codec: one connection to one peer, with no meaning given to its messages.
//!
//! A link reads at most one scratch buffer a turn and passes on every message that it completed, so
//! that messages which arrive together are executed together. It writes all queued bytes in one
//! call. It has no read buffer of its own: the scratch buffer belongs to the thread, and only
//! received bytes are kept.

pub use super::closed::Closed;
use super::liveness::{Liveness, Seen};
use super::send_buffer::SendBuffer;
use super::stream::Stream;
use super::zmtp::{Codec, Inbox, Kind};
use crate::limits::Limits;
use crate::net::{Activity, Category, ConnectionTimeouts, MemoryQuota, Reservation, Slot};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// The most that one turn of one connection reads, unless its owner lowers it: other connections
/// wait no longer than this takes to execute.
const READ_BYTES: usize = 64 * 1024;
/// The least that a turn reads, where memory is short.
const READ_BYTES_MIN: usize = 512;
/// The most that a turn reads before the (short) handshake is done.
const GREETING_BYTES: usize = 1024;
/// How long a closing link waits for its peer to read everything.
const LINGER: Duration = Duration::from_secs(1);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

impl Closed {
    /// Whether the broker decided to close it.
    pub fn is_cut(&self) -> bool {
        !matches!(self, Self::ByPeer | Self::Io(_) | Self::Stopped | Self::Evicted)
    }
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Link {
    stream: Stream,
    codec: Codec,
    slot: Arc<Slot>,
    incoming: Reservation,
    /// The peer ended its side: everything that it sent has been read.
    is_over: bool,
    /// Events since the last look.
    received: bool,
    wrote: bool,
    moved: usize,
    /// Messages arrived or were read, not only PINGs.
    is_active: bool,
    active_at: std::time::Instant,
    /// Whether the accounts count the time: the peer is to read, or to continue a message.
    is_observed: bool,
    is_sending: bool,
    /// The send buffer waits for an event that the peer waits on, and not for the disk.
    is_held_back: bool,
    rate_min: u64,
    liveness: Liveness,
    timeouts: ConnectionTimeouts,
    read_max: usize,
    has_more: bool,
    /// The socket was full at the last write.
    is_full: bool,
    /// Received messages; the link's owner takes them out.
    pub inbox: Inbox,
    /// Bytes to send; the link's owner adds them.
    pub send_buffer: SendBuffer,
    /// The memory reserved for the send buffer.
    pub outgoing: Reservation,
}

impl Link {
    /// Does the handshake on an accepted stream.
    pub async fn greet(
        stream: Stream,
        kind: Kind,
        limits: &Limits,
        quota: &MemoryQuota,
        slot: Slot,
    ) -> Result<Self, Closed> {
        let mut link = Self {
            stream,
            codec: Codec::new(kind, limits),
            slot: Arc::new(slot),
            incoming: quota.account(Category::Incoming).reservation(),
            outgoing: quota.account(Category::Outgoing).reservation(),
            is_over: false,
            received: false,
            wrote: false,
            moved: 0,
            is_active: false,
            active_at: std::time::Instant::now(),
            is_observed: false,
            is_sending: false,
            is_held_back: false,
            rate_min: limits.min_transfer_rate,
            liveness: Liveness::default(),
            timeouts: ConnectionTimeouts::new(limits),
            read_max: GREETING_BYTES,
            has_more: false,
            is_full: false,
            inbox: Inbox::default(),
            send_buffer: SendBuffer::default(),
        };
        link.codec.take_replies(link.send_buffer.control());
        let deadline = link.timeouts.handshake;
        let slot = Arc::clone(&link.slot);
        let greeted = poll_fn(|cx| {
            while !link.codec.is_ready() {
                ready!(link.poll_turn(cx, true))?;
                if link.is_over {
                    return Poll::Ready(Err(Closed::ByPeer));
                }
            }
            Poll::Ready(Ok(()))
        });
        let greeted = tokio::time::timeout(deadline, greeted);
        tokio::select! {
            greeted = greeted => greeted.unwrap_or(Err(Closed::HandshakeLate))?,
            () = slot.evicted() => return Err(Closed::Evicted),
        }
        slot.note(Activity::Quiet, std::time::Instant::now());
        link.read_max = READ_BYTES;
        Ok(link)
    }

    /// Bounds the bytes that one turn reads.
    pub fn read_at_most(&mut self, bytes: usize) {
        self.read_max = bytes.clamp(READ_BYTES_MIN, READ_BYTES);
    }

    /// Whether the last read filled the buffer, so that another read may find more at once.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// The connection's slot.
    pub fn slot(&self) -> Arc<Slot> {
        Arc::clone(&self.slot)
    }

    /// Whether the peer has ended its side, and all of its bytes have been read. It may still read.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether the peer has ended its side; some of its bytes may not be read yet.
    pub fn is_ended(&self) -> bool {
        self.stream.is_ended()
    }

    /// Ready when a turn would do something: the socket takes queued bytes, or, if `reading`, has
    /// bytes to read and there is memory for them. Reads and writes nothing.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Result<(), Closed>> {
        self.poll_cut(cx)?;
        if self.send_buffer.unwritten() > 0 && self.stream.poll_write_ready(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if !reading || self.is_over {
            return Poll::Pending;
        }
        if self.incoming.is_in_line() {
            return self.incoming.poll_turn(cx).map(Ok);
        }
        self.stream.poll_read_ready(cx).map(Ok)
    }

    /// Writes queued bytes, then reads if `reading`. Ready when something was read, when the peer
    /// has taken everything that it left waiting, or, where nothing is to be read, when it has
    /// taken anything.
    pub fn poll_turn(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Result<(), Closed>> {
        if self.inbox.messages.is_empty() {
            self.inbox.rest();
            self.incoming.settle(self.inbox.held_after(READ_BYTES));
        }
        let was_full = self.is_full;
        let wrote = self.poll_write(cx)?;
        self.poll_cut(cx)?;
        let is_drained = was_full && !self.is_full;
        if is_drained || (wrote && !reading) {
            return Poll::Ready(Ok(()));
        }
        if !reading || self.is_over {
            return Poll::Pending;
        }
        loop {
            if self.incoming.is_in_line() {
                ready!(self.incoming.poll_turn(cx));
            }
            match self.readable() {
                // The account is in line for memory now.
                0 => {}
                bytes => return self.poll_read(cx, bytes),
            }
        }
    }

    /// How many bytes may be read: as many as there is memory for. Where there is none, the account
    /// enters the line.
    fn readable(&mut self) -> usize {
        let held = self.codec.held();
        if self.incoming.try_cover(held + self.inbox.held_after(self.read_max)) {
            return self.read_max;
        }
        let needed = held + self.inbox.held_after(READ_BYTES_MIN);
        let spare = self.incoming.covered().saturating_sub(needed);
        if spare > 0 || self.incoming.cover(needed) {
            return (READ_BYTES_MIN + spare).min(self.read_max);
        }
        0
    }

    /// Fails when other connections wait for the memory that the peer makes this one hold.
    fn poll_cut(&mut self, cx: &Context<'_>) -> Result<(), Closed> {
        let both = [(&self.outgoing, self.is_observed), (&self.incoming, self.is_sending)];
        for (memory, is_observed) in both {
            // Only a connection that waits for its peer is cut.
            if is_observed && memory.account().poll_cut(cx).is_ready() {
                return Err(Closed::Slow);
            }
        }
        Ok(())
    }

    /// Writes until nothing waits or the socket is full. True when anything was written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, Closed> {
        self.is_full = false;
        let mut wrote = 0;
        while !self.is_full {
            let waiting = self.send_buffer.front();
            if waiting.is_empty() {
                break;
            }
            match Pin::new(&mut self.stream).poll_write(cx, waiting) {
                Poll::Ready(Ok(0)) => return Err(Closed::ByPeer),
                Poll::Ready(Ok(count)) => {
                    if self.send_buffer.consume(count) {
                        self.is_active = true;
                        self.moved += count;
                    }
                    wrote += count;
                }
                Poll::Ready(Err(error)) => return Err(closed(error)),
                Poll::Pending => self.is_full = true,
            }
        }
        if wrote > 0 {
            self.wrote = true;
            self.outgoing.account().moved(wrote);
        }
        let is_observed =
            (self.is_full || self.is_held_back) && self.outgoing.account().reserved() > 0;
        if is_observed != self.is_observed {
            self.is_observed = is_observed;
            self.outgoing.account().observe(is_observed);
        }
        Ok(wrote > 0)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<Result<(), Closed>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let space = scratch.get_mut(..bytes).unwrap_or_default();
            let mut buffer = ReadBuf::new(space);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)).map_err(closed)?;
            let input = buffer.filled();
            if input.is_empty() {
                (self.is_over, self.has_more) = (true, false);
                return Poll::Ready(Ok(()));
            }
            self.received = true;
            self.has_more = input.len() == bytes;
            let requested_before = self.codec.requested_bytes();
            let fed = self.codec.feed(input, &mut self.inbox, self.send_buffer.control());
            // A peer that only sends PINGs requests nothing.
            let requested = (self.codec.requested_bytes() - requested_before) as usize;
            if requested > 0 {
                self.is_active = true;
                self.slot.touch(std::time::Instant::now());
            }
            self.moved += requested;
            if let Err(violation) = fed {
                // The peer may learn the reason, if it still reads.
                let _ = self.poll_write(cx);
                return Poll::Ready(Err(violation.into()));
            }
            self.incoming.account().moved(requested);
            if self.is_sending != self.inbox.is_open() {
                self.is_sending = self.inbox.is_open();
                self.incoming.account().observe(self.is_sending);
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Called now and then, with the time since the last call. Cuts a peer that does not read, does
    /// not finish a message, or is gone; sends a PING to a quiet one. `reading` is false while the
    /// link is not read from; `activity` is what the connection is doing otherwise.
    pub fn look(
        &mut self,
        since: Duration,
        reading: bool,
        activity: Activity,
    ) -> Result<(), Closed> {
        let reading = reading && !self.is_over && !self.incoming.is_in_line();
        self.note(since, activity);
        let seen = Seen {
            received: std::mem::take(&mut self.received),
            wrote: std::mem::take(&mut self.wrote),
            has_waiting: !self.send_buffer.front().is_empty(),
            unwritten: self.send_buffer.unwritten(),
            reading,
            unfinished: self.codec.unfinished(&self.inbox),
            peer_silence: self.codec.peer_silence(),
            knows_ping: self.codec.peer_knows_ping(),
        };
        if self.liveness.look(since, seen, &self.timeouts)? {
            self.codec.ping(self.send_buffer.control());
        }
        Ok(())
    }

    /// Records the connection's activity in its slot, and frees memory where it is idle.
    fn note(&mut self, since: Duration, activity: Activity) {
        if std::mem::take(&mut self.is_active) {
            self.active_at = std::time::Instant::now();
        }
        let is_begun = self.codec.unfinished(&self.inbox).is_some();
        let waits_for_peer = is_begun || self.is_full || self.is_held_back;
        let least = u128::from(self.rate_min) * since.as_millis() / 1_000;
        let is_slow = waits_for_peer && (self.moved as u128) < least;
        let activity = match activity {
            Activity::Busy if is_slow => Activity::Slow,
            Activity::Quiet | Activity::Following if waits_for_peer && !is_slow => Activity::Busy,
            Activity::Quiet | Activity::Following if waits_for_peer => Activity::Slow,
            other => other,
        };
        self.slot.note(activity, self.active_at);
        self.moved = 0;
        if self.inbox.messages.is_empty() && !is_begun && !self.incoming.is_in_line() {
            self.incoming.settle_exactly(self.inbox.held());
        }
        if self.send_buffer.unwritten() == 0 {
            self.send_buffer.rest();
        }
    }

    /// Sends a probe to a peer that has ended its side, to learn whether it still reads: the system
    /// of a peer that is gone answers with a reset, which the next probe finds.
    pub fn probe(&mut self) {
        if self.codec.peer_knows_ping() {
            self.codec.ping(self.send_buffer.control());
        }
    }

    /// Marks that the send buffer waits for an event that the peer waits on: it keeps memory that
    /// other connections may need.
    pub fn hold_back(&mut self, is_held_back: bool) {
        self.is_held_back = is_held_back;
    }

    /// How often [`Link::look`] should be called.
    pub fn look_period(&self) -> Duration {
        self.timeouts.look_period()
    }

    /// Ends the connection so that the peer still receives written bytes: closing a socket with
    /// unread input would reset it, and the peer's system would drop our last replies.
    pub async fn close(mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let mut rest = [0; 4096];
        let drained = async { while let Ok(1..) = self.stream.read(&mut rest).await {} };
        let _ = tokio::time::timeout(LINGER, drained).await;
    }
}

fn closed(error: io::Error) -> Closed {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Closed::ByPeer,
        _ => Closed::Io(error),
    }
}
