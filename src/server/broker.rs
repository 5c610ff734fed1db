//! A whole broker: the storage runtime and the three edges in front of it.

use super::exposure;
use super::storage_runtime::StorageRuntime;
use crate::clock::Clock;
use crate::config::Config;
use crate::engine::Engine;
use crate::http::{BindError, Http};
use crate::net::io_threads::IoThreads;
use crate::storage::files::{self, Privacy};
use crate::storage::{FjallStorage, StorageError};
use crate::zmq::{EdgeError, Publisher, Router};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How long closing the disk may take once nothing uses it any more.
const CLOSE_TIME: Duration = Duration::from_secs(60);

/// Why a broker did not start, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The store.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// A ZeroMQ endpoint.
    #[error("{0}")]
    Edge(#[from] EdgeError),
    /// The HTTP address.
    #[error("{0}")]
    Http(#[from] BindError),
    /// An address that other machines can reach.
    #[error(
        "{flag} {what}: other machines can reach it, and whoever does may read and write \
         everything, since there are no passwords yet: listen on 127.0.0.1 or on ipc://, or say \
         --insecure where the network lets in nobody else"
    )]
    Exposed {
        /// The flag that gave it.
        flag: &'static str,
        /// The address.
        what: String,
    },
    /// An internal fault.
    #[error("{0}")]
    Internal(String),
}

/// Where a broker listens, as clients write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// The HTTP endpoint.
    pub http: String,
    /// The command endpoints.
    pub routers: Vec<String>,
    /// The change endpoints.
    pub publishers: Vec<String>,
}

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    storage_runtime: StorageRuntime,
    endpoints: Endpoints,
    /// Router and HTTP: stopped first, so that every accepted request is answered.
    edges: JoinSet<()>,
    stop_edges: watch::Sender<bool>,
    /// Stopped last, so that every committed change is sent.
    publisher: JoinHandle<()>,
    stop_publisher: watch::Sender<bool>,
    /// The result of closing the disk.
    closed: Receiver<Result<(), StorageError>>,
}

impl Broker {
    /// Opens the store, then the edges. `report` is called with the number of items loaded.
    pub async fn start(
        mut config: Config,
        mut report: impl FnMut(usize) + Send + 'static,
    ) -> Result<Self, ServeError> {
        for what in exposure::check(&config).await? {
            let text = "other machines can reach it, and there are no passwords (--insecure)";
            config.warnings.push(format!("{what}: {text}"));
        }
        keep_private(&mut config);
        let opening = config.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let mut disk = FjallStorage::open(&opening.database)?;
            let (database, closed) = (opening.database.clone(), disk.tell_closed());
            let opened =
                StorageRuntime::open(opening, Clock::system(), Arc::new(disk), &mut report);
            // Unreadable bytes are in some file, and the error should name it.
            let opened =
                opened.map_err(|error| FjallStorage::name_damage(&database).unwrap_or(error));
            Ok::<_, StorageError>((opened?, closed))
        });
        let opened = opened.await.map_err(|error| ServeError::Internal(error.to_string()))?;
        let (storage_runtime, closed) = opened?;
        // Not before: a broker that cannot start gives the reason in one line.
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        match Doors::bind(&config, storage_runtime.engine()).await {
            Ok(edges) => Ok(edges.open(storage_runtime, closed)),
            Err(error) => {
                stop_backbone(storage_runtime).await?;
                Err(error)
            }
        }
    }

    /// Where it listens.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// The engine.
    pub fn engine(&self) -> Arc<Engine> {
        self.storage_runtime.engine()
    }

    /// Stops in order: answers accepted requests, commits pending writes, empties the queue into
    /// the tables, sends the last changes to subscribers, fsyncs.
    pub async fn stop(mut self) -> Result<(), ServeError> {
        self.storage_runtime.engine().announce_stop();
        self.stop_edges.send_replace(true);
        while self.edges.join_next().await.is_some() {}
        let stopped = stop_backbone(self.storage_runtime).await;
        self.stop_publisher.send_replace(true);
        let ended = self.publisher.await;
        stopped?;
        ended.map_err(|error| ServeError::Internal(error.to_string()))?;
        // All users of the engine have dropped it, so the disk is being closed.
        let closed = self.closed;
        let closed = tokio::task::spawn_blocking(move || closed.recv_timeout(CLOSE_TIME)).await;
        match closed {
            Ok(Ok(Err(error))) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Removes the permissions of other users from a store that has some.
fn keep_private(config: &mut Config) {
    let path = config.database.display();
    let readable = "other users of this machine may read it";
    let is_store = files::is_store(&config.database);
    match files::make_private(&config.database) {
        Ok(Privacy::Made(count)) if is_store => {
            tracing::info!("{path}: took from others the rights to {count} files and directories");
        }
        Ok(Privacy::Kept | Privacy::Made(_)) => {}
        Ok(Privacy::Shared) => {
            let text = format!("{path}: {readable}: give the store a directory of its own");
            config.warnings.push(text);
        }
        Err(error) => {
            let text = format!("{path}: {readable}, and that cannot be changed: {error}");
            config.warnings.push(text);
        }
    }
}

async fn stop_backbone(storage_runtime: StorageRuntime) -> Result<(), ServeError> {
    let stopped = tokio::task::spawn_blocking(move || storage_runtime.stop()).await;
    Ok(stopped.map_err(|error| ServeError::Internal(error.to_string()))??)
}

/// The edges, listening but not serving yet.
struct Doors {
    router: Router,
    publisher: Publisher,
    http: Http,
    io_threads: Arc<IoThreads>,
}

impl Doors {
    async fn bind(config: &Config, engine: Arc<Engine>) -> Result<Self, ServeError> {
        let look = Duration::from_micros(config.limits.busy_poll_us);
        let http = Http::bind(Arc::clone(&engine)).await?;
        let router = Router::bind(&config.routers, Arc::clone(&engine)).await?;
        let publisher = Publisher::bind(&config.publishers, engine).await?;
        let io_threads = IoThreads::start(None, look).map_err(|error| {
            ServeError::Internal(format!("cannot start the threads for connections: {error}"))
        })?;
        Ok(Self { router, publisher, http, io_threads: Arc::new(io_threads) })
    }

    fn open(
        self,
        storage_runtime: StorageRuntime,
        closed: Receiver<Result<(), StorageError>>,
    ) -> Broker {
        let endpoints = Endpoints {
            http: self.http.endpoint(),
            routers: self.router.endpoints(),
            publishers: self.publisher.endpoints(),
        };
        let (stop_edges, stopping) = watch::channel(false);
        let (stop_publisher, publisher_stopping) = watch::channel(false);
        let mut edges = JoinSet::new();
        edges.spawn(self.router.run(Arc::clone(&self.io_threads), stopping.clone()));
        edges.spawn(self.http.run(Arc::clone(&self.io_threads), stopping));
        let publisher = tokio::spawn(self.publisher.run(self.io_threads, publisher_stopping));
        Broker { storage_runtime, endpoints, edges, stop_edges, publisher, stop_publisher, closed }
    }
}
