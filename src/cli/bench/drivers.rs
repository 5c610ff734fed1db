//! The connections of a benchmark, each on one thread from its beginning to its end.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::load::{Load, Tally};
use crate::cli::Failure;
use crate::client::ClientError;
use crate::net::io_threads::IoThreads;

/// The running count of a connection, available when it has ended.
type Running = JoinHandle<Result<Tally, ClientError>>;

/// The connections, which wait for each other before they begin.
pub(super) struct Drivers {
    io_threads: IoThreads,
    begin: watch::Sender<bool>,
    stop: Arc<AtomicBool>,
    running: Vec<Running>,
}

impl Drivers {
    /// Starts `threads` threads, or one for each core.
    pub(super) fn start(threads: Option<NonZero<usize>>) -> Result<Self, Failure> {
        let io_threads = IoThreads::start(threads, Duration::ZERO);
        let io_threads = io_threads
            .map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;
        let (begin, stop) = (watch::Sender::new(false), Arc::default());
        Ok(Self { io_threads, begin, stop, running: Vec::new() })
    }

    /// Adds the connection that `connecting` makes; it is connected when this returns.
    pub(super) async fn add(
        &mut self,
        connecting: impl Future<Output = Result<Load, ClientError>> + Send + 'static,
    ) -> Result<(), Failure> {
        let (mut begin, stop) = (self.begin.subscribe(), Arc::clone(&self.stop));
        let (tell, connected) = oneshot::channel();
        let (handle, placed) = self.io_threads.place(async move {
            let load = connecting.await?;
            let _ = tell.send(());
            // Where another connection has failed, none begins.
            let has_begun = begin.wait_for(|begin| *begin).await.is_ok();
            if has_begun { load.run(stop).await } else { Ok(Tally::default()) }
        });
        let running = handle.spawn(placed);
        if connected.await.is_err() {
            return tally(running).await.map(drop);
        }
        self.running.push(running);
        Ok(())
    }

    /// Starts the load on all connections.
    pub(super) fn begin(&self) {
        self.begin.send_replace(true);
    }

    /// Returns a flag; setting it stops the sending.
    pub(super) fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// The sum of all counts, when the connections have ended.
    pub(super) async fn total(self) -> Result<Tally, Failure> {
        let mut total = Tally::default();
        for running in self.running {
            total.add(&tally(running).await?);
        }
        Ok(total)
    }
}

async fn tally(running: Running) -> Result<Tally, Failure> {
    Ok(running.await.map_err(|error| Failure::failed(error.to_string()))??)
}
