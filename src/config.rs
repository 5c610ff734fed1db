//! The configuration of a broker, after the command line has been read and checked.

use crate::limits::Limits;
use crate::protocol::Level;
use std::path::PathBuf;

/// The configuration of a broker.
#[derive(Debug, Clone)]
pub struct Config {
    /// The store's directory; created when it does not exist.
    pub database: PathBuf,
    /// The address of the HTTP edge (host part only).
    pub http_host: String,
    /// The port of the HTTP edge; 0 lets the system choose one.
    pub http_port: u16,
    /// Further names by which clients may address the HTTP edge (the `Host` header).
    pub http_host_names: Vec<String>,
    /// Whether a URL opened in a browser may write.
    pub allow_browser_writes: bool,
    /// Endpoints of the command edge: `tcp://host:port` or `ipc://path`.
    pub routers: Vec<String>,
    /// Endpoints of the change edge.
    pub publishers: Vec<String>,
    /// Whether other machines may reach the broker, which has no password.
    pub insecure: bool,
    /// Warnings for the operator about how the broker was started, as `stats` shows them.
    pub warnings: Vec<String>,
    /// The durability of writes that do not name one.
    pub durability: Level,
    /// Bounds of the write queue.
    pub write_queue: WriteQueueConfig,
    /// How much history is retained.
    pub retain: RetainConfig,
    /// How many checkpointer threads there are.
    pub checkpoint_threads: usize,
    /// All other limits.
    pub limits: Limits,
}

impl Config {
    /// One checkpoint thread, no edges, and the defaults of everything that has a default.
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

/// How much of the log is retained for `changes` after the tables hold it.
#[derive(Debug, Clone, Copy)]
pub struct RetainConfig {
    /// Bytes of log to retain, unless they are too old. Records that the tables do not hold yet are
    /// always kept.
    pub bytes: u64,
    /// The greatest age of retained records, in milliseconds; 0 sets no bound.
    pub age_ms: u64,
    /// The log is counted and trimmed in segments of about this many bytes.
    pub segment_bytes: u64,
}

/// Segments are not made shorter than this for the sake of a small `--retain-bytes`.
const SEGMENT_BYTES_MIN: u64 = 1 << 20;

impl RetainConfig {
    /// The size of a full segment. The log exceeds `bytes` by up to one segment, so segments are
    /// short where little is to be retained.
    pub fn full_segment_bytes(&self) -> u64 {
        self.segment_bytes.min((self.bytes / 4).max(SEGMENT_BYTES_MIN))
    }
}

impl Default for RetainConfig {
    fn default() -> Self {
        Self { bytes: 256 << 20, age_ms: 0, segment_bytes: 4 << 20 }
    }
}
