//! A reply that is made outside of the engine's lock, when it is due: `changes`.

use super::{ChangesQuery, Engine};
use crate::limits::{CHANGES_PAGES_MAX, CHANGES_WAITING_MAX, HISTORY_READERS_MAX};
use crate::wire::Refusal;
use bytes::Bytes;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

/// A reply on its way. Dropping it gives up on it.
pub struct Later {
    made: Arc<OnceLock<Made>>,
    task: AbortHandle,
    waiting: Arc<AtomicUsize>,
}

/// A reply that is there, with the right to hold its bytes.
struct Made {
    result: Result<Bytes, Refusal>,
    _page: Option<OwnedSemaphorePermit>,
}

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Later").field("is_made", &self.result().is_some()).finish_non_exhaustive()
    }
}

impl Later {
    /// The reply, once it is there.
    pub fn result(&self) -> Option<&Result<Bytes, Refusal>> {
        self.made.get().map(|made| &made.result)
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        self.task.abort();
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How many of them there may be, and how many may hold a page.
#[derive(Debug)]
pub(super) struct LaterRoom {
    waiting: Arc<AtomicUsize>,
    pages: Arc<Semaphore>,
    /// How many pages may be read from the disk at one time.
    pub(super) readers: Arc<Semaphore>,
}

impl Default for LaterRoom {
    fn default() -> Self {
        Self {
            waiting: Arc::default(),
            pages: Arc::new(Semaphore::new(CHANGES_PAGES_MAX)),
            readers: Arc::new(Semaphore::new(HISTORY_READERS_MAX)),
        }
    }
}

impl Engine {
    /// Begins to answer a `changes` request. Needs a tokio runtime around it.
    pub(super) fn begin_changes(&self, query: ChangesQuery) -> Result<Later, Refusal> {
        let busy = || Refusal::too_large("changes_waiting", CHANGES_WAITING_MAX);
        let engine = self.this.upgrade().ok_or_else(busy)?;
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| busy())?;
        let waiting = Arc::clone(&self.laters.waiting);
        if waiting.fetch_add(1, Ordering::AcqRel) >= CHANGES_WAITING_MAX {
            waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(busy());
        }
        let made = Arc::new(OnceLock::new());
        let (slot, pages) = (Arc::clone(&made), Arc::clone(&self.laters.pages));
        let task = runtime.spawn(async move {
            // First the wait, which holds nothing; then the page, which does.
            if query.wait_ms > 0 {
                engine.await_changes(&query).await;
            }
            let page = pages.acquire_owned().await.ok();
            let result = engine.changes_now(query).await;
            let _ = slot.set(Made { result, _page: page });
            engine.watermarks.nudge();
        });
        Ok(Later { made, task: task.abort_handle(), waiting })
    }
}
