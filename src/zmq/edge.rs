//! The common part of both ZeroMQ edges: listening endpoints and connection slots.

use super::listener::{BindError, Listener};
use super::stream::Stream;
use crate::limits::Limits;
use crate::net::io_threads::IoThreads;
use crate::net::{ConnectionSlots, ConnectionTimeouts, Slot};
use crate::protocol::endpoint::{Endpoint, EndpointError};
use std::future::Future;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Why an edge cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// An endpoint that cannot be parsed.
    #[error("{flag}: {error}")]
    Endpoint {
        /// The flag that gave it.
        flag: &'static str,
        /// The fault.
        error: EndpointError,
    },
    /// An endpoint on which listening failed.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// The listeners of one edge.
#[derive(Debug)]
pub struct Edge {
    listeners: Vec<Listener>,
    slots: Arc<ConnectionSlots>,
}

impl Edge {
    /// Listens on every endpoint of `flag`. `refused` is called for each connection above the
    /// limit.
    pub async fn bind(
        flag: &'static str,
        endpoints: &[String],
        limits: &Limits,
        refused: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, EdgeError> {
        let heartbeat = ConnectionTimeouts::new(limits).heartbeat;
        let mut listeners = Vec::new();
        for endpoint in endpoints {
            let endpoint: Endpoint =
                endpoint.parse().map_err(|error| EdgeError::Endpoint { flag, error })?;
            listeners.push(Listener::bind(flag, &endpoint, heartbeat).await?);
        }
        let slots = ConnectionSlots::new(limits.max_connections, refused);
        Ok(Self { listeners, slots })
    }

    /// The endpoints in use, with the ports that the system chose.
    pub fn endpoints(&self) -> Vec<String> {
        self.listeners.iter().map(|listener| listener.endpoint().to_string()).collect()
    }

    /// Serves on `io_threads` until `stop` is true, then until every connection has ended.
    pub async fn run<F, T>(self, io_threads: Arc<IoThreads>, stop: watch::Receiver<bool>, serve: F)
    where
        F: Fn(Stream, Slot) -> T + Clone + Send + Sync + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for listener in self.listeners {
            let (slots, io_threads) = (Arc::clone(&self.slots), Arc::clone(&io_threads));
            let (stop, serve) = (stop.clone(), serve.clone());
            tasks.spawn(async move { listener.run(slots, &io_threads, stop, serve).await });
        }
        tasks.join_all().await;
    }
}
