//! What the broker counts of itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows, or goes up and down with what it counts.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn up(&self) {
        self.add(1);
    }

    /// One less.
    pub fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Becomes this.
    pub fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters, kept by the edges and the engine, shown by `stats`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Command connections that are open.
    pub connections: Counter,
    /// Subscribers that are connected.
    pub subscribers: Counter,
    /// Connections refused or cut: over the cap, no handshake, malformed, stalled.
    pub refused_connections: Counter,
    /// Commands executed.
    pub commands: Counter,
    /// Commands refused with an error.
    pub refused_commands: Counter,
    /// Notifications dropped because they were malformed or refused.
    pub refused_notifications: Counter,
    /// Times that a subscriber was told `lost`.
    pub lost: Counter,
    /// HTTP requests answered.
    pub http_requests: Counter,
    /// Log records written (group commits).
    pub commits: Counter,
    /// When the oldest write was stored that is not synced yet, in milliseconds of the broker's
    /// clock; 0 when all are.
    pub unsynced_since: Counter,
    /// Bytes of records that are stored and not synced yet, about.
    pub unsynced_bytes: Counter,
}
