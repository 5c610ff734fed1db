//! One accepted byte stream, TCP or Unix.

use crate::net::PeerAddress;
use futures_util::FutureExt;
use std::io;
use std::net::{self, SocketAddr};
use std::os::unix;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected socket.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Ipc(UnixStream),
}

/// A connected socket that is not registered with an event loop.
#[derive(Debug)]
pub enum Detached {
    /// Over TCP.
    Tcp(net::TcpStream),
    /// Over a Unix socket.
    Ipc(unix::net::UnixStream),
}

impl Detached {
    /// Registers the socket with this thread's event loop.
    pub fn attach(self) -> io::Result<Stream> {
        match self {
            Self::Tcp(stream) => TcpStream::from_std(stream).map(Stream::Tcp),
            Self::Ipc(stream) => UnixStream::from_std(stream).map(Stream::Ipc),
        }
    }
}

impl Stream {
    /// The peer's address.
    pub fn address(&self) -> PeerAddress {
        self.peer().map_or(PeerAddress::Local, PeerAddress::from)
    }

    /// The peer's socket, where it has an address.
    pub fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Ipc(_) => None,
        }
    }

    /// Ready when there may be something to read, or the peer has ended its side. Never fails: the
    /// read does.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let ready = match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Ipc(stream) => stream.poll_read_ready(cx),
        };
        ready.map(drop)
    }

    /// Ready when the system may take bytes. Never fails: the write does.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let ready = match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Ipc(stream) => stream.poll_write_ready(cx),
        };
        ready.map(drop)
    }

    /// Whether the event loop knows that the peer has ended its side; some of its bytes may not be
    /// read yet. Makes no system call.
    pub fn is_ended(&self) -> bool {
        let ready = match self {
            Self::Tcp(stream) => stream.ready(Interest::READABLE).now_or_never(),
            Self::Ipc(stream) => stream.ready(Interest::READABLE).now_or_never(),
        };
        ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Ipc(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Ipc(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Ipc(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
