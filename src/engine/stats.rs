//! What the broker says of itself: `hello`, `stats`, and LeakDB's status line.

use super::{Core, Engine};
use crate::commands::{self, METHODS};
use crate::limits::Limits;
use crate::net::memory_quota::{Category, Usage};
use crate::protocol::{PROTOCOL_VERSION, Seq, hex};
use crate::wal::DiskSpace;
use crate::wal::compaction::CompactionStatus;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The features that a client may look for, as `hello` lists them.
const FEATURES: [&str; 4] = ["changes", "compact", "ttl", "wait"];

#[derive(Serialize)]
struct HelloReply<'e> {
    server: &'static str,
    version: &'static str,
    protocol: u32,
    store_id: String,
    seq: Seq,
    limits: LimitsReply,
    features: Vec<&'e str>,
    methods: &'e [&'e str],
}

#[derive(Serialize)]
struct LimitsReply {
    key_bytes: usize,
    message_bytes: usize,
    write_bytes: usize,
    frames: usize,
    in_flight: usize,
    unread_bytes: usize,
    depth: usize,
    command_items: usize,
    range_items: usize,
    range_bytes: usize,
    /// Those of single commands.
    #[serde(flatten)]
    of_commands: BTreeMap<&'static str, usize>,
}

#[derive(Serialize)]
struct StatsReply<'e> {
    status: String,
    version: &'static str,
    store_id: String,
    uptime_ms: u64,
    storage: String,
    durability: &'e str,
    items: usize,
    memory_bytes: usize,
    data_bytes: usize,
    max_data_bytes: usize,
    disk_bytes: u64,
    live_bytes: u64,
    disk: DiskReply,
    seq: SeqReply,
    write_queue: WriteQueueReply,
    connections: u64,
    subscribers: u64,
    refused_connections: u64,
    commands: u64,
    refused_commands: u64,
    notifications_refused: u64,
    lost: u64,
    http_requests: u64,
    commits: u64,
    unsynced_ms: u64,
    network_memory: NetworkMemoryReply,
    warnings: &'e [String],
}

#[derive(Serialize)]
struct NetworkMemoryReply {
    incoming: UsageReply,
    outgoing: UsageReply,
    subscriptions: UsageReply,
}

#[derive(Serialize)]
struct UsageReply {
    bytes: usize,
    max_bytes: usize,
    awaited_bytes: usize,
    cut: u64,
}

impl From<Usage> for UsageReply {
    fn from(usage: Usage) -> Self {
        let Usage { reserved, max, awaited, cut } = usage;
        Self { bytes: reserved, max_bytes: max, awaited_bytes: awaited, cut }
    }
}

#[derive(Serialize)]
struct SeqReply {
    applied: Seq,
    stored: Seq,
    synced: Seq,
    checkpointed: Seq,
}

#[derive(Serialize)]
struct DiskReply {
    table_bytes: u64,
    journal_bytes: u64,
    log_bytes: u64,
    other_bytes: u64,
    free_bytes: Option<u64>,
    is_full: bool,
    compactions: u64,
    is_compacting: bool,
    freed_bytes: u64,
    compaction_error: Option<String>,
}

#[derive(Serialize)]
struct WriteQueueReply {
    items: usize,
    bytes: usize,
    max_items: usize,
    max_bytes: usize,
}

impl LimitsReply {
    fn new(limits: &Limits) -> Self {
        Self {
            key_bytes: crate::limits::KEY_BYTES_MAX,
            message_bytes: limits.max_message_bytes,
            write_bytes: limits.write_bytes(),
            frames: limits.max_frames,
            in_flight: limits.max_in_flight,
            unread_bytes: limits.max_unread_bytes,
            depth: crate::limits::DEPTH_MAX,
            command_items: limits.command_items,
            range_items: limits.range_items,
            range_bytes: limits.range_bytes,
            of_commands: commands::limits().collect(),
        }
    }
}

impl DiskReply {
    fn new(status: &CompactionStatus, space: &DiskSpace) -> Self {
        Self {
            table_bytes: status.usage.tables,
            journal_bytes: status.usage.journals,
            log_bytes: status.usage.log,
            other_bytes: status.usage.other,
            free_bytes: Some(space.free_bytes()).filter(|free| *free < u64::MAX),
            is_full: space.is_full(),
            compactions: status.ended,
            is_compacting: status.is_running,
            freed_bytes: status.freed_bytes,
            compaction_error: status.failure.as_ref().map(ToString::to_string),
        }
    }
}

impl Engine {
    pub(super) fn hello(&self, core: &Core, client: Option<&str>) -> Vec<u8> {
        if let Some(client) = client {
            tracing::debug!(client, "hello");
        }
        encode(&HelloReply {
            server: "vatn",
            version: env!("CARGO_PKG_VERSION"),
            protocol: PROTOCOL_VERSION,
            store_id: self.store_id(),
            seq: core.store.seq(),
            limits: LimitsReply::new(&self.config.limits),
            features: FEATURES.to_vec(),
            methods: METHODS,
        })
    }

    pub(super) fn stats(&self, core: &Core) -> Vec<u8> {
        let progress = self.watermarks.progress();
        let (items, bytes) = self.queue.load();
        let counters = &self.counters;
        let compaction = self.compaction.status();
        let disk_bytes = compaction.usage.total();
        encode(&StatsReply {
            status: self.status(core.store.len(), disk_bytes),
            version: env!("CARGO_PKG_VERSION"),
            store_id: self.store_id(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            storage: progress
                .failure
                .map_or_else(|| "ok".to_owned(), |failure| failure.to_string()),
            durability: self.config.durability.name(),
            items: core.store.len(),
            memory_bytes: core.store.bytes(),
            data_bytes: core.store.data_bytes(),
            max_data_bytes: self.max_data_bytes(),
            disk_bytes,
            live_bytes: core.store.row_bytes(),
            disk: DiskReply::new(&compaction, &self.space),
            seq: SeqReply {
                applied: core.store.seq(),
                stored: progress.stored,
                synced: progress.synced,
                checkpointed: progress.checkpointed,
            },
            write_queue: WriteQueueReply {
                items,
                bytes,
                max_items: self.config.write_queue.items,
                max_bytes: self.config.write_queue.bytes,
            },
            connections: counters.connections.get(),
            subscribers: counters.subscribers.get(),
            refused_connections: counters.refused_connections.get(),
            commands: counters.commands.get(),
            refused_commands: counters.refused_commands.get(),
            notifications_refused: counters.refused_notifications.get(),
            lost: counters.lost.get(),
            http_requests: counters.http_requests.get(),
            commits: counters.commits.get(),
            unsynced_ms: match counters.unsynced_since.get() {
                0 => 0,
                since => self.clock.now().saturating_sub(since),
            },
            network_memory: NetworkMemoryReply {
                incoming: self.quota.usage(Category::Incoming).into(),
                outgoing: self.quota.usage(Category::Outgoing).into(),
                subscriptions: self.quota.usage(Category::Subscriptions).into(),
            },
            warnings: &self.config.warnings,
        })
    }

    /// LeakDB's line: `PATH N bytes :: N items in queue :: N items in storage memory`.
    pub fn status_line(&self) -> String {
        let items = self.core().store.len();
        self.status(items, self.disk.usage().total())
    }

    fn status(&self, items: usize, bytes: u64) -> String {
        let (queued, _) = self.queue.load();
        let path = self.config.database.display();
        format!(
            "{path} {bytes} bytes :: {queued} items in queue :: {items} items in storage memory"
        )
    }

    /// The store's id, as `hello` shows it.
    pub fn id_text(&self) -> &Arc<str> {
        &self.id_text
    }

    /// The seq of the last write that was applied.
    pub fn seq(&self) -> Seq {
        self.core().store.seq()
    }

    fn store_id(&self) -> String {
        hex(&self.store_id)
    }
}

fn encode(reply: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(reply).unwrap_or_else(|error| {
        tracing::error!(%error, "a reply could not be encoded");
        vec![0xC0]
    })
}
