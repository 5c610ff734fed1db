//! Listens on one endpoint and gives each connection a task of its own.

use super::stream::{Detached, Stream};
use crate::net::io_threads::IoThreads;
use crate::net::{ConnectionSlots, PeerAddress, Slot, WarningLimit};
use crate::process::descriptors;
use crate::protocol::Endpoint;
use socket2::{SockRef, TcpKeepalive};
use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, UnixListener, lookup_host};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

/// The backlog: connections that the system holds until they are accepted.
const BACKLOG: u32 = 1024;
/// How many keepalive probes may stay unanswered.
const KEEPALIVE_PROBES: u32 = 3;
/// Unsent bytes that the system's send buffer holds at most.
const UNSENT_BYTES: u32 = 128 * 1024;
/// The first and the longest pause after an accept that failed.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_LONGEST: Duration = Duration::from_secs(1);

/// Why listening on an endpoint failed: the flag, the endpoint, the cause, and the cure.
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

/// A listening socket.
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
    /// Listens on `endpoint`, which `flag` gave. The system probes TCP peers that are silent for
    /// `heartbeat`.
    pub async fn bind(
        flag: &'static str,
        endpoint: &Endpoint,
        heartbeat: Duration,
    ) -> Result<Self, BindError> {
        let bound = match endpoint {
            Endpoint::Tcp { host, port } => bind_tcp(host, *port, heartbeat).await,
            Endpoint::Ipc(path) => bind_ipc(path).await,
        };
        bound.map_err(|cause| BindError { flag, endpoint: endpoint.clone(), cause })
    }

    /// The endpoint in use, with the port that the system chose.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Accepts until `stop` is true, then waits until every connection has ended. Connections run
    /// on `io_threads`; each call of `serve` gets a copy of `stop`.
    pub async fn run<F, T>(
        self,
        slots: Arc<ConnectionSlots>,
        io_threads: &IoThreads,
        mut stop: watch::Receiver<bool>,
        serve: F,
    ) where
        F: Fn(Stream, Slot) -> T + Clone + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        let (mut pause, mut warning) = (Duration::ZERO, WarningLimit::default());
        // A condition, not a time: it is set anew whenever a connection ends.
        let mut resume_at = None;
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(resume_at) => accepted,
                Some(done) = tasks.join_next() => { report(done); continue }
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, address)) => {
                    (pause, resume_at) = (Duration::ZERO, None);
                    if let Some(slot) = slots.take(address, std::time::Instant::now()) {
                        let serve = serve.clone();
                        let (handle, served) = io_threads.place(async move {
                            match stream.attach() {
                                Ok(stream) => serve(stream, slot).await,
                                Err(error) => tracing::warn!("cannot serve: {error}"),
                            }
                        });
                        tasks.spawn_on(served, &handle);
                    }
                }
                // Out of file descriptors or memory, most likely: retrying at once would only spin.
                Err(error) => {
                    if warning.admit(std::time::Instant::now()) {
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

    async fn accept(&self, resume_at: Option<Instant>) -> io::Result<(Detached, PeerAddress)> {
        if let Some(resume_at) = resume_at {
            sleep_until(resume_at).await;
        }
        descriptors::check_spare()?;
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Reading from a peer that has gone already reports it.
                let _ = stream.set_nodelay(true);
                Ok((Detached::Tcp(stream.into_std()?), address.into()))
            }
            Socket::Ipc { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Detached::Ipc(stream.into_std()?), PeerAddress::Local))
            }
        }
    }
}

fn report(done: Result<(), JoinError>) {
    if let Err(error) = done {
        tracing::error!("a connection's task failed: {error}");
    }
}

async fn bind_tcp(host: &str, port: u16, heartbeat: Duration) -> Result<Listener, BindCause> {
    let host = if host == "*" { "0.0.0.0" } else { host };
    let addresses = lookup_host((host, port)).await.map_err(BindCause::Unknown)?;
    let mut failed = None;
    for address in addresses {
        match listen_tcp(address, heartbeat) {
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

/// Dead peers are found about as soon as by PINGs.
fn keepalive(heartbeat: Duration) -> TcpKeepalive {
    let time = heartbeat.clamp(Duration::from_secs(1), Duration::from_secs(3_600));
    TcpKeepalive::new().with_time(time).with_interval(time).with_retries(KEEPALIVE_PROBES)
}

fn listen_tcp(address: SocketAddr, heartbeat: Duration) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Address reuse, so that a restart does not wait for old connections in TIME_WAIT. Accepted
    // sockets inherit the rest: keepalive finds dead peers that do not know PING, and a low mark
    // for unsent bytes makes the peer's reading pace visible.
    socket.set_reuseaddr(true)?;
    let options = SockRef::from(&socket);
    options.set_tcp_keepalive(&keepalive(heartbeat))?;
    options.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn bind_ipc(path: &Path) -> Result<Listener, BindCause> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(BindCause::NotASocket),
        // A socket without a listener was left by a killed broker.
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
    let endpoint = Endpoint::Ipc(path.to_owned());
    Ok(Listener { socket: Socket::Ipc { listener, _file: file }, endpoint })
}

/// The file of our socket; removed when dropped, unless another has taken its place.
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
