//! The committer: one thread that turns everything pending into one log record, again and again.

use super::syncer::UNSYNCED_BYTES;
use super::{Core, Counters, Engine};
use crate::disk::{DiskError, Sync};
use crate::limits::RECORD_BYTES;
use crate::log::{Log, Record};
use crate::store::undo::Undo;
use crate::wire::command::Weight;
use crate::wire::{ChangeBuffer, Level, Seq};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// How long writes that nobody waits for are gathered.
const LINGER: Duration = Duration::from_millis(2);
/// How often the disk is asked for the store's size, while there are writes.
const MEASURE_AGE: Duration = Duration::from_secs(1);
/// How often keys that expire unseen are looked for.
const TICK: Duration = Duration::from_millis(20);
/// Keys that expire in one tick.
const EXPIRE_PER_TICK: usize = 10_000;

/// How far the log has come.
struct Position {
    log: Log,
    stored: Seq,
    synced: Seq,
    measured_at: Option<Instant>,
    /// What is being committed.
    on_its_way: Option<OnItsWay>,
    /// The emptied buffer of a record that was.
    spare: Undo,
}

/// A record that has not reached its writers' levels yet, and the way back.
pub(super) struct OnItsWay {
    pub(super) record: Arc<Record>,
    pub(super) undo: Undo,
}

/// What is committed together.
#[derive(Default)]
struct Batch {
    pending: ChangeBuffer,
    undo: Undo,
    wants_sync: bool,
}

impl Engine {
    /// Commits until [`Engine::stop`], or until the disk fails.
    pub fn commit(&self, log: Log) {
        let progress = self.watermarks.progress();
        let (stored, synced) = (progress.stored, progress.synced);
        let (measured_at, on_its_way) = (None, None);
        let spare = Undo::default();
        let mut position = Position { log, stored, synced, measured_at, on_its_way, spare };
        let _ = self.committer.set(std::thread::current());
        let ended = catch_unwind(AssertUnwindSafe(|| self.commit_until_stopped(&mut position)));
        let failure = match ended {
            Ok(ended) => ended.err().map(|error| Arc::clone(error.text())),
            Err(_) => Some("the committer stopped unexpectedly; restart the broker".into()),
        };
        self.settle(failure.as_ref(), position.on_its_way);
    }

    fn commit_until_stopped(&self, position: &mut Position) -> Result<(), DiskError> {
        loop {
            self.measure(position);
            let Some(Batch { pending, undo, wants_sync }) = self.next_batch(position)? else {
                position.log.sync()?;
                return Ok(());
            };
            if pending.is_empty() {
                self.sync(position)?;
                continue;
            }
            let record = Arc::new(Record::new(pending));
            position.on_its_way = Some(OnItsWay { record: Arc::clone(&record), undo });
            let sync = match wants_sync || record.strongest == Level::Synced {
                true => Sync::Data,
                false => Sync::Buffer,
            };
            tracing::trace!(items = record.items, bytes = record.len(), ?sync, "commit");
            position.log.append(&record, sync)?;
            self.counters.commits.up();
            position.stored = record.last_seq;
            if !position.log.has_unsynced() {
                position.synced = record.last_seq;
            }
            self.note_unsynced(position, record.len());
            self.publish(record);
            self.watermarks.committed(position.stored, position.synced);
            if let Some(OnItsWay { undo, .. }) = position.on_its_way.take() {
                position.spare = undo.emptied();
            }
        }
    }

    fn measure(&self, position: &mut Position) {
        if position.measured_at.is_none_or(|at| at.elapsed() >= MEASURE_AGE) {
            self.counters.disk_bytes.set(self.disk.bytes());
            position.measured_at = Some(Instant::now());
        }
    }

    /// What has been stored and not synced: since when, and how much.
    fn note_unsynced(&self, position: &Position, bytes: usize) {
        let Counters { unsynced_since: since, unsynced_bytes, .. } = &self.counters;
        if !position.log.has_unsynced() {
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

    fn sync(&self, position: &mut Position) -> Result<(), DiskError> {
        position.log.sync()?;
        position.synced = position.stored;
        self.note_unsynced(position, 0);
        self.watermarks.committed(position.stored, position.synced);
        Ok(())
    }

    /// Waits for something to commit, and takes it all. An empty buffer asks for a sync; `None` is
    /// the end.
    fn next_batch(&self, position: &mut Position) -> Result<Option<Batch>, DiskError> {
        let mut core = self.core_mut();
        let mut first_seen = None;
        loop {
            if self.watermarks.has_failed() {
                return Err(DiskError::new("commit", "the disk failed"));
            }
            if core.pending.is_empty() {
                if core.is_stopping {
                    return Ok(None);
                }
                core.is_urgent = false;
                if std::mem::take(&mut core.wants_sync) && position.log.has_unsynced() {
                    return Ok(Some(Batch::default()));
                }
                self.expire(&mut core);
                if core.pending.is_empty() {
                    core = self.sleep(core, TICK);
                }
                continue;
            }
            let age = first_seen.get_or_insert_with(Instant::now).elapsed();
            let is_due = core.is_urgent || core.is_stopping || age >= LINGER;
            if is_due || core.pending.bytes().len() >= RECORD_BYTES {
                core.is_urgent = false;
                core.taken = Weight::default();
                let wants_sync = std::mem::take(&mut core.wants_sync);
                let pending = core.pending.take();
                let undo = core.store.take_undo(std::mem::take(&mut position.spare));
                return Ok(Some(Batch { pending, undo, wants_sync }));
            }
            core = self.sleep(core, LINGER - age);
        }
    }

    /// Keys expire on time, also where nobody asks for them.
    fn expire(&self, core: &mut Core) {
        let context = self.context();
        core.store.expire(&context, EXPIRE_PER_TICK, &mut core.pending);
        // It is the committer that does this.
        let _ = self.hand_on(core);
    }

    /// Lets others have the core for a while.
    fn sleep<'e>(
        &'e self,
        mut core: RwLockWriteGuard<'e, Core>,
        time: Duration,
    ) -> RwLockWriteGuard<'e, Core> {
        core.is_committer_idle = true;
        drop(core);
        std::thread::park_timeout(time);
        let mut core = self.core_mut();
        core.is_committer_idle = false;
        core
    }
}
