//! A reply that is made outside of the engine's lock, when it is due: `changes`.
//!
//! First it waits, which holds nothing. Then its page is made, when whoever sends it says that it
//! can be sent at once: so few pages may be in memory that none may lie there while its sender
//! waits for something else, least of all for another page.

use super::{ChangesQuery, Engine};
use crate::limits::{CHANGES_PAGES_MAX, CHANGES_WAITING_MAX, HISTORY_READERS_MAX};
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

/// How many of them there may be, how many may hold a page, and how many read the log at a time.
#[derive(Debug)]
pub(super) struct LaterRoom {
    waiting: Arc<AtomicUsize>,
    pages: Arc<Semaphore>,
    reads: Arc<Semaphore>,
}

impl Default for LaterRoom {
    fn default() -> Self {
        let pages = Arc::new(Semaphore::new(CHANGES_PAGES_MAX));
        let reads = Arc::new(Semaphore::new(HISTORY_READERS_MAX));
        Self { waiting: Arc::default(), pages, reads }
    }
}

impl LaterRoom {
    /// Waits for the right to read the log. It is for the thread that reads: that goes on for a
    /// while after whoever wanted its page has given up.
    pub(super) async fn read(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.reads).acquire_owned().await.ok()
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
            let made = engine.make(&query, &pages).await;
            let _ = slot.made.set(made);
            engine.watermarks.nudge();
        });
        Ok(Later { progress, task: task.abort_handle(), waiting })
    }

    /// Makes the page when there is a place for it. Whoever waits for a turn at the disk has none
    /// meanwhile: so many may wait for that at once that nobody else would find one.
    async fn make(self: &Arc<Self>, query: &ChangesQuery, pages: &Arc<Semaphore>) -> Made {
        let page = Arc::clone(pages).acquire_owned().await.ok();
        if let Some(found) = self.page_from_memory(query) {
            return Made { result: Ok(found), _page: page };
        }
        drop(page);
        let turn = self.laters.read().await;
        let page = Arc::clone(pages).acquire_owned().await.ok();
        Made { result: self.page_from_disk(query, turn).await, _page: page }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, DiskError, KeyValue, MemoryDisk, Row, Space, Sync};
    use crate::engine::engine_on;
    use crate::log::Record;
    use crate::wire::change::Op;
    use crate::wire::{ChangeBuffer, Level};
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    /// A disk whose log is read without end, once the test lets it.
    #[derive(Debug, Default)]
    struct EndlessDisk {
        disk: MemoryDisk,
        goes_on: AtomicBool,
        is_over: AtomicBool,
        reading: AtomicUsize,
    }

    impl Disk for EndlessDisk {
        fn commit(&self, rows: Vec<Row<'_>>, sync: Sync) -> Result<(), DiskError> {
            self.disk.commit(rows, sync)
        }

        fn sync(&self) -> Result<(), DiskError> {
            self.disk.sync()
        }

        fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
            self.disk.get(space, key)
        }

        fn scan(
            &self,
            space: Space,
            from: &[u8],
            each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
        ) -> Result<(), DiskError> {
            if space != Space::Log || self.is_over.load(Ordering::Acquire) {
                return self.disk.scan(space, from, each);
            }
            self.reading.fetch_add(1, Ordering::AcqRel);
            let (mut is_wanted, mut done) = (true, Ok(()));
            while is_wanted && !self.is_over.load(Ordering::Acquire) && done.is_ok() {
                std::thread::yield_now();
                if self.goes_on.load(Ordering::Acquire) {
                    done = self.disk.scan(space, from, &mut |key, record| {
                        is_wanted = each(key, record);
                        is_wanted
                    });
                }
            }
            self.reading.fetch_sub(1, Ordering::AcqRel);
            done
        }

        fn floor(&self, space: Space, key: &[u8]) -> Result<Option<KeyValue>, DiskError> {
            self.disk.floor(space, key)
        }

        fn trim_log(&self, before: u64) -> Result<(), DiskError> {
            self.disk.trim_log(before)
        }

        fn bytes(&self) -> u64 {
            self.disk.bytes()
        }
    }

    /// An engine whose history is in the log alone.
    fn engine(disk: &Arc<EndlessDisk>) -> Arc<Engine> {
        disk.is_over.store(true, Ordering::Release);
        let (_, mut log) = engine_on(Arc::clone(disk) as Arc<dyn Disk>);
        let mut pending = ChangeBuffer::default();
        let mark = pending.begin(1, Level::Synced, 0);
        pending.push(Op::Set, false, None, b"k", b"\x01");
        pending.end(mark);
        log.append(&Record::new(pending), Sync::Data).unwrap();
        let (engine, _) = engine_on(Arc::clone(disk) as Arc<dyn Disk>);
        disk.is_over.store(false, Ordering::Release);
        engine
    }

    async fn comes(condition: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() && Instant::now() < deadline {
            tokio::task::yield_now().await;
        }
        condition()
    }

    #[test]
    fn an_abandoned_read_of_the_log_keeps_its_place_until_it_ends_and_ends_soon() {
        let disk = Arc::<EndlessDisk>::default();
        let engine = engine(&disk);
        let query = ChangesQuery { after: 0, prefix: b"zz".to_vec(), limit: None, wait_ms: 0 };
        let are_reading = |count| disk.reading.load(Ordering::Acquire) == count;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let held = || HISTORY_READERS_MAX - engine.laters.reads.available_permits();
        let (began, given_up, still_held, ended) = runtime.block_on(async {
            let begin = |_| engine.begin_changes(query.clone()).unwrap();
            let laters: Vec<Later> = (0..HISTORY_READERS_MAX).map(begin).collect();
            laters.iter().for_each(Later::make);
            let began = comes(|| are_reading(HISTORY_READERS_MAX)).await;
            drop(laters);
            // Then only those that read have the engine, besides the test.
            let given_up = comes(|| Arc::strong_count(&engine) == 1 + HISTORY_READERS_MAX).await;
            let still_held = held();
            disk.goes_on.store(true, Ordering::Release);
            (began, given_up, still_held, comes(|| are_reading(0) && held() == 0).await)
        });
        disk.is_over.store(true, Ordering::Release);
        assert!(began && given_up, "so many may go on: {began}, {given_up}");
        assert_eq!(still_held, HISTORY_READERS_MAX, "a read that goes on keeps its place");
        assert!(ended, "nobody wanted them any more");
    }
}
