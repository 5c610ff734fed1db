//! The committer: one thread that turns everything pending into one log record, again and again.
//!
//! Where a record can be appended without a wait for the medium, whoever wrote does that instead
//! (see `lead`); the committer does what takes long, and what nobody waits for.

use super::spans::Commit;
use super::syncer::UNSYNCED_BYTES;
use super::{Core, Counters, Engine};
use crate::clock::Nanos;
use crate::limits::RECORD_BYTES;
use crate::protocol::WriteCost;
use crate::protocol::{ChangeBuffer, Level, Seq};
use crate::state::undo::Undo;
use crate::storage::{Durability, StorageError};
use crate::wal::watermarks::Progress;
use crate::wal::{Log, Record};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// How long writes that nobody waits for are gathered.
const LINGER: Duration = Duration::from_millis(2);
/// How often keys that expire unseen are looked for.
const TICK: Duration = Duration::from_millis(20);
/// Keys that expire in one tick.
const EXPIRE_PER_TICK: usize = 1_000;
/// How soon the next ones are taken out, where there are more.
const EXPIRE_AGAIN: Duration = Duration::from_millis(1);

/// How far the log has come. Whoever has it is the one who appends.
#[derive(Debug)]
pub(super) struct LogAppender {
    pub(super) log: Log,
    stored: Seq,
    synced: Seq,
    /// What is being committed.
    pub(super) in_flight: Option<InFlightCommit>,
    /// The emptied buffer of a record that was.
    spare: Undo,
}

impl LogAppender {
    pub(super) fn at(log: Log, progress: &Progress) -> Self {
        let Progress { stored, synced, .. } = *progress;
        Self { log, stored, synced, in_flight: None, spare: Undo::default() }
    }
}

/// A record that has not reached its writers' levels yet, and the way back.
#[derive(Debug)]
pub(super) struct InFlightCommit {
    pub(super) record: Arc<Record>,
    pub(super) undo: Undo,
}

/// When a commit began, and how far the log was stored and synced.
type Before = (Nanos, Seq, Seq);

/// What is committed together.
pub(super) struct Batch {
    pending: ChangeBuffer,
    undo: Undo,
    wants_sync: bool,
    is_last: bool,
}

impl Engine {
    /// Commits until [`Engine::stop`], or until the disk fails.
    pub fn commit(&self, log: Log) {
        self.unlock_appender(LogAppender::at(log, &self.watermarks.progress()));
        let _ = self.committer.set(std::thread::current());
        let ended = catch_unwind(AssertUnwindSafe(|| self.commit_until_stopped()));
        if let Err(error) = ended.unwrap_or_else(|_| Err(panicked())) {
            self.fail(&error);
        }
        // Who is appending at the moment is soon done.
        let appender = loop {
            match self.try_lock_appender() {
                Some(appender) => break appender,
                None => std::thread::park_timeout(TICK),
            }
        };
        self.settle(appender.in_flight);
    }

    fn commit_until_stopped(&self) -> Result<(), StorageError> {
        loop {
            let (appender, batch) = self.next_batch()?;
            let is_last = batch.is_last;
            self.commit_batch(appender, batch)?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Commits, and leaves the seat, whatever comes of it. Returns whether somebody wanted it
    /// meanwhile.
    pub(super) fn commit_batch(
        &self,
        mut appender: LogAppender,
        batch: Batch,
    ) -> Result<bool, StorageError> {
        let done = catch_unwind(AssertUnwindSafe(|| self.append_batch(&mut appender, batch)));
        let done = done.unwrap_or_else(|_| Err(panicked()));
        if let Err(error) = &done {
            // Before anybody else can append: what is on its way stays where it is.
            self.fail(error);
        }
        let is_wanted = self.unlock_appender(appender);
        done.map(|()| is_wanted)
    }

    fn append_batch(&self, appender: &mut LogAppender, batch: Batch) -> Result<(), StorageError> {
        let Batch { pending, undo, wants_sync, .. } = batch;
        let before = (self.since_boot(), appender.stored, appender.synced);
        if pending.is_empty() {
            return if wants_sync { self.sync(appender, before) } else { Ok(()) };
        }
        let record = Arc::new(Record::new(pending));
        appender.in_flight = Some(InFlightCommit { record: Arc::clone(&record), undo });
        let sync = if wants_sync { Durability::Fsynced } else { Durability::Buffered };
        tracing::trace!(items = record.items, bytes = record.len(), ?sync, "commit");
        let began = Instant::now();
        let mut written = None;
        appender.log.append_in_steps(&record, sync, &mut || written = Some(self.since_boot()))?;
        self.counters.commits.up();
        self.space.spent(record.len() as u64, self.queue.load().1 as u64);
        if wants_sync {
            // Before anybody hears of it, and comes back.
            self.gathered(began, record.items);
        }
        appender.stored = record.last_seq;
        if !appender.log.has_unsynced() {
            appender.synced = record.last_seq;
        }
        self.note_unsynced(appender, record.len());
        self.publish(record);
        self.note_commit(appender, before, written.or_else(|| wants_sync.then_some(before.0)));
        self.watermarks.committed(appender.stored, appender.synced);
        if let Some(InFlightCommit { undo, .. }) = appender.in_flight.take() {
            appender.spare = undo.emptied();
        }
        Ok(())
    }

    /// Notes when it began, how far the log was `before`, and when the system had it: where that is
    /// not known, when all was done. Before anybody hears of the commit.
    fn note_commit(&self, appender: &LogAppender, before: Before, written: Option<Nanos>) {
        let (began, stored_before, synced_before) = before;
        let LogAppender { stored, synced, .. } = *appender;
        let ended = self.since_boot();
        let written = written.unwrap_or(ended);
        self.commits.note(Commit {
            stored,
            stored_before,
            synced,
            synced_before,
            began,
            written,
            ended,
        });
    }

    /// What has been stored and not synced: since when, and how much.
    fn note_unsynced(&self, appender: &LogAppender, bytes: usize) {
        let Counters { unsynced_since: since, unsynced_bytes, .. } = &self.counters;
        if !appender.log.has_unsynced() {
            since.set(0);
            unsynced_bytes.set(0);
            return;
        }
        if since.get() == 0 {
            since.set(self.clock.now());
        }
        unsynced_bytes.add(bytes as u64);
        self.syncer.wake_if(unsynced_bytes.get() >= UNSYNCED_BYTES);
    }

    fn sync(&self, appender: &mut LogAppender, before: Before) -> Result<(), StorageError> {
        appender.log.sync()?;
        appender.synced = appender.stored;
        self.note_unsynced(appender, 0);
        self.note_commit(appender, before, Some(before.0));
        self.watermarks.committed(appender.stored, appender.synced);
        Ok(())
    }

    /// Waits for something to commit, and takes it all.
    fn next_batch(&self) -> Result<(LogAppender, Batch), StorageError> {
        let mut core = self.core_mut();
        let mut first_seen = None;
        loop {
            let mut has_more = false;
            if self.watermarks.has_failed() {
                return Err(StorageError::new("commit", "the disk failed"));
            }
            if core.pending.is_empty() {
                (first_seen, core.is_urgent) = (None, false);
                if !core.is_stopping && !core.wants_sync {
                    has_more = self.expire_on_time(&mut core);
                }
            }
            let mut wait = if has_more { EXPIRE_AGAIN } else { TICK };
            if !core.pending.is_empty() {
                let age = first_seen.get_or_insert_with(Instant::now).elapsed();
                wait = LINGER.saturating_sub(age);
            }
            if let Some(time) = self.gather(&mut core) {
                core = self.sleep(core, time);
                continue;
            }
            if (core.is_due() || wait.is_zero())
                && let Some(mut appender) = self.try_lock_appender()
            {
                if self.watermarks.has_failed() {
                    self.unlock_appender(appender);
                    continue;
                }
                let batch = core.take_batch(&mut appender);
                return Ok((appender, batch));
            }
            // Where another is appending, it looks after what is left, or wakes this thread.
            core = self.sleep(core, if wait.is_zero() { TICK } else { wait });
        }
    }

    /// Keys expire on time, also where nobody asks for them. Returns whether there are more.
    fn expire_on_time(&self, core: &mut Core) -> bool {
        let expired = self.expire(core, &self.context(self.clock.now()), EXPIRE_PER_TICK);
        // It is the committer that does this.
        let _ = self.account_and_signal(core);
        expired == EXPIRE_PER_TICK
    }

    /// Lets others have the core for a while.
    fn sleep<'e>(
        &'e self,
        mut core: RwLockWriteGuard<'e, Core>,
        time: Duration,
    ) -> RwLockWriteGuard<'e, Core> {
        core.is_committer_idle = true;
        let dropped = core.store.take_dropped();
        drop(core);
        drop(dropped);
        std::thread::park_timeout(time);
        let mut core = self.core_mut();
        core.is_committer_idle = false;
        core
    }
}

impl Core {
    /// Whether the committer has something to do that does not wait.
    pub(super) fn is_due(&self) -> bool {
        self.is_stopping || self.wants_sync || self.is_full() || self.is_urgent
    }

    /// Whether there is enough for a record.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= RECORD_BYTES
    }

    /// Takes everything that is pending.
    pub(super) fn take_batch(&mut self, appender: &mut LogAppender) -> Batch {
        self.is_urgent = false;
        self.enough_items = 0;
        self.taken = WriteCost::default();
        let is_last = self.pending.is_empty() && self.is_stopping;
        let is_strong = self.pending.strongest() == Level::Synced;
        let wants_sync = std::mem::take(&mut self.wants_sync) || is_strong || is_last;
        let pending = self.pending.take();
        let undo = self.store.take_undo(std::mem::take(&mut appender.spare));
        Batch { pending, undo, wants_sync, is_last }
    }
}

fn panicked() -> StorageError {
    StorageError::new("the committer", "stopped unexpectedly; restart the broker")
}
