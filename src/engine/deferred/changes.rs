//! `changes` as a deferred reply: it waits for a change, then has its page made.

use super::limits::DeferredPlace;
use super::watch::{ChangeWatch, Outcome, Wanted};
use super::{Awaited, WaitOutcome};
use crate::commands::ChangesQuery;
use crate::engine::changes::{self, WAIT_MS_MAX, empty_page};
use crate::engine::{Engine, replies};
use crate::net::Caller;
use crate::protocol::{DurabilityBarrier, Refusal};
use bytes::Bytes;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

/// A `changes` request that waits. Dropping it cancels it.
pub(in crate::engine) struct AwaitedChanges {
    engine: Arc<Engine>,
    caller: Arc<Caller>,
    query: ChangesQuery,
    waiting: Waiting,
    /// Its time was up while the past was looked through for it.
    is_late: AtomicBool,
    made: Arc<OnceLock<Made>>,
    task: OnceLock<AbortHandle>,
    _place: DeferredPlace,
}

/// A reply that is there, with the right to hold its bytes.
struct Made {
    result: Result<Bytes, Refusal>,
    _page: Option<OwnedSemaphorePermit>,
}

/// A request that waits; dropping it forgets it.
struct Waiting {
    watch: Arc<ChangeWatch>,
    ticket: u64,
    outcome: Outcome,
    deadline: Instant,
}

impl fmt::Debug for AwaitedChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_made = self.is_made();
        f.debug_struct("AwaitedChanges").field("is_made", &is_made).finish_non_exhaustive()
    }
}

impl Waiting {
    fn begin(watch: &Arc<ChangeWatch>, query: &ChangesQuery, caller: &Arc<Caller>) -> Self {
        let wait = Duration::from_millis(query.wait_ms.min(WAIT_MS_MAX));
        let deadline = Instant::now() + wait;
        let wanted = Wanted { prefix: &query.prefix, after: query.after, waits: query.wait_ms > 0 };
        let (ticket, outcome) = watch.begin(&wanted, caller);
        Self { watch: Arc::clone(watch), ticket, outcome, deadline }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.outcome.get().is_some() || now >= self.deadline && self.watch.give_up(self.ticket)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.outcome.get().is_none() {
            self.watch.forget(self.ticket);
        }
    }
}

impl Awaited for AwaitedChanges {
    fn is_due(&self, _: &Engine, now: Instant) -> bool {
        let is_due = self.waiting.is_over(now);
        if !is_due && now >= self.waiting.deadline {
            self.is_late.store(true, Ordering::Relaxed);
        }
        is_due
    }

    fn barrier(&self) -> Option<DurabilityBarrier> {
        None
    }

    fn until(&self) -> Option<Instant> {
        let is_told = self.is_late.load(Ordering::Relaxed) || self.waiting.outcome.get().is_some();
        (!is_told).then_some(self.waiting.deadline)
    }

    fn is_page(&self) -> bool {
        true
    }

    fn make(&self) {
        let Some(WaitOutcome::Changes { from }) = self.waiting.outcome.get().copied() else {
            return;
        };
        if self.task.get().is_some() || self.made.get().is_some() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            let result = Err(replies::stopping());
            return drop(self.made.set(Made { result, _page: None }));
        };
        let (engine, caller) = (Arc::clone(&self.engine), Arc::clone(&self.caller));
        let (slot, query) = (Arc::clone(&self.made), self.query.clone());
        let task = runtime.spawn(async move {
            let made = engine.make(&query, from).await;
            drop(engine);
            let _ = slot.set(made);
            caller.signal.raise();
        });
        let _ = self.task.set(task.abort_handle());
    }

    fn is_made(&self) -> bool {
        let is_empty = matches!(self.waiting.outcome.get(), Some(WaitOutcome::Nothing { .. }));
        is_empty || self.made.get().is_some()
    }

    fn result(&self, _: &Engine) -> Result<Bytes, Refusal> {
        if let Some(WaitOutcome::Nothing { next }) = self.waiting.outcome.get() {
            return Ok(empty_page(*next));
        }
        self.made.get().map_or_else(|| Err(replies::stopping()), |made| made.result.clone())
    }
}

impl Drop for AwaitedChanges {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Engine {
    /// Begins to answer a `changes` request of `caller`.
    pub(in crate::engine) fn begin_changes(
        &self,
        query: ChangesQuery,
        caller: &Arc<Caller>,
    ) -> Result<AwaitedChanges, Refusal> {
        let engine = self.this.upgrade().ok_or_else(replies::stopping)?;
        let place = self.deferred.take(caller, &query.prefix)?;
        let waiting = Waiting::begin(&self.watch, &query, caller);
        Ok(AwaitedChanges {
            engine,
            caller: Arc::clone(caller),
            query,
            waiting,
            is_late: AtomicBool::new(false),
            made: Arc::default(),
            task: OnceLock::new(),
            _place: place,
        })
    }

    /// Waits until there is a change that `query` asks for, or a write whose changes are no longer
    /// in memory, or until its time is up or the broker stops. Who awaits it is bounded by others:
    /// HTTP has a connection for each.
    pub async fn await_changes(
        &self,
        caller: &Arc<Caller>,
        query: &ChangesQuery,
    ) -> changes::Awaited {
        let waiting = Waiting::begin(&self.watch, query, caller);
        let mut is_late = false;
        loop {
            match waiting.outcome.get() {
                Some(WaitOutcome::Changes { .. }) => return changes::Awaited::Something,
                Some(WaitOutcome::Nothing { next }) => {
                    return changes::Awaited::Nothing { next: *next };
                }
                None => {}
            }
            tokio::select! {
                () = poll_fn(|context| caller.signal.poll_raised(context)) => {}
                () = sleep_until(waiting.deadline), if !is_late => {}
            }
            is_late = !waiting.is_over(Instant::now()) && Instant::now() >= waiting.deadline;
        }
    }

    /// Makes the page when there is a place for it. Whoever waits for a turn to read has none
    /// meanwhile: so many may wait for that at once that nobody else would find one.
    async fn make(self: &Arc<Self>, query: &ChangesQuery, from: u64) -> Made {
        let page = Arc::clone(&self.deferred.pages).acquire_owned().await.ok();
        if let Some(found) = self.small_page(query, from) {
            return Made { result: Ok(found), _page: page };
        }
        drop(page);
        let turn = self.deferred.read().await;
        let page = Arc::clone(&self.deferred.pages).acquire_owned().await.ok();
        Made { result: self.large_page(query, from, turn).await, _page: page }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::engine_on;
    use crate::limits::HISTORY_READERS_MAX;
    use crate::net::PeerAddress;
    use crate::protocol::change::Op;
    use crate::protocol::{ChangeBuffer, Level};
    use crate::storage::{
        Durability, KeyValue, MemoryStorage, Row, Space, Storage, StorageError, StorageUsage,
    };
    use crate::wal::Record;
    use std::sync::atomic::AtomicUsize;
    use std::time::Instant;

    /// A disk whose log is read without end, once the test lets it.
    #[derive(Debug, Default)]
    struct EndlessDisk {
        disk: MemoryStorage,
        goes_on: AtomicBool,
        is_over: AtomicBool,
        reading: AtomicUsize,
    }

    impl Storage for EndlessDisk {
        fn commit(&self, rows: Vec<Row<'_>>, sync: Durability) -> Result<(), StorageError> {
            self.disk.commit(rows, sync)
        }

        fn sync(&self) -> Result<(), StorageError> {
            self.disk.sync()
        }

        fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
            self.disk.get(space, key)
        }

        fn scan(
            &self,
            space: Space,
            from: &[u8],
            each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
        ) -> Result<(), StorageError> {
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

        fn floor(&self, space: Space, key: &[u8]) -> Result<Option<KeyValue>, StorageError> {
            self.disk.floor(space, key)
        }

        fn trim_log(&self, before: u64) -> Result<(), StorageError> {
            self.disk.trim_log(before)
        }

        fn usage(&self) -> StorageUsage {
            self.disk.usage()
        }
    }

    /// An engine whose history is in the log alone.
    fn engine(disk: &Arc<EndlessDisk>) -> Arc<Engine> {
        disk.is_over.store(true, Ordering::Release);
        let (_, mut log) = engine_on(Arc::clone(disk) as Arc<dyn Storage>);
        let mut pending = ChangeBuffer::default();
        let mark = pending.begin(1, Level::Synced, 0);
        pending.push(Op::Set, false, None, b"k", b"\x01");
        pending.end(mark);
        log.append(&Record::new(pending), Durability::Fsynced).unwrap();
        let (engine, _) = engine_on(Arc::clone(disk) as Arc<dyn Storage>);
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
        let held = || HISTORY_READERS_MAX - engine.deferred.reads.available_permits();
        let (began, given_up, still_held, ended) = runtime.block_on(async {
            let caller = Caller::new(PeerAddress::Local);
            let begin = |_| engine.begin_changes(query.clone(), &caller).unwrap();
            let laters: Vec<AwaitedChanges> = (0..HISTORY_READERS_MAX).map(begin).collect();
            laters.iter().for_each(Awaited::make);
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
