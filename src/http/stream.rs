//! A connection's bytes on their way to hyper and back: heads checked, and every wait on the peer
//! timed.

use super::connection_phase::{ConnectionPhase, PROGRESS_BYTES, Phase};
use super::head::{self, Fault, HEAD_BYTES, Scan};
use crate::net::{Account, Activity, Caller, Slot};
use hyper::rt::{Read, ReadBufCursor, Write};
use std::io::{IoSlice, Result};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The buffer of a connection that has sent nothing large.
const BUFFER_BYTES: usize = 2 * 1024;
/// The most bytes that a peer may send after our last answer before its connection is cut.
const LINGER_BYTES: usize = 1024 * 1024;
/// The stand-in that hyper gets for a refused head; the service checks [`Shared::fault`] first.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// The state that a connection's stream, service and task share.
#[derive(Debug)]
pub struct Shared {
    /// The local address that accepted it.
    pub accepted_on: IpAddr,
    /// The connection, as the engine knows it.
    pub caller: Arc<Caller>,
    /// Its account of the memory for answers.
    pub account: Arc<Account>,
    /// Its slot.
    pub slot: Slot,
    /// What the connection is doing.
    pub phase: ConnectionPhase,
    /// The fault of its last head.
    pub fault: OnceLock<Fault>,
    /// Whether its last head announced a body, after which it is closed.
    pub is_last: AtomicBool,
}

impl Shared {
    /// The state of a new connection.
    pub fn new(
        accepted_on: IpAddr,
        peer: Option<SocketAddr>,
        account: Arc<Account>,
        slot: Slot,
    ) -> Self {
        Self {
            accepted_on,
            caller: Caller::with_peer(slot.address(), peer),
            account,
            slot,
            phase: ConnectionPhase::default(),
            fault: OnceLock::new(),
            is_last: AtomicBool::new(false),
        }
    }

    /// Sets the phase of the connection.
    pub fn note(&self, activity: Activity) {
        self.slot.note(activity, Instant::now());
    }

    /// Enters a phase in which the peer has to act.
    fn wait_for_peer(&self, phase: Phase) {
        if self.phase.enter(phase) {
            self.note(Activity::Quiet);
        }
    }
}

/// The kind of the next bytes.
enum Mode {
    /// A request's head.
    Head(Scan),
    /// The body of the connection's last request, passed on as it arrives.
    Body,
    /// Nothing: the peer is done, or its further bytes are ignored.
    Over,
}

/// A socket as hyper reads and writes it.
pub struct Stream<T> {
    socket: T,
    shared: Arc<Shared>,
    mode: Mode,
    buffer: Vec<u8>,
    /// `buffer[released..filled]` came from the peer and hyper may not see it yet.
    filled: usize,
    /// `buffer[taken..released]` is for hyper.
    released: usize,
    taken: usize,
    /// Bytes the peer took since its last progress was noted.
    progress: usize,
    lingered: usize,
    has_shut_down: bool,
    /// Whether the peer's reading rate counts.
    is_observed: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream<T> {
    /// A stream over a fresh `socket`.
    pub fn new(socket: T, shared: Arc<Shared>) -> Self {
        Self {
            socket,
            shared,
            mode: Mode::Head(Scan::default()),
            buffer: vec![0; BUFFER_BYTES],
            filled: 0,
            released: 0,
            taken: 0,
            progress: 0,
            lingered: 0,
            has_shut_down: false,
            is_observed: false,
        }
    }

    /// Sets whether the peer has to act.
    fn observe(&mut self, waits_for_peer: bool) {
        if std::mem::replace(&mut self.is_observed, waits_for_peer) != waits_for_peer {
            self.shared.account.observe(waits_for_peer);
        }
    }

    /// Gives hyper the released bytes, as far as it has room; returns whether there were any.
    fn hand_over(&mut self, cursor: &mut ReadBufCursor<'_>) -> bool {
        let end = self.released.min(self.taken + cursor.remaining());
        let bytes = self.buffer.get(self.taken..end).unwrap_or_default();
        cursor.put_slice(bytes);
        let had_any = self.taken < self.released;
        self.taken = end;
        had_any
    }

    /// Releases the next head if it is whole, or its stand-in if it is refused.
    fn release(&mut self) -> bool {
        let unseen = self.buffer.get(self.released..self.filled).unwrap_or_default();
        let Mode::Head(scan) = &mut self.mode else {
            self.released = self.filled;
            return !unseen.is_empty();
        };
        match scan.advance(unseen) {
            Ok(None) => return false,
            Ok(Some(head)) => {
                self.shared.is_last.store(head.has_body, Relaxed);
                self.mode = if head.has_body { Mode::Body } else { Mode::Head(Scan::default()) };
                match head::escaped(unseen, &head) {
                    None => self.released += head.end,
                    Some(text) => self.replace(head.end, &text),
                }
            }
            Err(fault) => {
                let _ = self.shared.fault.set(fault);
                self.mode = Mode::Over;
                self.replace(self.filled - self.released, STAND_IN);
            }
        }
        self.shared.phase.enter(Phase::Serving);
        self.shared.note(Activity::Busy);
        true
    }

    /// Replaces the next `len` unseen bytes by `text`, and releases it.
    fn replace(&mut self, len: usize, text: &[u8]) {
        let rest = self.buffer.get(self.released + len..self.filled).unwrap_or_default();
        self.buffer = [text, rest].concat();
        (self.taken, self.released, self.filled) = (0, text.len(), self.buffer.len());
    }

    /// Reads once from the socket; 0 at its end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        // Everything released has been taken, so what is unseen can move to the front.
        self.buffer.copy_within(self.released..self.filled, 0);
        (self.filled, self.taken, self.released) = (self.filled - self.released, 0, 0);
        if self.filled == self.buffer.len() {
            self.buffer
                .resize((2 * self.filled).clamp(BUFFER_BYTES, HEAD_BYTES.max(self.filled + 1)), 0);
        }
        let mut space = ReadBuf::new(self.buffer.get_mut(self.filled..).unwrap_or_default());
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut space))?;
        let len = space.filled().len();
        self.filled += len;
        Poll::Ready(Ok(len))
    }

    /// Records that the peer took `len` bytes.
    fn wrote(&mut self, len: usize) {
        self.progress += len;
        if self.progress >= PROGRESS_BYTES {
            self.progress = 0;
            self.shared.phase.waits(true);
        }
    }

    fn note_write(&mut self, written: Poll<Result<usize>>) -> Poll<Result<usize>> {
        match &written {
            Poll::Ready(Ok(len)) => {
                self.shared.account.moved(*len);
                self.wrote(*len);
            }
            Poll::Pending => {
                self.shared.phase.waits(false);
                self.observe(true);
            }
            Poll::Ready(Err(_)) => {}
        }
        written
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Read for Stream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<Result<()>> {
        let this = &mut *self;
        loop {
            if this.hand_over(&mut cursor) {
                return Poll::Ready(Ok(()));
            }
            if this.release() {
                continue;
            }
            match this.mode {
                Mode::Over => return Poll::Ready(Ok(())),
                Mode::Body => {}
                Mode::Head(_) if this.filled > this.released => {
                    this.shared.wait_for_peer(Phase::Head)
                }
                Mode::Head(_) => this.shared.wait_for_peer(Phase::Idle),
            }
            if ready!(this.poll_fill(cx))? == 0 {
                this.mode = Mode::Over;
                this.filled = this.released;
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Write for Stream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.note_write(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        // hyper flushes when it has passed on all its bytes.
        self.shared.phase.flows();
        self.observe(false);
        self.progress = 0;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Closes our side, then reads what the peer still sends, so that a reset does not overtake our
    /// answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        if !this.has_shut_down {
            ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
            this.has_shut_down = true;
            this.shared.wait_for_peer(Phase::Closing);
        }
        loop {
            (this.taken, this.released, this.filled) = (0, 0, 0);
            let len = ready!(this.poll_fill(cx))?;
            this.lingered += len;
            if len == 0 || this.lingered > LINGER_BYTES {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.note_write(written)
    }
}
