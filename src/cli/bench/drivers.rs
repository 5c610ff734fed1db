//! The connections of a benchmark, each on one thread from its beginning to its end.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, watch};

use super::load::{Load, Tally};
use crate::cli::Failure;
use crate::client::ClientError;
use crate::loops::Loops;

/// The connections, which wait for each other before they begin.
pub(super) struct Drivers {
    loops: Loops,
    begin: watch::Sender<bool>,
    stop: Arc<AtomicBool>,
    count: usize,
    told: mpsc::UnboundedReceiver<Told>,
    tell: mpsc::UnboundedSender<Told>,
}

/// What a connection has to say.
enum Told {
    Connected,
    Ended(Box<Tally>),
    Failed(ClientError),
}

impl Drivers {
    /// Starts so many threads, or one for each core.
    pub(super) fn start(threads: Option<NonZero<usize>>) -> Result<Self, Failure> {
        let loops = threads.map_or_else(Loops::for_all_cores, Loops::start);
        let loops =
            loops.map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;
        let (tell, told) = mpsc::unbounded_channel();
        let (begin, stop) = (watch::Sender::new(false), Arc::default());
        Ok(Self { loops, begin, stop, count: 0, told, tell })
    }

    /// Adds the connection that `connecting` makes; it is there when this returns.
    pub(super) async fn add(
        &mut self,
        connecting: impl Future<Output = Result<Load, ClientError>> + Send + 'static,
    ) -> Result<(), Failure> {
        let (tell, stop) = (self.tell.clone(), Arc::clone(&self.stop));
        let mut begin = self.begin.subscribe();
        let (handle, placed) = self.loops.place(async move {
            let run = async {
                let load = connecting.await?;
                let _ = tell.send(Told::Connected);
                let has_begun = begin.wait_for(|begin| *begin).await.is_ok();
                if has_begun { load.run(stop).await } else { Ok(Tally::default()) }
            };
            // Where nobody listens any more, another connection has failed.
            let _ = match run.await {
                Ok(tally) => tell.send(Told::Ended(Box::new(tally))),
                Err(error) => tell.send(Told::Failed(error)),
            };
        });
        handle.spawn(placed);
        self.count += 1;
        self.next().await.map(drop)
    }

    /// Has all of them send.
    pub(super) fn begin(&self) {
        self.begin.send_replace(true);
    }

    /// Has them send no more.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// What all of them counted, when they have ended.
    pub(super) async fn total(mut self) -> Result<Tally, Failure> {
        // Only those who may still have something to say are waited for.
        self.tell = mpsc::unbounded_channel().0;
        let mut total = Tally::default();
        for _ in 0..self.count {
            if let Told::Ended(tally) = self.next().await? {
                total.add(&tally);
            }
        }
        Ok(total)
    }

    async fn next(&mut self) -> Result<Told, Failure> {
        match self.told.recv().await {
            Some(Told::Failed(error)) => Err(error.into()),
            Some(told) => Ok(told),
            None => Err(Failure::failed("the benchmark's threads have ended")),
        }
    }
}
