//! The storage runtime driven from inside the process: requests in, outcomes out, on any disk.

use super::dealer::{Outcome, decode};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vatn::client::Request;
use vatn::clock::Clock;
use vatn::config::{Config, RetainConfig, WriteQueueConfig};
use vatn::engine::{Allowance, Engine, PendingReply, Replies};
use vatn::net::Caller;
use vatn::protocol::DurabilityBarrier;
use vatn::server::StorageRuntime;
use vatn::storage::{Storage, StorageError};

/// Longer than anything takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn config(queue: WriteQueueConfig) -> Config {
    Config {
        write_queue: queue,
        // Small enough that segments are closed and trimmed all the time.
        retain: RetainConfig { bytes: 2_000, age_ms: 0, segment_bytes: 500 },
        checkpoint_threads: 2,
        ..Config::without_edges("memory")
    }
}

/// Opens a store with a small queue, so that its writers wait for the checkpointer.
pub fn open(disk: Arc<dyn Storage>, clock: &Clock) -> Result<StorageRuntime, StorageError> {
    let queue = WriteQueueConfig { items: 12, bytes: 1 << 20, wait_ms: 60_000 };
    StorageRuntime::open(config(queue), clock.clone(), disk, &mut |_| {})
}

/// Waits until `condition` holds; fails when it never does.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// A request that was executed, and whose answer may have to wait.
pub struct Held {
    bytes: Vec<u8>,
    reply: PendingReply,
}

impl Held {
    /// The encoded response.
    pub fn response(&self) -> &[u8] {
        &self.bytes[self.reply.range.clone()]
    }

    /// Whether the answer may be sent now.
    pub fn is_open(&self) -> bool {
        self.reply.barrier() == Some(DurabilityBarrier::OPEN)
    }
}

/// Executes a request as soon as there is room for it.
pub fn execute(engine: &Engine, request: &Request) -> Held {
    execute_frame(engine, &request.encode(1))
}

/// The same for an encoded request.
pub fn execute_frame(engine: &Engine, frame: &[u8]) -> Held {
    let requests = [vatn::commands::Request::decode(frame)];
    let (caller, mut replies) = (Caller::local(), Replies::default());
    wait_for("room in the queue", || {
        let mut allowance = Allowance::default().waiting_for_room();
        engine.call(&caller, &requests, &mut allowance, &mut replies).done == 1
    });
    Held { reply: replies.list[0].clone(), bytes: replies.encoded.fill() }
}

/// Waits for the answer of an executed request.
pub fn settle(engine: &Engine, held: &Held) -> Outcome {
    wait_for("an answer", || engine.is_due(&held.reply, tokio::time::Instant::now()));
    let mut out = Vec::new();
    match engine.complete(&held.reply, &mut out) {
        true => decode(&out).1,
        false => decode(&held.bytes[held.reply.range.clone()]).1,
    }
}

pub fn call(engine: &Engine, request: &Request) -> Outcome {
    settle(engine, &execute(engine, request))
}
