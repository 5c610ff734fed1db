//! A socket and its codec: one connection to one peer, without a meaning yet.
//!
//! A link reads at most one scratch buffer a turn and hands on everything that it completed, so
//! that what comes together is executed together; it writes all that waits in one call. It holds no
//! read buffer of its own: the scratch buffer belongs to the thread, and only the bytes that
//! arrived are kept.

use super::liveness::{Liveness, Seen};
use super::outlet::Outlet;
use super::pool::{Pool, Share};
use super::stream::Stream;
use super::zmtp::{Codec, Inbox, Kind, Violation};
use crate::limits::Limits;
use crate::net::ConnectionTimeouts;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// How much one turn of one connection reads at most: others wait no longer than this takes to
/// execute.
const READ_BYTES: usize = 64 * 1024;
/// How long a closing link waits for its peer to have read everything.
const LINGER: Duration = Duration::from_secs(1);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    /// The peer closed it.
    #[error("the peer closed the connection")]
    ByPeer,
    /// The system closed it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer broke the protocol, or a bound.
    #[error("cut: {0}")]
    Violation(#[from] Violation),
    /// The handshake took longer than `--handshake-ms`.
    #[error("cut: the handshake was not done in time")]
    HandshakeLate,
    /// Nothing that waited was read for `--stalled-peer-ms`.
    #[error("cut: the peer does not read what waits for it")]
    Stalled,
    /// A message was begun and not continued for `--stalled-peer-ms`.
    #[error("cut: the peer does not finish the message it began")]
    Unfinished,
    /// No answer to PING.
    #[error("cut: the peer has been silent for too long")]
    Silent,
    /// Messages not executed yet, of all connections, take more than `--max-incoming-bytes`.
    #[error("cut: incoming messages take all the memory there is for them")]
    NoMemory,
    /// Over `--max-subscriptions`.
    #[error("cut: too many subscriptions")]
    Subscriptions,
    /// The broker stops.
    #[error("the broker stops")]
    Stopped,
}

impl Closed {
    /// Whether it was our decision.
    pub fn is_cut(&self) -> bool {
        !matches!(self, Self::ByPeer | Self::Io(_) | Self::Stopped)
    }
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Link {
    stream: Stream,
    codec: Codec,
    incoming: Share,
    /// What was seen since the last look.
    heard: bool,
    wrote: bool,
    liveness: Liveness,
    timeouts: ConnectionTimeouts,
    has_more: bool,
    /// The socket took no more at the last write.
    is_full: bool,
    /// What came in; whoever serves the link empties it.
    pub inbox: Inbox,
    /// What goes out; whoever serves the link fills it.
    pub outlet: Outlet,
}

impl Link {
    /// Does the handshake on an accepted stream.
    pub async fn greet(
        stream: Stream,
        kind: Kind,
        limits: &Limits,
        incoming: &Arc<Pool>,
    ) -> Result<Self, Closed> {
        let mut link = Self {
            stream,
            codec: Codec::new(kind, limits),
            incoming: Share::of(incoming),
            heard: false,
            wrote: false,
            liveness: Liveness::default(),
            timeouts: ConnectionTimeouts::new(limits),
            has_more: false,
            is_full: false,
            inbox: Inbox::default(),
            outlet: Outlet::default(),
        };
        link.codec.take_replies(link.outlet.control());
        let deadline = link.timeouts.handshake;
        let greeted = poll_fn(|cx| {
            while !link.codec.is_ready() {
                ready!(link.poll_turn(cx, true))?;
            }
            Poll::Ready(Ok(()))
        });
        tokio::time::timeout(deadline, greeted).await.unwrap_or(Err(Closed::HandshakeLate))?;
        Ok(link)
    }

    /// Whether the last read filled the buffer, so that the next may find more at once.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Whether the peer has closed the connection, though what it sent before may not be read yet.
    pub fn is_ended(&self) -> bool {
        self.stream.is_ended()
    }

    /// Writes what waits, then reads if `reading`. Ready when something was read, when the peer has
    /// taken all that it left waiting, or, where nothing is to be read, when it has taken anything.
    pub fn poll_turn(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Result<(), Closed>> {
        if self.inbox.messages.is_empty() {
            self.inbox.rest();
            self.incoming.hold(self.held_incoming());
        }
        let was_full = self.is_full;
        let wrote = self.poll_write(cx)?;
        let is_drained = was_full && !self.is_full;
        if is_drained || (wrote && !reading) {
            return Poll::Ready(Ok(()));
        }
        if reading { self.poll_read(cx) } else { Poll::Pending }
    }

    /// Writes until nothing waits or the socket is full. True when anything was written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, Closed> {
        self.is_full = false;
        let mut wrote = false;
        while !self.is_full {
            let waiting = self.outlet.front();
            if waiting.is_empty() {
                break;
            }
            match Pin::new(&mut self.stream).poll_write(cx, waiting) {
                Poll::Ready(Ok(0)) => return Err(Closed::ByPeer),
                Poll::Ready(Ok(count)) => self.outlet.consume(count),
                Poll::Ready(Err(error)) => return Err(closed(error)),
                Poll::Pending => self.is_full = true,
            }
            wrote |= !self.is_full;
        }
        self.wrote |= wrote;
        Ok(wrote)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)).map_err(closed)?;
            let input = buffer.filled();
            if input.is_empty() {
                return Poll::Ready(Err(Closed::ByPeer));
            }
            self.heard = true;
            self.has_more = input.len() == READ_BYTES;
            let fed = self.codec.feed(input, &mut self.inbox, self.outlet.control());
            if let Err(violation) = fed {
                // The peer may learn why, if it still listens.
                let _ = self.poll_write(cx);
                return Poll::Ready(Err(violation.into()));
            }
            if !self.incoming.hold(self.held_incoming()) {
                return Poll::Ready(Err(Closed::NoMemory));
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Called now and then, with the time since the last call. Cuts a peer that does not read, does
    /// not finish what it began, or is gone; asks one that is quiet. `reading` is false while we do
    /// not read.
    pub fn look(&mut self, since: Duration, reading: bool) -> Result<(), Closed> {
        let seen = Seen {
            heard: std::mem::take(&mut self.heard),
            wrote: std::mem::take(&mut self.wrote),
            has_waiting: !self.outlet.front().is_empty(),
            unwritten: self.outlet.unwritten(),
            reading,
            unfinished: self.codec.unfinished(&self.inbox),
            peer_silence: self.codec.peer_silence(),
            knows_ping: self.codec.peer_knows_ping(),
        };
        if self.liveness.look(since, seen, &self.timeouts)? {
            self.codec.ping(self.outlet.control());
        }
        Ok(())
    }

    /// How often [`Link::look`] should be called.
    pub fn look_period(&self) -> Duration {
        self.timeouts.look_period()
    }

    fn held_incoming(&self) -> usize {
        self.inbox.held() + self.codec.held()
    }

    /// Ends the connection so that the peer still gets what was written: closing a socket that
    /// holds unread input would reset it, and the peer's system would throw our last replies away.
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
