//! ROUTER: takes commands from REQ and DEALER clients. Each connection is a `Session`.

use super::edge::{Edge, EdgeError};
use super::link::{Closed, Link};
use super::session::Session;
use super::stream::Stream;
use super::zmtp::Kind;
use crate::engine::Engine;
use crate::net::io_threads::IoThreads;
use crate::net::{Caller, Slot};
use std::sync::Arc;
use tokio::sync::watch;

/// The command edge, listening.
#[derive(Debug)]
pub struct Router {
    edge: Edge,
    engine: Arc<Engine>,
}

impl Router {
    /// Listens on `endpoints`, the values of `--router`.
    pub async fn bind(endpoints: &[String], engine: Arc<Engine>) -> Result<Self, EdgeError> {
        let limits = &engine.config().limits;
        let refusing = Arc::clone(&engine);
        let refused = move || refusing.counters().refused_connections.up();
        let edge = Edge::bind("--router", endpoints, limits, refused).await?;
        Ok(Self { edge, engine })
    }

    /// The endpoints in use, with the ports that the system chose.
    pub fn endpoints(&self) -> Vec<String> {
        self.edge.endpoints()
    }

    /// Serves on `io_threads` until `stop` is true, then until every accepted request is answered.
    /// The engine must still commit until this returns.
    pub async fn run(self, io_threads: Arc<IoThreads>, stop: watch::Receiver<bool>) {
        let (engine, stopping) = (self.engine, stop.clone());
        let serve = move |stream, slot| {
            let (engine, stop) = (Arc::clone(&engine), stopping.clone());
            async move {
                engine.counters().connections.up();
                let ended = connection(stream, &engine, slot, stop).await;
                engine.counters().connections.down();
                if ended.is_cut() {
                    engine.counters().refused_connections.up();
                }
                tracing::debug!("a client's connection ended: {ended}");
            }
        };
        self.edge.run(io_threads, stop, serve).await;
    }
}

/// Serves one client, from its handshake until it is gone or `stop` is true.
pub async fn connection(
    stream: Stream,
    engine: &Engine,
    slot: Slot,
    mut stop: watch::Receiver<bool>,
) -> Closed {
    let limits = &engine.config().limits;
    let caller = Caller::with_peer(stream.address(), stream.peer());
    let greeting = Link::greet(stream, Kind::Router, limits, engine.quota(), slot);
    let greeted = tokio::select! {
        greeted = greeting => greeted,
        _ = stop.wait_for(|stop| *stop) => return Closed::Stopped,
    };
    match greeted {
        Ok(link) => Session::new(link, engine, caller).run(stop).await,
        Err(closed) => closed,
    }
}
