//! The line for memory: first come, first served.

use super::memory_quota::Part;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How often a waiting connection looks for slow peers that hold the memory it needs.
const RELIEF_PERIOD: Duration = Duration::from_millis(100);

type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// A place in the line.
pub(super) struct Line(Pin<Box<dyn Future<Output = Permits> + Send + Sync>>);

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl Line {
    /// Enters the line for large-holder units and for units.
    pub(super) fn join(part: Arc<Part>, much: u32, missing: u32) -> Self {
        let place = Place::new(&part, missing);
        Self(Box::pin(async move {
            // The large-holder units first: waiting for them keeps nothing else from the rest.
            let much = acquire(&part, &part.much, much).await;
            let more = acquire(&part, &part.all, missing).await;
            drop(place);
            (much, more)
        }))
    }

    /// Ready when the units are granted.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Permits> {
        self.0.as_mut().poll(context)
    }
}

/// Waits for the units, and looks for slow peers meanwhile.
async fn acquire(part: &Arc<Part>, units: &Arc<Semaphore>, count: u32) -> OwnedSemaphorePermit {
    let mut turn = std::pin::pin!(Arc::clone(units).acquire_many_owned(count));
    loop {
        part.relieve_once();
        match timeout(RELIEF_PERIOD, turn.as_mut()).await {
            Ok(Ok(permit)) => return permit,
            // The semaphore is never closed.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => {}
        }
    }
}

/// The units that a place in the line waits for.
struct Place {
    part: Arc<Part>,
    units: usize,
}

impl Place {
    fn new(part: &Arc<Part>, units: u32) -> Self {
        let units = units as usize;
        part.awaited.fetch_add(units, Relaxed);
        Self { part: Arc::clone(part), units }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.part.awaited.fetch_sub(self.units, Relaxed);
    }
}
