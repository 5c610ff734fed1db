//! A reply that is made outside of the engine's lock, when it is due: `changes`.
//!
//! First it waits, which holds nothing. Then its page is made, when whoever sends it says that it
//! can be sent at once: so few pages may be in memory that none may lie there while its sender
//! waits for something else, least of all for another page.

use super::{ChangesQuery, Engine};
use crate::limits::{CHANGES_PAGES_MAX, CHANGES_WAITING_MAX};
use crate::wire::Refusal;
use bytes::Bytes;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

/// A reply on its way. Dropping it gives up on it.
pub struct Later {
    progress: Arc<LaterProgress>,
    task: AbortHandle,
    waiting: Arc<AtomicUsize>,
}

/// How far it has come.
#[derive(Default)]
struct LaterProgress {
    is_due: AtomicBool,
    is_wanted: Notify,
    made: OnceLock<Made>,
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
    /// Whether there is something to say, so that the reply can be made.
    pub fn is_due(&self) -> bool {
        self.progress.is_due.load(Ordering::Acquire)
    }

    /// Has the reply made as soon as it is due. To be called when nothing else keeps it from being
    /// sent then.
    pub fn make(&self) {
        self.progress.is_wanted.notify_one();
    }

    /// The reply, once it is made.
    pub fn result(&self) -> Option<&Result<Bytes, Refusal>> {
        self.progress.made.get().map(|made| &made.result)
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
}

impl Default for LaterRoom {
    fn default() -> Self {
        Self { waiting: Arc::default(), pages: Arc::new(Semaphore::new(CHANGES_PAGES_MAX)) }
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
        let progress = Arc::<LaterProgress>::default();
        let (slot, pages) = (Arc::clone(&progress), Arc::clone(&self.laters.pages));
        let is_due = query.wait_ms == 0;
        slot.is_due.store(is_due, Ordering::Release);
        let task = runtime.spawn(async move {
            if !is_due {
                engine.await_changes(&query).await;
                slot.is_due.store(true, Ordering::Release);
                engine.watermarks.nudge();
            }
            slot.is_wanted.notified().await;
            let page = pages.acquire_owned().await.ok();
            let result = engine.changes_now(query).await;
            let _ = slot.made.set(Made { result, _page: page });
            engine.watermarks.nudge();
        });
        Ok(Later { progress, task: task.abort_handle(), waiting })
    }
}
