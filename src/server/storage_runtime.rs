//! Everything behind the edges: disk, engine, committer and checkpointer, started and stopped in
//! order.

use crate::checkpointer::{Checkpointer, Compactor};
use crate::clock::Clock;
use crate::config::Config;
use crate::engine::{Engine, recover};
use crate::storage::{Storage, StorageError};
use crate::wal::Checkpoints;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A running engine with its threads.
#[derive(Debug)]
pub struct StorageRuntime {
    engine: Arc<Engine>,
    committer: JoinHandle<()>,
    syncer: JoinHandle<()>,
    checkpointer: JoinHandle<()>,
    compactor: JoinHandle<()>,
}

impl StorageRuntime {
    /// Recovers the store on `disk`, and starts committer and checkpointer. `report` is called with
    /// the number of items read.
    pub fn open(
        config: Config,
        clock: Clock,
        disk: Arc<dyn Storage>,
        report: &mut dyn FnMut(usize),
    ) -> Result<Self, StorageError> {
        let recovered = recover(disk.as_ref(), &clock, report)?;
        let (threads, retain) = (config.checkpoint_threads, config.retain);
        let (engine, log) = Engine::new(config, clock.clone(), Arc::clone(&disk), recovered)?;
        let (queue, watermarks) = (engine.queue(), engine.watermarks());
        let (segments, checkpoints) =
            (engine.segments(), Arc::clone(&engine) as Arc<dyn Checkpoints>);
        let compaction = engine.compaction();
        let space = engine.space();
        let compactor = Compactor::new(
            Arc::clone(&disk),
            Arc::clone(&compaction),
            Arc::clone(&space),
            engine.queue(),
        );
        compactor.look();
        let checkpointer = Checkpointer {
            disk,
            checkpoints,
            queue,
            watermarks,
            segments,
            compaction: Arc::clone(&compaction),
            space,
            retain,
            clock,
            threads,
        };
        // After a crash the rest of the log goes to the tables, and to the disk, before anything is
        // served.
        checkpointer.catch_up()?;
        compaction.checkpointed(engine.live_bytes());
        compactor.look();
        let committer = spawn("vatn-commit", {
            let engine = Arc::clone(&engine);
            move || engine.commit(log)
        })?;
        let syncer = spawn("vatn-sync", {
            let engine = Arc::clone(&engine);
            move || engine.keep_synced()
        })?;
        let checkpointer = spawn("vatn-checkpoint", move || checkpointer.run())?;
        let compactor = spawn("vatn-compact", move || compactor.run())?;
        Ok(Self { engine, committer, syncer, checkpointer, compactor })
    }

    /// The engine.
    pub fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine)
    }

    /// Stops in order: refuses writes, commits pending ones to the log, empties the queue into the
    /// tables, fsyncs. Nothing that was queued is lost.
    pub fn stop(self) -> Result<(), StorageError> {
        self.engine.stop();
        let committed = self.committer.join();
        self.engine.stop_syncing();
        let synced = self.syncer.join();
        self.engine.queue().close();
        let worked = self.checkpointer.join();
        self.engine.compaction().close();
        let compacted = self.compactor.join();
        if [committed, synced, worked, compacted].iter().any(Result::is_err) {
            return Err(StorageError::new("stopping", "a thread ended unexpectedly"));
        }
        self.engine.close()
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StorageError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(|error| StorageError::new("starting a thread", error))
}
