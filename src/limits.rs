//! Every bound of the broker, in one place; each that an operator may want to move is a flag.
//!
//! The constants are part of the protocol (a client may rely on them); the fields of [`Limits`] are
//! defaults. What must hold between them is checked at compile time at the end of the file.

pub mod machine_memory;
pub mod units;

use clap::Args;
use machine_memory::share;

/// The longest key, in bytes. fjall asserts at 65,535 *after* journalling, so we refuse far below.
pub const KEY_BYTES_MAX: usize = 32_768;
/// The first byte of keys that are vatn's own (`\xFFbeat`, `\xFFlost`).
pub const KEY_RESERVED: u8 = 0xFF;
/// How deep arrays and maps may nest in a value or a request.
pub const DEPTH_MAX: usize = 64;
/// The default of `--command-items`. They are read and executed in one go, in which nobody else is
/// served by the thread, and no write is applied.
pub const COMMAND_ITEMS: usize = 1 << 14;
/// The default of `--max-message-bytes`, for the same reason.
pub const MESSAGE_BYTES: usize = 16 << 20;
/// How many sequence numbers a crash may skip, so that none is ever given out twice.
pub const SEQ_RESERVE: u64 = 1 << 24;
/// A log record is written when the pending writes reach about this size, in bytes.
pub const RECORD_BYTES: usize = 128 * 1024;
/// A table key carries one tag byte before the user's key, since fjall refuses the empty key.
pub const TABLE_KEY_BYTES_MAX: usize = KEY_BYTES_MAX + 1;
/// How many `changes` requests may wait for their reply, all connections together; more where more
/// connections may come.
pub const CHANGES_WAITING_MAX: usize = 10_000;
/// How many bytes they may hold.
pub const CHANGES_WAITING_BYTES_MAX: usize = 64 << 20;
/// How many `wait` and `changes` of one connection may wait to be answered out of order, and how
/// many more of them in order; then nothing further of it is executed.
pub const WAITING_EACH_MAX: usize = 256;
/// How many pages of the history may be in memory on their way to a client.
pub const CHANGES_PAGES_MAX: usize = 64;
/// The largest `--max-message-bytes`. With the queue's bytes and what a write may be over, a record
/// of everything that is pending fits the four bytes of its length.
pub const MESSAGE_BYTES_MAX: usize = 512 << 20;
/// The largest `--write-queue-bytes`.
pub const QUEUE_BYTES_MAX: usize = 2 << 30;
/// The largest `--write-queue-items`: so many seqs may be given out before the log promises more.
pub const QUEUE_ITEMS_MAX: usize = 8_000_000;
/// How many pages of the history may be read from the disk at one time, whoever waits for them.
/// Each has a file open, of the descriptors that are kept for the store, and may take a record of
/// the log and twice the largest write, before anybody knows how much.
pub const HISTORY_READERS_MAX: usize = 4;
/// fjall's own bound on a key.
pub const FJALL_KEY_BYTES_MAX: usize = 65_535;

/// The bounds an operator may set. Sizes are bytes, times are milliseconds.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Most connections at one time, each edge counted by itself; then the one that was idle
    /// longest is closed for a new one. One remote address gets three quarters
    #[arg(long, env = "VATN_MAX_CONNECTIONS", default_value_t = 4096, value_name = "N")]
    pub max_connections: usize,

    /// Largest ZeroMQ message, all its frames together. By the default nobody waits for long while
    /// one is executed; a larger limit makes that wait longer in proportion
    #[arg(long, env = "VATN_MAX_MESSAGE_BYTES", default_value_t = MESSAGE_BYTES)]
    #[arg(value_name = "BYTES", value_parser = units::bytes::<usize>)]
    pub max_message_bytes: usize,

    /// Most keys, pairs and commands in one request, those in a batch's commands with them; and
    /// most entries that a batch's reads pass over. A larger limit makes others wait longer for
    /// such a request, in proportion
    #[arg(long, env = "VATN_COMMAND_ITEMS", default_value_t = COMMAND_ITEMS, value_name = "N")]
    pub command_items: usize,

    /// Most bytes of incoming messages that are unfinished or not executed, all connections
    /// together [default: a sixteenth of the memory that the process may use, at most 512 MiB]
    #[arg(long, env = "VATN_MAX_INCOMING_BYTES", value_name = "BYTES")]
    #[arg(default_value_t = incoming_bytes(), hide_default_value = true)]
    #[arg(value_parser = units::bytes::<usize>)]
    pub max_incoming_bytes: usize,

    /// Most bytes of keys and values in memory, with what the map adds to them; then only deletes
    /// are taken [default: three eighths of the memory that the process may use: of the machine's,
    /// its control group's or its own limit, the least]
    #[arg(long, env = "VATN_MAX_DATA_BYTES", value_name = "BYTES")]
    #[arg(value_parser = units::bytes::<usize>)]
    pub max_data_bytes: Option<usize>,

    /// Most frames (requests) in one message
    #[arg(long, env = "VATN_MAX_FRAMES", default_value_t = 65_536, value_name = "N")]
    pub max_frames: usize,

    /// Most requests of one connection that await their reply; then it is not read from
    #[arg(long, env = "VATN_MAX_IN_FLIGHT", default_value_t = 65_536, value_name = "N")]
    pub max_in_flight: usize,

    /// Most reply bytes that one connection may leave unread; then it is not read from
    #[arg(long, env = "VATN_MAX_UNREAD_BYTES", default_value_t = 64 << 20, value_name = "BYTES")]
    #[arg(value_parser = units::bytes::<usize>)]
    pub max_unread_bytes: usize,

    /// Most bytes of replies and changes that are made and not read, all connections together
    /// (16 KiB of each are free); then large ones wait [default: an eighth of the memory that the
    /// process may use, at most 1 GiB]
    #[arg(long, env = "VATN_MAX_OUTGOING_BYTES", value_name = "BYTES")]
    #[arg(default_value_t = outgoing_bytes(), hide_default_value = true)]
    #[arg(value_parser = units::bytes::<usize>)]
    pub max_outgoing_bytes: usize,

    /// Most bytes that subscriptions take, all subscribers together [default: a 64th of the memory
    /// that the process may use, at most 64 MiB]
    #[arg(long, env = "VATN_MAX_SUBSCRIPTION_BYTES", default_value_t = share(64, 64 << 20))]
    #[arg(hide_default_value = true, value_name = "BYTES", value_parser = units::bytes::<usize>)]
    pub max_subscription_bytes: usize,

    /// While others wait for memory, a peer that reads or sends fewer bytes a second is cut; 0 for
    /// none
    #[arg(long, env = "VATN_MIN_TRANSFER_RATE", default_value_t = 1 << 20, value_name = "BYTES")]
    #[arg(value_parser = units::bytes::<u64>)]
    pub min_transfer_rate: u64,

    /// A connection that has not finished its handshake by then is closed
    #[arg(long, env = "VATN_HANDSHAKE_MS", default_value_t = 5_000, value_name = "MS")]
    #[arg(value_parser = units::milliseconds)]
    pub handshake_ms: u64,

    /// A peer that reads nothing of what waits for it for so long is cut
    #[arg(long, env = "VATN_WRITE_TIMEOUT_MS", default_value_t = 30_000, value_name = "MS")]
    #[arg(value_parser = units::milliseconds)]
    pub write_timeout_ms: u64,

    /// A quiet ZMTP 3.1 peer gets a PING after so long, and is cut after three times that; older
    /// ones get TCP keepalive probes
    #[arg(long, env = "VATN_HEARTBEAT_MS", default_value_t = 30_000, value_name = "MS")]
    #[arg(value_parser = units::milliseconds)]
    pub heartbeat_ms: u64,

    /// A thread that one connection alone keeps busy looks for so long, in microseconds, whether
    /// the next request has come, before it sleeps; 0 for never
    #[arg(long, env = "VATN_BUSY_POLL_US", default_value_t = 50, value_name = "US")]
    #[arg(value_parser = units::microseconds)]
    pub busy_poll_us: u64,

    /// A quiet HTTP connection is closed after so long
    #[arg(long, env = "VATN_HTTP_IDLE_MS", default_value_t = 60_000, value_name = "MS")]
    #[arg(value_parser = units::milliseconds)]
    pub http_idle_ms: u64,

    /// Most bytes of JSON in one answer of /get; longer answers of /getrange and /changes are
    /// chunked
    #[arg(long, env = "VATN_HTTP_ANSWER_BYTES", default_value_t = 64 << 20, value_name = "BYTES")]
    #[arg(value_parser = units::bytes::<usize>)]
    pub http_answer_bytes: usize,

    /// Most subscriptions of one subscriber
    #[arg(long, env = "VATN_MAX_SUBSCRIPTIONS", default_value_t = 4096, value_name = "N")]
    pub max_subscriptions: usize,

    /// Most bytes of changes held for subscribers that lag; who falls further behind is told
    /// `lost` [default: a 64th of the memory that the process may use, at most 64 MiB]
    #[arg(long, env = "VATN_SUBSCRIBER_BYTES", default_value_t = share(64, 64 << 20))]
    #[arg(hide_default_value = true, value_name = "BYTES")]
    #[arg(value_parser = units::bytes::<usize>)]
    pub subscriber_bytes: usize,

    /// Most items in one reply of `range` and `changes`, and in one `delete_range`
    #[arg(long, env = "VATN_RANGE_ITEMS", default_value_t = 10_000, value_name = "N")]
    pub range_items: usize,

    /// Most bytes in one reply of `range` and `changes`, and of what one `delete_range` deletes
    /// (one item always fits)
    #[arg(long, env = "VATN_RANGE_BYTES", default_value_t = 4 << 20, value_name = "BYTES")]
    #[arg(value_parser = units::bytes::<usize>)]
    pub range_bytes: usize,
}

fn incoming_bytes() -> usize {
    share(16, 512 << 20)
}

fn outgoing_bytes() -> usize {
    share(8, 1 << 30)
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_message_bytes: MESSAGE_BYTES,
            command_items: COMMAND_ITEMS,
            max_incoming_bytes: incoming_bytes(),
            max_data_bytes: None,
            max_frames: 65_536,
            max_in_flight: 65_536,
            max_unread_bytes: 64 << 20,
            max_outgoing_bytes: outgoing_bytes(),
            max_subscription_bytes: share(64, 64 << 20),
            min_transfer_rate: 1 << 20,
            handshake_ms: 5_000,
            write_timeout_ms: 30_000,
            heartbeat_ms: 30_000,
            busy_poll_us: 50,
            http_idle_ms: 60_000,
            http_answer_bytes: 64 << 20,
            max_subscriptions: 4096,
            subscriber_bytes: share(64, 64 << 20),
            range_items: 10_000,
            range_bytes: 4 << 20,
        }
    }
}

impl Limits {
    /// What cannot work, as a sentence that names the flag; `None` when all is well.
    pub fn fault(&self) -> Option<String> {
        let least = [
            ("--max-connections", self.max_connections, 1),
            ("--max-message-bytes", self.max_message_bytes, 1024),
            ("--command-items", self.command_items, 1),
            ("--max-incoming-bytes", self.max_incoming_bytes, self.max_message_bytes),
            ("--max-data-bytes", self.max_data_bytes.unwrap_or(usize::MAX), 1 << 20),
            ("--max-frames", self.max_frames, 1),
            ("--max-in-flight", self.max_in_flight, 1),
            ("--max-unread-bytes", self.max_unread_bytes, 1024),
            ("--max-outgoing-bytes", self.max_outgoing_bytes, self.max_unread_bytes),
            ("--max-subscription-bytes", self.max_subscription_bytes, 1024),
            ("--http-answer-bytes", self.http_answer_bytes, 1024),
            ("--max-subscriptions", self.max_subscriptions, 1),
            ("--subscriber-bytes", self.subscriber_bytes, 1024),
            ("--range-items", self.range_items, 1),
            ("--range-bytes", self.range_bytes, 1024),
        ];
        let fault = least.iter().find(|(_, value, least)| value < least);
        let fault =
            fault.map(|(flag, value, least)| format!("{flag} {value}: must be at least {least}"));
        fault.or_else(|| at_most("--max-message-bytes", self.max_message_bytes, MESSAGE_BYTES_MAX))
    }

    /// The most that the keys and values of one write may take: what fits into one message does.
    pub fn write_bytes(&self) -> usize {
        self.max_message_bytes
    }
}

/// The fault of a flag that is above `most`.
pub fn at_most(flag: &str, value: usize, most: usize) -> Option<String> {
    (value > most).then(|| format!("{flag} {value}: must be at most {most}"))
}

// What is pending is over the queue's bytes by one write at the most, and that by one value.
const _: () = assert!(QUEUE_BYTES_MAX + 3 * MESSAGE_BYTES_MAX < u32::MAX as usize);
// One write is admitted where nothing waits, whatever is in it. It has one seq.
const _: () = assert!((QUEUE_ITEMS_MAX as u64) < SEQ_RESERVE / 2);
const _: () = assert!(TABLE_KEY_BYTES_MAX <= FJALL_KEY_BYTES_MAX);
const _: () = assert!(RECORD_BYTES < 64 << 20);
const _: () = assert!(MESSAGE_BYTES <= MESSAGE_BYTES_MAX);
const _: () = assert!(DEPTH_MAX < 256, "the depth is counted on the decoder's stack");

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Harness {
        #[command(flatten)]
        limits: Limits,
    }

    #[test]
    fn the_flags_default_to_what_the_code_defaults_to() {
        let parsed = Harness::parse_from(["vatn"]).limits;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Limits::default()));
    }

    #[test]
    fn sizes_and_durations_may_have_units() {
        let arguments = ["vatn", "--max-message-bytes", "32MiB", "--max-data-bytes", "1GB"];
        let more = ["--heartbeat-ms", "10s", "--busy-poll-us", "1ms"];
        let parsed = Harness::parse_from(arguments.iter().chain(&more)).limits;
        assert_eq!(
            (parsed.max_message_bytes, parsed.max_data_bytes),
            (32 << 20, Some(1_000_000_000))
        );
        assert_eq!((parsed.heartbeat_ms, parsed.busy_poll_us), (10_000, 1000));
    }

    #[test]
    fn a_limit_that_cannot_work_names_its_flag() {
        let limits = Limits { max_incoming_bytes: 10, ..Limits::default() };
        assert!(limits.fault().is_some_and(|text| text.starts_with("--max-incoming-bytes 10")));
        let (max_message_bytes, max_incoming_bytes) = (MESSAGE_BYTES_MAX + 1, 1 << 40);
        let limits = Limits { max_message_bytes, max_incoming_bytes, ..Limits::default() };
        assert!(limits.fault().is_some_and(|text| text.ends_with("at most 536870912")));
        assert_eq!(Limits::default().fault(), None);
    }
}
