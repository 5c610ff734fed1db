//! Listens on one endpoint and gives each connection a task of its own.

use super::endpoint::Endpoint;
use super::stream::{Detached, Stream};
use crate::descriptors;
use crate::loops::Loops;
use std::fmt;
use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, UnixListener, lookup_host};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Connections that the system may hold for us until we accept them.
const BACKLOG: u32 = 1024;
/// The first and the longest pause after an accept that failed.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_LONGEST: Duration = Duration::from_secs(1);

/// Why an endpoint cannot be listened on: the flag, the endpoint, the cause, and what helps.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {endpoint}: {cause}")]
pub struct BindError {
    flag: &'static str,
    endpoint: Endpoint,
    cause: BindCause,
}

#[derive(Debug, thiserror::Error)]
enum BindCause {
    #[error("the host is not known ({0}): give an address of this machine, such as 127.0.0.1")]
    Unknown(io::Error),
    #[error("something listens there already: stop it, or choose another endpoint")]
    InUse,
    #[error("no such address on this machine: choose one of its own, such as 127.0.0.1")]
    NotOurs,
    #[error("not allowed: choose a port above 1023, or a directory you may write")]
    NotAllowed,
    #[error("there is a file that is no socket: move it away, or choose another path")]
    NotASocket,
    #[error("{0}")]
    Other(io::Error),
}

impl From<io::Error> for BindCause {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse,
            io::ErrorKind::AddrNotAvailable => Self::NotOurs,
            io::ErrorKind::PermissionDenied => Self::NotAllowed,
            _ => Self::Other(error),
        }
    }
}

/// How many connections an edge has and may have.
pub struct Seats {
    max: usize,
    taken: AtomicUsize,
    has_warned: AtomicBool,
    on_refusal: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Seats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seats").field("max", &self.max).field("taken", &self.taken).finish()
    }
}

impl Seats {
    /// Room for `max` connections; `on_refusal` hears of each that is closed for want of it.
    pub fn new(max: usize, on_refusal: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            max,
            taken: AtomicUsize::new(0),
            has_warned: AtomicBool::new(false),
            on_refusal: Box::new(on_refusal),
        })
    }

    fn take(self: &Arc<Self>) -> Option<Seat> {
        if self.taken.fetch_add(1, Ordering::Relaxed) < self.max {
            return Some(Seat(Arc::clone(self)));
        }
        self.taken.fetch_sub(1, Ordering::Relaxed);
        (self.on_refusal)();
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!("{} connections, as --max-connections allows: refusing more", self.max);
        }
        None
    }
}

/// One connection's seat; free again when dropped.
#[derive(Debug)]
struct Seat(Arc<Seats>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    endpoint: Endpoint,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Ipc { listener: UnixListener, _file: SocketFile },
}

impl Listener {
    /// Listens on `endpoint`, which `flag` named.
    pub async fn bind(flag: &'static str, endpoint: &Endpoint) -> Result<Self, BindError> {
        let bound = match endpoint {
            Endpoint::Tcp { host, port } => bind_tcp(host, *port).await,
            Endpoint::Ipc { path } => bind_ipc(path).await,
        };
        bound.map_err(|cause| BindError { flag, endpoint: endpoint.clone(), cause })
    }

    /// Where it really listens: with the port that the system chose.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Accepts until `stop` says true, then waits until every connection has ended; they are served
    /// on `loops`. `serve` is told `stop` by its own copy.
    pub async fn run<F, T>(
        self,
        seats: Arc<Seats>,
        loops: &Loops,
        mut stop: watch::Receiver<bool>,
        serve: F,
    ) where
        F: Fn(Stream) -> T + Clone + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        let mut pause = Duration::ZERO;
        // A moment, not a time: it is waited for anew whenever a connection ends.
        let mut resume_at = None;
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(resume_at) => accepted,
                Some(done) = tasks.join_next() => { report(done); continue }
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok(stream) => {
                    (pause, resume_at) = (Duration::ZERO, None);
                    if let Some(seat) = seats.take() {
                        let serve = serve.clone();
                        let (handle, served) = loops.place(async move {
                            match stream.attach() {
                                Ok(stream) => serve(stream).await,
                                Err(error) => tracing::warn!("cannot serve: {error}"),
                            }
                            drop(seat);
                        });
                        tasks.spawn_on(served, &handle);
                    }
                }
                // Out of file descriptors or memory, most likely: retrying at once would only spin.
                Err(error) => {
                    if pause.is_zero() {
                        tracing::warn!("{}: cannot accept: {error}; trying on", self.endpoint);
                    }
                    pause = (pause * 2).clamp(PAUSE_FIRST, PAUSE_LONGEST);
                    resume_at = Some(Instant::now() + pause);
                }
            }
        }
        drop(self);
        while let Some(done) = tasks.join_next().await {
            report(done);
        }
    }

    async fn accept(&self, resume_at: Option<Instant>) -> io::Result<Detached> {
        if let Some(resume_at) = resume_at {
            sleep_until(resume_at).await;
        }
        descriptors::check_spare()?;
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // A peer that is gone already will be noticed by reading.
                let _ = stream.set_nodelay(true);
                Ok(Detached::Tcp(stream.into_std()?))
            }
            Socket::Ipc { listener, .. } => {
                Ok(Detached::Ipc(listener.accept().await?.0.into_std()?))
            }
        }
    }
}

fn report(done: Result<(), JoinError>) {
    if let Err(error) = done {
        tracing::error!("a connection's task failed: {error}");
    }
}

async fn bind_tcp(host: &str, port: u16) -> Result<Listener, BindCause> {
    let host = if host == "*" { "0.0.0.0" } else { host };
    let addresses = lookup_host((host, port)).await.map_err(BindCause::Unknown)?;
    let mut failed = None;
    for address in addresses {
        match listen_tcp(address) {
            Ok(listener) => {
                let local = listener.local_addr()?;
                let endpoint = Endpoint::Tcp { host: local.ip().to_string(), port: local.port() };
                return Ok(Listener { socket: Socket::Tcp(listener), endpoint });
            }
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.map_or(BindCause::NotOurs, BindCause::from))
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for the old connections' TIME_WAIT; accepted sockets inherit
    // keepalive, which finds dead peers that do not know PING.
    socket.set_reuseaddr(true)?;
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn bind_ipc(path: &Path) -> Result<Listener, BindCause> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(BindCause::NotASocket),
        // A socket that nobody listens on was left by a broker that was killed.
        Ok(_) => match tokio::net::UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)?
            }
            _ => return Err(BindCause::InUse),
        },
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    let file = SocketFile { path: path.to_owned(), inode: fs::symlink_metadata(path)?.ino() };
    let endpoint = Endpoint::Ipc { path: path.to_owned() };
    Ok(Listener { socket: Socket::Ipc { listener, _file: file }, endpoint })
}

/// Our socket's file; removed when dropped, unless another has taken its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
