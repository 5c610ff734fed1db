//! Appending without the committer: a thread that wrote at level `stored` appends the record
//! itself, unless another thread is appending or the append would wait for the disk.
//!
//! So no thread is woken or waited for. One thread appends at a time. A thread that finds the lock
//! taken leaves its pending writes to the thread that holds it.

use super::commit::{Batch, LogAppender};
use super::{Core, Engine};
use crate::protocol::{Level, Seq};
use std::sync::{MutexGuard, PoisonError};

/// After this many records of other threads the committer takes over, so that the thread can serve
/// its own connections.
const ROUNDS_MAX: usize = 8;

/// Holds the log appender while no thread appends.
#[derive(Debug, Default)]
pub(super) struct AppendLock {
    appender: Option<LogAppender>,
    /// Another thread found the lock taken.
    is_wanted: bool,
}

/// The thread that appends the pending writes.
#[expect(clippy::large_enum_variant, reason = "it lives for one call")]
enum Turn {
    /// The calling thread.
    Own(LogAppender, Batch),
    /// A thread that is appending now, and looks for more afterwards.
    Another,
    /// The committer.
    Committer,
    /// No thread yet.
    Nobody,
}

impl Engine {
    fn append_lock(&self) -> MutexGuard<'_, AppendLock> {
        self.append_lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock. If it is taken, its holder looks again for pending writes. Hold the core
    /// here, or the holder may miss some.
    pub(super) fn try_lock_appender(&self) -> Option<LogAppender> {
        let mut append_lock = self.append_lock();
        let appender = append_lock.appender.take();
        append_lock.is_wanted = appender.is_none();
        appender
    }

    /// Releases the lock; returns whether another thread wanted it meanwhile.
    pub(super) fn unlock_appender(&self, appender: LogAppender) -> bool {
        let mut append_lock = self.append_lock();
        append_lock.appender = Some(appender);
        std::mem::take(&mut append_lock.is_wanted)
    }

    /// Appends what is written up to `seq`, unless another has done it, or does.
    pub(super) fn append(&self, seq: Seq) {
        if seq <= self.watermarks.stored() {
            return;
        }
        let turn = self.turn(&mut self.core_mut());
        match turn {
            Turn::Own(appender, batch) => self.append_batches(appender, batch),
            Turn::Committer => self.wake_committer(),
            Turn::Another | Turn::Nobody => {}
        }
    }

    /// Takes the pending writes if a client waits for them and they can be appended at once.
    fn turn(&self, core: &mut Core) -> Turn {
        if !core.is_due() {
            return Turn::Nobody;
        }
        if !core.is_for_anyone() {
            return Turn::Committer;
        }
        let Some(mut appender) = self.try_lock_appender() else { return Turn::Another };
        // The last holder may have failed.
        if self.watermarks.has_failed() || !appender.log.appends_at_once(core.pending.last_seq()) {
            self.unlock_appender(appender);
            return Turn::Committer;
        }
        let batch = core.take_batch(&mut appender);
        Turn::Own(appender, batch)
    }

    /// Appends without the core, then the writes that other threads left meanwhile.
    fn append_batches(&self, mut appender: LogAppender, mut batch: Batch) {
        for round in 1.. {
            // After an error the committer takes back what has not reached its level.
            let is_wanted = self.commit_batch(appender, batch).unwrap_or(true);
            if !is_wanted {
                return;
            }
            if round == ROUNDS_MAX {
                break;
            }
            match self.turn(&mut self.core_mut()) {
                Turn::Own(next, more) => (appender, batch) = (next, more),
                Turn::Another | Turn::Nobody => return,
                Turn::Committer => break,
            }
        }
        self.wake_committer();
    }
}

impl Core {
    /// Whether any thread may append the pending writes: no client waits for more than `stored`.
    pub(super) fn is_for_anyone(&self) -> bool {
        let is_short = !self.wants_sync && self.pending.strongest() < Level::Synced;
        self.is_urgent && is_short && !self.pending.is_empty()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::commands::Request;
    use crate::commands::{Command, Set};
    use crate::config::Config;
    use crate::engine::{Allowance, BarrierStatus, Replies, recover};
    use crate::net::Caller;
    use crate::protocol::DurabilityBarrier;
    use crate::storage::{MemoryStorage, Storage};
    use crate::wal::Log;
    use std::sync::Arc;

    /// An engine whose committer never comes.
    pub(in crate::engine) fn engine(disk: &Arc<MemoryStorage>) -> (Arc<Engine>, Log) {
        engine_on(Arc::clone(disk) as Arc<dyn Storage>)
    }

    /// The same on any disk.
    pub fn engine_on(disk: Arc<dyn Storage>) -> (Arc<Engine>, Log) {
        let clock = Clock::system();
        let recovered = recover(disk.as_ref(), &clock, &mut |_| {}).unwrap();
        Engine::new(Config::without_edges("memory"), clock, disk, recovered).unwrap()
    }

    pub(in crate::engine) fn set(engine: &Engine, level: Level) -> DurabilityBarrier {
        let (key, durability) = ((&b"k"[..]).into(), Some(level));
        let set = Set {
            key,
            value: b"\x01",
            expiry: None,
            condition: None,
            durability,
            return_value: false,
        };
        let command = Ok(Command::Set(set));
        let request = Request { id: Some(1), notification: false, command };
        let (mut allowance, mut replies) = (Allowance::default(), Replies::default());
        let progress = engine.call(&Caller::local(), &[request], &mut allowance, &mut replies);
        assert_eq!(progress.done, 1);
        replies.list[0].barrier().unwrap()
    }

    #[test]
    fn who_waits_for_stored_alone_appends_itself() {
        let (engine, log) = engine(&Arc::default());
        if !engine.has_cores() {
            return;
        }
        let early = set(&engine, Level::Stored);
        assert_eq!(
            engine.barrier_status(early),
            BarrierStatus::Waiting,
            "there is nothing to append to yet"
        );
        engine.unlock_appender(LogAppender::at(log, &engine.watermarks.progress()));
        let stored = set(&engine, Level::Stored);
        assert_eq!(engine.barrier_status(stored), BarrierStatus::Ready);
        assert_eq!(engine.barrier_status(early), BarrierStatus::Ready);
        let synced = set(&engine, Level::Synced);
        assert_eq!(engine.barrier_status(synced), BarrierStatus::Waiting);
        let later = set(&engine, Level::Stored);
        assert_eq!(
            engine.barrier_status(later),
            BarrierStatus::Waiting,
            "it comes after what waits for a sync"
        );
    }

    #[test]
    fn what_is_left_to_who_appends_is_appended() {
        let (engine, log) = engine(&Arc::default());
        let mut appender = LogAppender::at(log, &engine.watermarks.progress());
        let first = set(&engine, Level::Stored);
        let batch = engine.core_mut().take_batch(&mut appender);
        let second = set(&engine, Level::Stored);
        assert_eq!(engine.barrier_status(first), BarrierStatus::Waiting);
        engine.append_batches(appender, batch);
        assert_eq!(engine.barrier_status(first), BarrierStatus::Ready);
        assert_eq!(engine.barrier_status(second) == BarrierStatus::Ready, engine.has_cores());
    }

    #[test]
    fn nobody_appends_after_a_failure() {
        let disk = Arc::<MemoryStorage>::default();
        let (engine, log) = engine(&disk);
        let mut appender = LogAppender::at(log, &engine.watermarks.progress());
        set(&engine, Level::Stored);
        let batch = engine.core_mut().take_batch(&mut appender);
        let left = set(&engine, Level::Stored);
        disk.fail_after(0);
        engine.append_batches(appender, batch);
        assert_eq!(
            engine.barrier_status(left),
            BarrierStatus::Waiting,
            "the committer is to take it back"
        );
        assert!(matches!(engine.turn(&mut engine.core_mut()), Turn::Committer));
        let appender = engine.try_lock_appender().unwrap();
        assert!(appender.in_flight.is_some(), "it is to find what was being appended");
    }
}
