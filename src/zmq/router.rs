//! ROUTER: takes commands from REQ and DEALER clients. Each connection is a [`Session`].

use super::edge::{Edge, EdgeError};
use super::link::{Closed, Link};
use super::pool::{Pool, Share};
use super::session::Session;
use super::stream::Stream;
use super::zmtp::Kind;
use crate::engine::{Caller, Engine};
use crate::loops::Loops;
use std::sync::Arc;
use tokio::sync::watch;

/// The command edge, listening.
#[derive(Debug)]
pub struct Router {
    edge: Edge,
    engine: Arc<Engine>,
    outgoing: Arc<Pool>,
}

impl Router {
    /// Listens on `endpoints`, which `--router` named.
    pub async fn bind(endpoints: &[String], engine: Arc<Engine>) -> Result<Self, EdgeError> {
        let limits = &engine.config().limits;
        let refusing = Arc::clone(&engine);
        let refused = move || refusing.counters().refused_connections.up();
        let edge = Edge::bind("--router", endpoints, limits, refused).await?;
        let outgoing = Pool::new(limits.max_outgoing_bytes);
        Ok(Self { edge, engine, outgoing })
    }

    /// Where it really listens.
    pub fn endpoints(&self) -> Vec<String> {
        self.edge.endpoints()
    }

    /// Serves on `loops` until `stop` says true, then until everything that was taken is answered.
    /// The engine must still commit until this returns.
    pub async fn run(self, loops: Arc<Loops>, stop: watch::Receiver<bool>) {
        let (engine, outgoing, incoming) = (self.engine, self.outgoing, self.edge.incoming());
        let stopping = stop.clone();
        let serve = move |stream| {
            let (engine, stop) = (Arc::clone(&engine), stopping.clone());
            let (outgoing, incoming) = (Share::of(&outgoing), Arc::clone(&incoming));
            async move {
                engine.counters().connections.up();
                let ended = connection(stream, &engine, &incoming, outgoing, stop).await;
                engine.counters().connections.down();
                if ended.is_cut() {
                    engine.counters().refused_connections.up();
                }
                tracing::debug!("a client's connection ended: {ended}");
            }
        };
        self.edge.run(loops, stop, serve).await;
    }
}

/// Serves one client, whose handshake is still to come, until it is gone or `stop` says true.
/// `incoming` and `outgoing` are the memory that connections share.
pub async fn connection(
    stream: Stream,
    engine: &Engine,
    incoming: &Arc<Pool>,
    outgoing: Share,
    mut stop: watch::Receiver<bool>,
) -> Closed {
    let caller = Caller::new(stream.address());
    let greeting = Link::greet(stream, Kind::Router, &engine.config().limits, incoming);
    let greeted = tokio::select! {
        greeted = greeting => greeted,
        _ = stop.wait_for(|stop| *stop) => return Closed::Stopped,
    };
    match greeted {
        Ok(link) => Session::new(link, engine, caller, outgoing).run(stop).await,
        Err(closed) => closed,
    }
}
