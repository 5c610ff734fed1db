//! Accepts connections and runs each to its end.

use super::connection_phase::{ConnectionPhase, Phase};
use super::edge::App;
use super::guard::Guard;
use super::host::Names;
use super::stream::{Shared, Stream};
use super::turned_away::TurnedAway;
use crate::engine::Engine;
use crate::limits::Limits;
use crate::net::io_threads::IoThreads;
use crate::net::turns::bulk;
use crate::net::{
    Activity, Category, ConnectionSlots, ConnectionTimeouts, PeerAddress, Slot, WarningLimit,
};
use crate::process::descriptors;
use axum::http::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, warn};

/// hyper's buffer for a connection: a head with escaped raw characters, and some more.
const HYPER_BYTES: usize = 64 * 1024;
/// The most bytes of answers that the kernel holds for a connection.
const KERNEL_BYTES: u32 = 128 * 1024;
/// The backlog: connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// How long requests in flight may take once the broker stops.
const GRACE: Duration = Duration::from_secs(10);
/// How long an idle connection may take to close once we have.
const LINGER: Duration = Duration::from_secs(1);
/// A peer without progress on its answer for this long is slow.
const SLOW_AFTER: Duration = Duration::from_secs(1);
/// The pause after an accept that failed for lack of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The HTTP edge of a broker: listening, and not serving yet.
pub struct Http {
    listener: TcpListener,
    address: SocketAddr,
    app: App,
    limits: Limits,
}

/// Why the HTTP edge cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("-H/--host and -p/--port: cannot listen on {host}:{port}: {cause}{}", cure(cause))]
pub struct BindError {
    host: String,
    port: u16,
    cause: io::Error,
}

fn cure(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => ": choose another port with -p, or -p 0 for any",
        io::ErrorKind::AddrNotAvailable => ": choose an address of this machine with -H",
        _ => "",
    }
}

impl Http {
    /// Listens on the address of the engine's configuration.
    pub async fn bind(engine: Arc<Engine>) -> Result<Self, BindError> {
        let config = engine.config().clone();
        let (host, port) = (config.http_host, config.http_port);
        let bound = async {
            let listener = bind(&host, port).await?;
            Ok((listener.local_addr()?, listener))
        };
        let (address, listener) = match bound.await {
            Ok(bound) => bound,
            Err(cause) => return Err(BindError { host, port, cause }),
        };
        // A broker that listens on a name may be called by it.
        let names = Names::new(config.http_host_names.into_iter().chain([host]));
        let guard = Guard::new(names, config.allow_browser_writes);
        let app = App::new(engine, guard, &config.limits);
        Ok(Self { listener, address, app, limits: config.limits })
    }

    /// The address in use, with the port that the system chose.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves on `io_threads` until `stop` is true, then until every connection has ended.
    pub async fn run(self, io_threads: Arc<IoThreads>, stop: watch::Receiver<bool>) {
        serve(self.listener, self.app, &self.limits, &io_threads, stop, GRACE).await;
    }
}

/// Opens the listening socket for HTTP, on a name or an address.
///
/// The kernel's send buffer has a fixed size, since a socket counts as writable only when a third
/// of it is free: with the usual 4 MB, a peer on a slow line would look like one that does not
/// read.
pub async fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((host, port)).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.set_send_buffer_size(KERNEL_BYTES)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Serves HTTP on `io_threads` until `stop` is true (or its sender gone), then finishes the
/// requests in flight.
///
/// Returns when every connection is closed, which takes `grace` at most.
pub async fn serve(
    listener: TcpListener,
    app: App,
    limits: &Limits,
    io_threads: &IoThreads,
    mut stop: watch::Receiver<bool>,
    grace: Duration,
) {
    let counted = app.clone();
    let on_refusal = move || counted.counters().refused_connections.up();
    let slots = ConnectionSlots::new(limits.max_connections, on_refusal);
    let turned_away = TurnedAway::new(app.store_id());
    let timeouts = ConnectionTimeouts::new(limits);
    let mut warning = WarningLimit::default();
    // All its clones are gone when every connection has ended.
    let (connected, mut ended) = mpsc::channel::<Infallible>(1);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = accept(&listener, &mut warning) => accepted,
        };
        let Some((socket, address)) = accepted else { continue };
        let Some(slot) = slots.take(PeerAddress::from(address), std::time::Instant::now()) else {
            turned_away.refuse(socket);
            continue;
        };
        let (app, stop, connected) = (app.clone(), stop.clone(), connected.clone());
        let socket = socket.into_std();
        let (handle, served) = io_threads.place(async move {
            match socket.and_then(TcpStream::from_std) {
                Ok(socket) => drive(socket, slot, app, timeouts, stop, grace).await,
                Err(error) => warn!("an HTTP connection cannot be served: {error}"),
            }
            drop(connected);
        });
        handle.spawn(served);
    }
    drop(listener);
    drop(connected);
    if timeout(grace + timeouts.http_look_period(), ended.recv()).await.is_err() {
        warn!("HTTP connections did not end within {grace:?}");
    }
}

/// Accepts the next connection.
async fn accept(
    listener: &TcpListener,
    warning: &mut WarningLimit,
) -> Option<(TcpStream, SocketAddr)> {
    let accepted = match descriptors::check_spare() {
        Ok(()) => listener.accept().await,
        Err(error) => Err(error),
    };
    match accepted {
        Ok((socket, address)) => {
            let _ = socket.set_nodelay(true);
            Some((socket, address))
        }
        Err(error) => {
            if !is_the_peers(&error) {
                if warning.admit(std::time::Instant::now()) {
                    warn!("accepting an HTTP connection: {error}; trying on");
                }
                sleep(ACCEPT_PAUSE).await;
            }
            None
        }
    }
}

/// Whether a failed accept means only that the peer disconnected.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Runs one connection until it ends, is overdue, or the broker stops.
pub(super) async fn drive(
    socket: TcpStream,
    slot: Slot,
    app: App,
    timeouts: ConnectionTimeouts,
    mut stop: watch::Receiver<bool>,
    grace: Duration,
) {
    let Ok(address) = socket.local_addr() else { return };
    let account = app.quota().account(Category::Outgoing);
    let shared = Arc::new(Shared::new(address.ip(), socket.peer_addr().ok(), account, slot));
    let (known, phase) = (Arc::clone(&shared), &shared.phase);
    let (served, stopping) = (app.clone(), stop.clone());
    let service = service_fn(move |request| {
        let (app, known, stop) = (served.clone(), Arc::clone(&known), stopping.clone());
        async move {
            let mut answer = app.answer(request, &known).await;
            // The stop may not have reached this connection's own wait for it yet.
            if *stop.borrow() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let stream = Stream::new(socket, Arc::clone(&shared));
    let mut connection = pin!(builder().serve_connection(stream, service));
    let mut ticks = interval(timeouts.http_look_period());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopped = pin!(stop.wait_for(|stop| *stop));
    let (mut last_moment, mut is_slow) = (None, false);
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!("HTTP connection: {error}");
                }
                break;
            }
            _ = &mut stopped, if last_moment.is_none() => {
                // If a socket is closed at once and bytes arrive, the connection is reset, and
                // unsent bytes of an answer are lost.
                let is_between = phase.is(Phase::Idle) || phase.is(Phase::Head);
                connection.as_mut().graceful_shutdown();
                let patience = if is_between { LINGER.min(grace) } else { grace };
                last_moment = Some(Instant::now() + patience);
            }
            () = shared.slot.evicted(), if last_moment.is_none() => {
                debug!("HTTP connection closed: another one has its place");
                connection.as_mut().graceful_shutdown();
                last_moment = Some(Instant::now() + LINGER);
            }
            () = poll_fn(|cx| shared.account.poll_cut(cx)) => {
                debug!("HTTP connection cut: it reads slowly, and others wait for the memory");
                app.counters().refused_connections.up();
                break;
            }
            now = ticks.tick() => {
                let is_last = last_moment.is_some_and(|moment| now >= moment);
                if is_overdue(&app, phase, &timeouts) || is_last {
                    break;
                }
                note_slowness(&shared, &mut is_slow);
            }
        }
    }
    // A process that ends closes thousands of connections at once.
    bulk::turn().await;
}

/// Whether a connection is overdue; counts it.
fn is_overdue(app: &App, phase: &ConnectionPhase, timeouts: &ConnectionTimeouts) -> bool {
    let Some(why) = phase.overdue(timeouts) else { return false };
    debug!("HTTP connection cut: {why}");
    if !phase.is(Phase::Idle) {
        app.counters().refused_connections.up();
    }
    true
}

/// Reports whether the peer progresses with its answer, where that has changed.
fn note_slowness(shared: &Shared, is_slow: &mut bool) {
    let was_slow = std::mem::replace(is_slow, shared.phase.is_slow(SLOW_AFTER));
    if *is_slow != was_slow && shared.phase.is(Phase::Serving) {
        shared.note(if *is_slow { Activity::Slow } else { Activity::Busy });
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // The stream times heads itself, and takes an end of input for what it is: no more
        // requests.
        .header_read_timeout(None)
        .half_close(true)
        // Queue an answer without a copy: its memory stays reserved until it is written.
        .writev(true)
        .max_buf_size(HYPER_BYTES);
    builder
}
