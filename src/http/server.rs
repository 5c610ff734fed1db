//! Accepting connections and driving each to its end.

use super::edge::App;
use super::pulse::{Deadlines, Phase};
use super::stream::{Shared, Stream};
use crate::limits::Limits;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, warn};

/// hyper's buffer a connection: a head whose raw characters were escaped, and some.
const HYPER_BYTES: usize = 64 * 1024;
/// How long to wait after an accept that failed for want of something (descriptors, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves HTTP until `stop` is true (or its sender gone), then finishes the requests in flight.
///
/// Returns when every connection is closed, which takes `grace` at most.
pub async fn serve(
    listener: TcpListener,
    app: App,
    limits: &Limits,
    mut stop: watch::Receiver<bool>,
    grace: Duration,
) {
    let seats = u32::try_from(limits.max_connections).unwrap_or(u32::MAX).min(1 << 20);
    let free = Arc::new(Semaphore::new(seats as usize));
    let deadlines = Deadlines::new(limits);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = accept(&listener, &free) => accepted,
        };
        let Some((socket, seat)) = accepted else { continue };
        let (app, stop) = (app.clone(), stop.clone());
        tokio::spawn(async move {
            drive(socket, app, deadlines, stop, grace).await;
            drop(seat);
        });
    }
    drop(listener);
    // Every seat is free again when every connection has ended.
    if timeout(grace + deadlines.tick(), free.acquire_many(seats)).await.is_err() {
        warn!("HTTP connections did not end within {grace:?}");
    }
}

/// The next connection, once there is a seat for it.
async fn accept(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let seat = Arc::clone(free).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, _)) => {
            let _ = socket.set_nodelay(true);
            Some((socket, seat))
        }
        Err(error) => {
            if !is_the_peers(&error) {
                warn!("accepting an HTTP connection: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
            None
        }
    }
}

/// Whether a failed accept says only that the peer went away.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Drives one connection until it ends, is overdue, or the broker stops.
async fn drive(
    socket: TcpStream,
    app: App,
    deadlines: Deadlines,
    mut stop: watch::Receiver<bool>,
    grace: Duration,
) {
    let shared = Arc::new(Shared::default());
    let (known, pulse) = (Arc::clone(&shared), &shared.pulse);
    let service = service_fn(move |request| {
        let (app, known) = (app.clone(), Arc::clone(&known));
        async move { Ok::<_, Infallible>(app.answer(request, &known).await) }
    });
    let stream = Stream::new(socket, Arc::clone(&shared));
    let mut connection = pin!(builder().serve_connection(stream, service));
    let mut ticks = interval(deadlines.tick());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopped = pin!(stop.wait_for(|stop| *stop));
    let mut last_moment = None;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!("HTTP connection: {error}");
                }
                return;
            }
            _ = &mut stopped, if last_moment.is_none() => {
                if pulse.is(Phase::Idle) || pulse.is(Phase::Head) {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                last_moment = Some(Instant::now() + grace);
            }
            now = ticks.tick() => {
                if let Some(why) = pulse.overdue(&deadlines) {
                    debug!("HTTP connection cut: {why}");
                    return;
                }
                if last_moment.is_some_and(|moment| now >= moment) {
                    return;
                }
            }
        }
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // The stream times heads itself, and takes an end of input for what it is: no more requests.
        .header_read_timeout(None)
        .half_close(true)
        .max_buf_size(HYPER_BYTES)
        .pipeline_flush(true);
    builder
}
