//! Everything behind the edges: disk, engine, committer and workers, started and stopped in order.

use crate::clock::Clock;
use crate::config::Config;
use crate::disk::{Disk, DiskError};
use crate::engine::{Engine, recover};
use crate::log::Rounds;
use crate::worker::{Compactor, Worker};
use std::sync::Arc;
use std::thread::JoinHandle;

/// A running engine with its threads.
#[derive(Debug)]
pub struct Backbone {
    engine: Arc<Engine>,
    committer: JoinHandle<()>,
    syncer: JoinHandle<()>,
    worker: JoinHandle<()>,
    compactor: JoinHandle<()>,
}

impl Backbone {
    /// Recovers what `disk` holds, and starts the committer and the workers. `report` hears how
    /// many items have been read.
    pub fn open(
        config: Config,
        clock: Clock,
        disk: Arc<dyn Disk>,
        report: &mut dyn FnMut(usize),
    ) -> Result<Self, DiskError> {
        let recovered = recover(disk.as_ref(), &clock, report)?;
        let (threads, retain) = (config.workers, config.retain);
        let (engine, log) = Engine::new(config, clock.clone(), Arc::clone(&disk), recovered)?;
        let (queue, watermarks) = (engine.queue(), engine.watermarks());
        let (segments, rounds) = (engine.segments(), Arc::clone(&engine) as Arc<dyn Rounds>);
        let compaction = engine.compaction();
        let space = engine.space();
        let compactor = Compactor::new(
            Arc::clone(&disk),
            Arc::clone(&compaction),
            Arc::clone(&space),
            engine.queue(),
        );
        compactor.look();
        let worker = Worker {
            disk,
            rounds,
            queue,
            watermarks,
            segments,
            compaction: Arc::clone(&compaction),
            space,
            retain,
            clock,
            threads,
        };
        // What a crash left in the log goes to the tables, and to the medium, before anything is
        // shown.
        worker.catch_up()?;
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
        let worker = spawn("vatn-worker", move || worker.run())?;
        let compactor = spawn("vatn-compact", move || compactor.run())?;
        Ok(Self { engine, committer, syncer, worker, compactor })
    }

    /// The engine.
    pub fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine)
    }

    /// Stops in order: no more writes, everything pending into the log, the queue into the tables,
    /// fsync. Nothing that was queued is lost.
    pub fn stop(self) -> Result<(), DiskError> {
        self.engine.stop();
        let committed = self.committer.join();
        self.engine.stop_syncing();
        let synced = self.syncer.join();
        self.engine.queue().close();
        let worked = self.worker.join();
        self.engine.compaction().close();
        let compacted = self.compactor.join();
        if [committed, synced, worked, compacted].iter().any(Result::is_err) {
            return Err(DiskError::new("stopping", "a thread ended unexpectedly"));
        }
        self.engine.close()
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, DiskError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(|error| DiskError::new("starting a thread", error))
}
