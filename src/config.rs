//! What a broker is told at start, after the command line has been read and checked.

use crate::limits::Limits;
use crate::protocol::Level;
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
    /// Whether a URL that is opened in a browser may write.
    pub allow_browser_writes: bool,
    /// Endpoints of the command edge: `tcp://host:port` or `ipc://path`.
    pub routers: Vec<String>,
    /// Endpoints of the change edge.
    pub publishers: Vec<String>,
    /// Whether other machines may reach it, which needs no password.
    pub insecure: bool,
    /// What an operator should know of how it was started, as `stats` tells it.
    pub warnings: Vec<String>,
    /// The durability of writes that do not name one.
    pub durability: Level,
    /// Bounds of the write queue.
    pub write_queue: WriteQueueConfig,
    /// How much history stays.
    pub retain: RetainConfig,
    /// How many threads bring the tables up to date.
    pub checkpoint_threads: usize,
    /// All other bounds.
    pub limits: Limits,
}

impl Config {
    /// One checkpoint thread, no edges, and defaults for all that has some.
    pub fn without_edges(database: impl Into<PathBuf>) -> Self {
        Self {
            database: database.into(),
            http_host: String::new(),
            http_port: 0,
            http_host_names: Vec::new(),
            allow_browser_writes: false,
            routers: Vec::new(),
            publishers: Vec::new(),
            insecure: false,
            warnings: Vec::new(),
            durability: Level::Synced,
            write_queue: WriteQueueConfig::default(),
            retain: RetainConfig::default(),
            checkpoint_threads: 1,
            limits: Limits::default(),
        }
    }
}

/// Bounds of the write queue (LeakDB's `maxsize`, counted in items and in bytes).
#[derive(Debug, Clone)]
pub struct WriteQueueConfig {
    /// Most changes that wait for the tables; reaching it flushes.
    pub items: usize,
    /// Most bytes of changes that wait for the tables.
    pub bytes: usize,
    /// How long a writer waits for room before it gets `WRITE_QUEUE_FULL`, in milliseconds.
    pub wait_ms: u64,
}

impl Default for WriteQueueConfig {
    fn default() -> Self {
        Self { items: 4_000_000, bytes: 512 << 20, wait_ms: 5_000 }
    }
}

/// How much of the log stays after the tables hold it, for `changes`.
#[derive(Debug, Clone, Copy)]
pub struct RetainConfig {
    /// Bytes of log that stay at least, unless they are too old; what the tables do not hold yet
    /// stays in any case.
    pub bytes: u64,
    /// What is older goes too, in milliseconds; 0 sets no bound.
    pub age_ms: u64,
    /// The log is kept count of, and trimmed, in stretches of about so many bytes.
    pub segment_bytes: u64,
}

/// Segments are not made shorter than this for the sake of a small `--retain-bytes`.
const SEGMENT_BYTES_MIN: u64 = 1 << 20;

impl RetainConfig {
    /// When a segment is full. What stays beyond `bytes` is one segment, so where little is to
    /// stay they are short.
    pub fn full_segment_bytes(&self) -> u64 {
        self.segment_bytes.min((self.bytes / 4).max(SEGMENT_BYTES_MIN))
    }
}

impl Default for RetainConfig {
    fn default() -> Self {
        Self { bytes: 256 << 20, age_ms: 0, segment_bytes: 4 << 20 }
    }
}
