//! A broker's edges inside the test, over a disk in memory: the test decides when the log is
//! written, and when it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use vatn::clock::Clock;
use vatn::config::{Config, WriteQueueConfig};
use vatn::engine::{Engine, recover};
use vatn::limits::Limits;
use vatn::net::io_threads::IoThreads;
use vatn::storage::{MemoryStorage, Storage};
use vatn::wal::Log;
use vatn::zmq::{Publisher, Router};

/// Edges and an engine without a checkpointer, so that the write queue only fills.
pub struct Edges {
    pub disk: Arc<MemoryStorage>,
    pub engine: Arc<Engine>,
    pub router: String,
    pub publisher: String,
    log: Option<Log>,
    committer: Option<JoinHandle<()>>,
    stop_router: watch::Sender<bool>,
    stop_publisher: watch::Sender<bool>,
    pub has_router_stopped: Arc<AtomicBool>,
    runtime: Runtime,
}

impl Edges {
    pub fn start(limits: Limits, queue: WriteQueueConfig) -> Self {
        let disk = Arc::<MemoryStorage>::default();
        let mut edges =
            Self::over(Arc::clone(&disk) as Arc<dyn Storage>, Clock::system(), limits, queue);
        edges.disk = disk;
        edges
    }

    /// The same over another disk, and by another clock.
    pub fn over(
        disk: Arc<dyn Storage>,
        clock: Clock,
        limits: Limits,
        queue: WriteQueueConfig,
    ) -> Self {
        let config = Config {
            routers: vec!["tcp://127.0.0.1:0".to_owned()],
            publishers: vec!["tcp://127.0.0.1:0".to_owned()],
            write_queue: queue,
            checkpoint_threads: 0,
            limits,
            ..Config::without_edges("edges")
        };
        let recovered = recover(disk.as_ref(), &clock, &mut |_| {}).unwrap();
        let (engine, log) = Engine::new(config.clone(), clock, disk, recovered).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
        let (stop_router, router_stopping) = watch::channel(false);
        let (stop_publisher, publisher_stopping) = watch::channel(false);
        let has_router_stopped = Arc::new(AtomicBool::new(false));
        let bound = runtime.block_on(async {
            let router = Router::bind(&config.routers, Arc::clone(&engine)).await.unwrap();
            let publisher = Publisher::bind(&config.publishers, Arc::clone(&engine)).await.unwrap();
            (router, publisher)
        });
        let (router, publisher) = (bound.0.endpoints(), bound.1.endpoints());
        let stopped = Arc::clone(&has_router_stopped);
        let io_threads = Arc::new(IoThreads::start(None, Duration::ZERO).unwrap());
        let router_loops = Arc::clone(&io_threads);
        runtime.spawn(async move {
            bound.0.run(router_loops, router_stopping).await;
            stopped.store(true, Ordering::Release);
        });
        runtime.spawn(bound.1.run(io_threads, publisher_stopping));
        Self {
            disk: Arc::default(),
            engine,
            router: router[0].clone(),
            publisher: publisher[0].clone(),
            log: Some(log),
            committer: None,
            stop_router,
            stop_publisher,
            has_router_stopped,
            runtime,
        }
    }

    /// From now on pending writes are written to the log.
    pub fn commit(&mut self) {
        let (engine, log) = (Arc::clone(&self.engine), self.log.take().unwrap());
        self.committer = Some(std::thread::spawn(move || engine.commit(log)));
    }

    /// Asks the command edge to stop.
    pub fn stop_router(&self) {
        self.stop_router.send_replace(true);
    }

    /// Asks the change edge to stop.
    pub fn stop_publisher(&self) {
        self.stop_publisher.send_replace(true);
    }
}

impl Drop for Edges {
    fn drop(&mut self) {
        self.stop_router();
        self.stop_publisher();
        self.engine.stop();
        if let Some(committer) = self.committer.take() {
            committer.join().unwrap();
        }
    }
}

/// Waits until `condition` holds; fails after ten seconds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{what}: not within ten seconds");
}
