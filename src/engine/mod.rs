//! The engine owns the map, and is the one path by which anything in it changes.
//!
//! It is a lock, not a thread: an edge decodes what one read of its socket brought, and calls
//! ([`Engine::call`]). The requests are admitted without the lock, then applied in order under it,
//! and the edge leaves with the encoded replies and what each of them waits for. One committer
//! thread turns what is pending into a log record (group commit), moves the watermarks, and hands
//! the record to the write queue and to the feed. The engine knows
//! neither sockets nor subscribers.

mod admit;
pub mod allowance;
mod append_lock;
mod append_soon;
mod broker_view;
#[cfg(test)]
mod budget_tests;
mod changes;
mod checkpoints;
mod commit;
mod commit_delay;
pub mod counters;
mod deferred;
pub mod recovery;
pub mod replies;
mod rights;
mod rollback;
mod room;
mod run;
mod service;
pub mod spans;
mod stats;
mod syncer;

pub use crate::commands::ChangesQuery;
pub use allowance::{Allowance, End, Progress};
pub use changes::Awaited;
pub use counters::Counters;
pub use deferred::DeferredReply;
pub use recovery::{Recovered, recover};
pub use replies::{PendingReply, Replies, ReplyState};

#[cfg(test)]
pub use append_lock::tests::engine_on;

use crate::budget::Cost;
use crate::clock::{Clock, Millis, Nanos};
use crate::config::Config;
use crate::net::MemoryQuota;
use crate::protocol::WriteCost;
use crate::protocol::{ChangeBuffer, DurabilityBarrier, Seq, hex};
use crate::state::{Context, KeyHasher, Store};
use crate::storage::{Storage, StorageError};
use crate::wal::queue::Queued;
use crate::wal::watermarks;
use crate::wal::{Compaction, DiskSpace, Feed, Log, Record, Segments, Watermarks, WriteQueue};
use append_lock::AppendLock;
use commit_delay::CommitDelay;
use deferred::limits::DeferredLimits;
use deferred::watch::ChangeWatch;
use rights::Rights;
use spans::{RecentCommits, SlowRequests};
use std::sync::{
    Arc, LockResult, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    TryLockError, TryLockResult, Weak,
};
use std::thread::Thread;
use std::time::Instant;
use syncer::Syncer;
use tokio::sync::watch;

pub use crate::wal::watermarks::{BarrierStatus, Waiter};

/// How often a thread looks whether the core is free before it sleeps, where others can run
/// meanwhile.
const LOOKS: usize = 500;
const PAUSES_PER_LOOK: usize = 8;

/// The engine. Shared by the edges, the committer and whoever asks how it is doing.
#[derive(Debug)]
pub struct Engine {
    core: RwLock<Core>,
    /// The map's own.
    hasher: KeyHasher,
    /// Taken with the core held, left without it.
    append_lock: Mutex<AppendLock>,
    /// The committer's own.
    commit_delay: Mutex<CommitDelay>,
    looks: usize,
    /// The committer's thread, to be woken.
    committer: OnceLock<Thread>,
    syncer: Syncer,
    disk: Arc<dyn Storage>,
    queue: Arc<WriteQueue>,
    watermarks: Arc<Watermarks>,
    feed: Arc<Feed>,
    segments: Arc<Segments>,
    compaction: Arc<Compaction>,
    space: Arc<DiskSpace>,
    clock: Clock,
    counters: Counters,
    config: Config,
    store_id: [u8; 16],
    /// The same in hexadecimal digits.
    id_text: Arc<str>,
    started: Instant,
    deferred: Arc<DeferredLimits>,
    watch: Arc<ChangeWatch>,
    quota: Arc<MemoryQuota>,
    rights: Rights,
    commits: RecentCommits,
    slow: SlowRequests,
    this: Weak<Self>,
}

/// What the lock guards.
#[derive(Debug)]
struct Core {
    store: Store,
    /// Writes that are applied and not in the log yet.
    pending: ChangeBuffer,
    /// How much of it has taken its room in the queue.
    taken: WriteCost,
    /// The seq of the last write that left a change.
    last_written: Seq,
    /// Somebody waits for what is pending.
    is_urgent: bool,
    /// Somebody waits for it to be on the medium.
    wants_sync: bool,
    /// Unless the committer is to wait until there are so many changes.
    enough_items: usize,
    /// The committer sleeps and wants to be woken.
    is_committer_idle: bool,
    is_stopping: bool,
}

impl Engine {
    /// Makes the engine of a recovered store, and the log that the committer appends to.
    pub fn new(
        config: Config,
        clock: Clock,
        disk: Arc<dyn Storage>,
        recovered: Recovered,
    ) -> Result<(Arc<Self>, Log), StorageError> {
        let seq = recovered.store.seq();
        let log = Log::open(
            Arc::clone(&disk),
            recovered.segments,
            seq,
            config.retain.full_segment_bytes(),
        )?;
        let queue = Arc::new(WriteQueue::new(config.write_queue.clone()));
        let last_written =
            recovered.tail.last().map_or(recovered.checkpointed, |queued| queued.last_seq);
        for queued in recovered.tail {
            queue.take(queued.items, queued.bytes);
            queue.push(queued);
        }
        let core = Core {
            store: recovered.store,
            pending: ChangeBuffer::default(),
            taken: WriteCost::default(),
            last_written,
            is_urgent: false,
            wants_sync: false,
            enough_items: 0,
            is_committer_idle: false,
            is_stopping: false,
        };
        let feed = Arc::new(Feed::new(config.limits.subscriber_bytes, seq));
        let engine = Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            deferred: DeferredLimits::new(config.limits.max_connections),
            watch: ChangeWatch::new(Arc::clone(&feed)),
            quota: MemoryQuota::new(&config.limits),
            rights: Rights,
            commits: RecentCommits::default(),
            slow: SlowRequests::new(config.limits.slow_request_ms),
            hasher: core.store.hasher(),
            core: RwLock::new(core),
            append_lock: Mutex::default(),
            commit_delay: Mutex::default(),
            looks: if has_one_core() { 0 } else { LOOKS },
            committer: OnceLock::new(),
            syncer: Syncer::default(),
            queue,
            watermarks: Arc::new(Watermarks::at(seq, recovered.checkpointed)),
            feed,
            segments: log.segments(),
            compaction: Arc::default(),
            space: Arc::default(),
            disk,
            clock,
            counters: Counters::default(),
            config,
            store_id: recovered.store_id,
            id_text: Arc::from(hex(&recovered.store_id)),
            started: Instant::now(),
        });
        Ok((engine, log))
    }

    /// The core, shared with other readers.
    fn core(&self) -> RwLockReadGuard<'_, Core> {
        self.core_soon().unwrap_or_else(|| self.despite_panic(self.core.read()))
    }

    /// The same, unless it takes long.
    fn core_soon(&self) -> Option<RwLockReadGuard<'_, Core>> {
        self.spin_for(|| self.core.try_read())
    }

    /// The core, alone.
    fn core_mut(&self) -> RwLockWriteGuard<'_, Core> {
        let core = self.spin_for(|| self.core.try_write());
        core.unwrap_or_else(|| self.despite_panic(self.core.write()))
    }

    /// The core, shared; adds to `waited` how long that took, where it was not free.
    fn core_timed(&self, waited: &mut Nanos) -> RwLockReadGuard<'_, Core> {
        self.core.try_read().unwrap_or_else(|_| self.waiting(waited, || self.core()))
    }

    /// The core, alone; the same.
    fn core_mut_timed(&self, waited: &mut Nanos) -> RwLockWriteGuard<'_, Core> {
        self.core.try_write().unwrap_or_else(|_| self.waiting(waited, || self.core_mut()))
    }

    #[cold]
    fn waiting<G>(&self, waited: &mut Nanos, lock: impl FnOnce() -> G) -> G {
        let began = self.clock.since_boot();
        let guard = lock();
        *waited += self.clock.since_boot().saturating_sub(began);
        guard
    }

    /// Looks for a while whether a lock is free. Who holds the core is done within microseconds: to
    /// be put to sleep and woken costs more than most waits, and the others wait for it meanwhile.
    fn spin_for<G>(&self, mut try_lock: impl FnMut() -> TryLockResult<G>) -> Option<G> {
        for _ in 0..=self.looks {
            match try_lock() {
                Ok(guard) => return Some(guard),
                Err(TryLockError::Poisoned(_)) => break,
                Err(TryLockError::WouldBlock) => {}
            }
            for _ in 0..PAUSES_PER_LOOK {
                std::hint::spin_loop();
            }
        }
        None
    }

    /// A panic while the core was held leaves it readable, and stops writes for good.
    fn despite_panic<G>(&self, locked: LockResult<G>) -> G {
        locked.unwrap_or_else(|poisoned| {
            self.fail(&StorageError::new("a command", "stopped unexpectedly; restart the broker"));
            PoisonError::into_inner(poisoned)
        })
    }

    /// Whether others run while this thread does something else.
    fn has_cores(&self) -> bool {
        self.looks > 0
    }

    fn wake_committer(&self) {
        if let Some(committer) = self.committer.get() {
            committer.unpark();
        }
    }

    fn fail(&self, reason: &StorageError) {
        if self.watermarks.fail(reason) {
            // Whoever waits for room is to hear of it too.
            self.queue.give_back(0, 0);
        }
    }

    fn context(&self, now: Millis) -> Context {
        Context {
            now,
            durability: self.config.durability,
            page_items: self.config.limits.range_items,
            page_bytes: self.config.limits.range_bytes,
            reply_bytes: self.config.limits.max_message_bytes,
            command_items: self.config.limits.command_items,
            walk: Cost::MAX,
            write_bytes: self.config.limits.write_bytes(),
        }
    }

    /// Whether a reply that waits for `barrier` may be sent.
    pub fn barrier_status(&self, barrier: DurabilityBarrier) -> BarrierStatus {
        if barrier == DurabilityBarrier::OPEN {
            BarrierStatus::Ready
        } else {
            self.watermarks.barrier_status(barrier)
        }
    }

    /// Someone who waits for one barrier after another.
    pub fn waiter(&self) -> Waiter<'_> {
        self.watermarks.waiter()
    }

    /// Changes with every step of the watermarks, with a failure of the disk, and with the stop.
    pub fn progress(&self) -> watch::Receiver<watermarks::Progress> {
        self.watermarks.subscribe()
    }

    /// Changes whenever the write queue gained room, and with a failure of the disk.
    pub fn room(&self) -> watch::Receiver<u64> {
        self.queue.room()
    }

    /// What was committed, in order.
    pub fn feed(&self) -> Arc<Feed> {
        Arc::clone(&self.feed)
    }

    /// The counters that the edges keep.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The memory that peers cause, of all edges.
    pub fn quota(&self) -> &Arc<MemoryQuota> {
        &self.quota
    }

    /// What the broker was told at start.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The write queue, for the checkpointer.
    pub fn queue(&self) -> Arc<WriteQueue> {
        Arc::clone(&self.queue)
    }

    /// The watermarks, for the checkpointer.
    pub fn watermarks(&self) -> Arc<Watermarks> {
        Arc::clone(&self.watermarks)
    }

    /// What is known of the room on the medium.
    pub fn space(&self) -> Arc<DiskSpace> {
        Arc::clone(&self.space)
    }

    /// What is known of the room that the store takes, for the compactor and whoever asks it.
    pub fn compaction(&self) -> Arc<Compaction> {
        Arc::clone(&self.compaction)
    }

    /// The log's segments, for the checkpointer.
    pub fn segments(&self) -> Arc<Segments> {
        Arc::clone(&self.segments)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.core().store.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells the edges that the broker is stopping: they answer what they took and take no more.
    pub fn announce_stop(&self) {
        self.watermarks.stopping();
        self.watch.stop();
    }

    /// Takes no more writes; the committer ends when it has committed what is pending.
    pub fn stop(&self) {
        self.core_mut().is_stopping = true;
        self.wake_committer();
    }

    /// Leaves the store as a clean stop does. Call it after the committer and the checkpointer.
    pub fn close(&self) -> Result<(), StorageError> {
        if let Some(reason) = self.watermarks.failure() {
            return Err(StorageError::new("not closed cleanly", reason));
        }
        let seq = self.core().store.seq();
        recovery::close(self.disk.as_ref(), &self.clock, seq)
    }

    fn publish(&self, record: Arc<Record>) {
        self.queue.push(Queued::from(&*record));
        self.feed.push(Arc::clone(&record));
        self.watch.committed(&record);
    }
}

fn has_one_core() -> bool {
    std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1)
}
