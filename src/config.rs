//! What a broker is told at start, after the command line has been read and checked.

use crate::limits::Limits;
use crate::wire::Level;
use std::path::PathBuf;

/// Everything a broker needs to know before it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// The store's directory; created when it does not exist.
    pub database: PathBuf,
    /// The address of the HTTP edge (host part only).
    pub http_host: String,
    /// The port of the HTTP edge; 0 asks the system for one.
    pub http_port: u16,
    /// Further names under which the HTTP edge may be called (the `Host` header).
    pub http_host_names: Vec<String>,
    /// Endpoints of the command edge: `tcp://host:port` or `ipc://path`.
    pub routers: Vec<String>,
    /// Endpoints of the change edge.
    pub publishers: Vec<String>,
    /// The durability of writes that do not name one.
    pub durability: Level,
    /// Bounds of the write queue.
    pub queue: QueueConfig,
    /// How many threads bring the tables up to date.
    pub workers: usize,
    /// All other bounds.
    pub limits: Limits,
}

/// Bounds of the write queue (LeakDB's `maxsize`, counted in items and in bytes).
#[derive(Debug, Clone)]
pub struct QueueConfig {
    /// Most changes that wait for the tables; reaching it flushes.
    pub items: usize,
    /// Most bytes of changes that wait for the tables.
    pub bytes: usize,
    /// How long a writer waits for room before it gets `QUEUE_FULL`, in milliseconds.
    pub wait_ms: u64,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { items: 4_000_000, bytes: 512 << 20, wait_ms: 5_000 }
    }
}
