//! A whole broker: the backbone and the three doors before it.

use super::backbone::Backbone;
use crate::clock::Clock;
use crate::config::Config;
use crate::disk::{DiskError, FjallDisk};
use crate::engine::Engine;
use crate::http::{self, App, Health, Names};
use crate::wire::{Command, Refusal};
use crate::zmq::{EdgeError, Publisher, Router};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How long HTTP requests in flight may take when the broker stops.
const HTTP_GRACE: Duration = Duration::from_secs(5);

/// Why a broker did not start, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The store.
    #[error("{0}")]
    Disk(#[from] DiskError),
    /// A ZeroMQ endpoint.
    #[error("{0}")]
    Edge(#[from] EdgeError),
    /// The HTTP address.
    #[error("-H/--host and -p/--port: cannot listen on {address}: {cause}{cure}")]
    Http {
        /// Where it was to listen.
        address: String,
        /// The system's words.
        cause: std::io::Error,
        /// What to do.
        cure: &'static str,
    },
    /// Something that should not happen.
    #[error("{0}")]
    Internal(String),
}

/// Where a broker listens, as clients write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// The HTTP door.
    pub http: String,
    /// The command doors.
    pub routers: Vec<String>,
    /// The change doors.
    pub publishers: Vec<String>,
}

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    backbone: Backbone,
    endpoints: Endpoints,
    /// Router and HTTP: stopped first, so that everything taken is answered.
    doors: JoinSet<()>,
    stop_doors: watch::Sender<bool>,
    /// Stopped last, so that everything committed is told.
    publisher: JoinHandle<()>,
    stop_publisher: watch::Sender<bool>,
}

impl Broker {
    /// Opens the store, then the doors. `report` hears how many items have been loaded.
    pub async fn start(
        config: Config,
        mut report: impl FnMut(usize) + Send + 'static,
    ) -> Result<Self, ServeError> {
        let opening = config.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let disk = FjallDisk::open(&opening.database)?;
            Backbone::open(opening, Clock::system(), Arc::new(disk), &mut report)
        });
        let backbone = opened.await.map_err(|error| ServeError::Internal(error.to_string()))??;
        match Doors::bind(&config, backbone.engine()).await {
            Ok(doors) => Ok(doors.open(backbone)),
            Err(error) => {
                stop_backbone(backbone).await?;
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
        self.backbone.engine()
    }

    /// Stops in order: answers what was taken, commits what is pending, empties the queue into the
    /// tables, tells subscribers the last of it, fsyncs.
    pub async fn stop(mut self) -> Result<(), ServeError> {
        self.backbone.engine().announce_stop();
        self.stop_doors.send_replace(true);
        while self.doors.join_next().await.is_some() {}
        let stopped = stop_backbone(self.backbone).await;
        self.stop_publisher.send_replace(true);
        let ended = self.publisher.await;
        stopped?;
        ended.map_err(|error| ServeError::Internal(error.to_string()))
    }
}

async fn stop_backbone(backbone: Backbone) -> Result<(), ServeError> {
    let stopped = tokio::task::spawn_blocking(move || backbone.stop()).await;
    Ok(stopped.map_err(|error| ServeError::Internal(error.to_string()))??)
}

/// The doors, listening and not serving yet.
struct Doors {
    router: Router,
    publisher: Publisher,
    http: TcpListener,
    app: App,
}

impl Doors {
    async fn bind(config: &Config, engine: Arc<Engine>) -> Result<Self, ServeError> {
        let http = bind_http(config).await?;
        let router = Router::bind(&config.routers, Arc::clone(&engine)).await?;
        let publisher = Publisher::bind(&config.publishers, Arc::clone(&engine)).await?;
        let names = Names::new(config.http_host_names.iter().cloned());
        let app = App::new(Arc::new(HttpStore(engine)), names, &config.limits);
        Ok(Self { router, publisher, http, app })
    }

    fn open(self, backbone: Backbone) -> Broker {
        let address = self.http.local_addr().map_or_else(|_| "?".to_owned(), |a| a.to_string());
        let endpoints = Endpoints {
            http: format!("http://{address}"),
            routers: self.router.endpoints(),
            publishers: self.publisher.endpoints(),
        };
        let (stop_doors, stopping) = watch::channel(false);
        let (stop_publisher, publisher_stopping) = watch::channel(false);
        let mut doors = JoinSet::new();
        doors.spawn(self.router.run(stopping.clone()));
        let (http, app, limits) = (self.http, self.app, backbone.engine().config().limits.clone());
        doors.spawn(async move { http::serve(http, app, &limits, stopping, HTTP_GRACE).await });
        let publisher = tokio::spawn(self.publisher.run(publisher_stopping));
        Broker { backbone, endpoints, doors, stop_doors, publisher, stop_publisher }
    }
}

async fn bind_http(config: &Config) -> Result<TcpListener, ServeError> {
    let (host, port) = (config.http_host.as_str(), config.http_port);
    TcpListener::bind((host, port)).await.map_err(|cause| {
        let cure = match cause.kind() {
            std::io::ErrorKind::AddrInUse => ": choose another port with -p, or -p 0 for any",
            _ => "",
        };
        ServeError::Http { address: format!("{host}:{port}"), cause, cure }
    })
}

/// The engine as the HTTP edge sees it.
struct HttpStore(Arc<Engine>);

impl http::Store for HttpStore {
    async fn run(&self, command: Command<'_>) -> Result<Bytes, Refusal> {
        self.0.counters().http_requests.up();
        self.0.run(command).await
    }

    fn health(&self) -> Health {
        let progress = self.0.progress().borrow().clone();
        match progress.failure {
            Some(reason) => Health::Failed(reason.to_string()),
            None if progress.is_stopping => Health::Stopping,
            None => Health::Ok,
        }
    }
}
