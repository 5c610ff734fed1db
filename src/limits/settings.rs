//! The limits that an operator may set, as flags.

use super::machine_memory::share;
use super::*;
use clap::Args;

/// The bounds an operator may set. Sizes are bytes, times are milliseconds.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Most connections at one time, for each edge; above that, the connection that was idle
    /// longest is closed for a new one. One remote address gets three quarters
    #[arg(long, env = "VATN_MAX_CONNECTIONS", default_value_t = 4096, value_name = "N")]
    pub max_connections: usize,

    /// Largest ZeroMQ message, all its frames together. While one message is executed, other
    /// connections wait: not long by default, and in proportion with a larger limit
    #[arg(long, env = "VATN_MAX_MESSAGE_BYTES", default_value_t = MESSAGE_BYTES)]
    #[arg(value_name = "BYTES", value_parser = units::bytes::<usize>)]
    pub max_message_bytes: usize,

    /// Most keys, pairs and commands in one request, including those in the commands of a batch;
    /// and most entries that the reads of a batch visit. With a larger limit, others wait longer
    /// for such a request, in proportion
    #[arg(long, env = "VATN_COMMAND_ITEMS", default_value_t = COMMAND_ITEMS, value_name = "N")]
    pub command_items: usize,

    /// Most bytes of incoming messages that are unfinished or not executed, all connections
    /// together [default: a sixteenth of the memory that the process may use, at most 512 MiB]
    #[arg(long, env = "VATN_MAX_INCOMING_BYTES", value_name = "BYTES")]
    #[arg(default_value_t = incoming_bytes(), hide_default_value = true)]
    #[arg(value_parser = units::bytes::<usize>)]
    pub max_incoming_bytes: usize,

    /// Most bytes of keys and values in memory, with the overhead of the map; above that, only
    /// deletes are accepted [default: three eighths of the memory that the process may use: of the
    /// machine's, its control group's or its own limit, the least]
    #[arg(long, env = "VATN_MAX_DATA_BYTES", value_name = "BYTES")]
    #[arg(value_parser = units::bytes::<usize>)]
    pub max_data_bytes: Option<usize>,

    /// Most frames (requests) in one message
    #[arg(long, env = "VATN_MAX_FRAMES", default_value_t = 65_536, value_name = "N")]
    pub max_frames: usize,

    /// Most requests of one connection that await their reply; at the limit, reading from it pauses
    #[arg(long, env = "VATN_MAX_IN_FLIGHT", default_value_t = 65_536, value_name = "N")]
    pub max_in_flight: usize,

    /// Most reply bytes that one connection may leave unread; at the limit, reading from it pauses
    #[arg(long, env = "VATN_MAX_UNREAD_BYTES", default_value_t = 64 << 20, value_name = "BYTES")]
    #[arg(value_parser = units::bytes::<usize>)]
    pub max_unread_bytes: usize,

    /// Most bytes of unread replies and changes, all connections together (16 KiB of each are
    /// free); above that, large ones wait [default: an eighth of the memory that the process may
    /// use, at most 1 GiB]
    #[arg(long, env = "VATN_MAX_OUTGOING_BYTES", value_name = "BYTES")]
    #[arg(default_value_t = outgoing_bytes(), hide_default_value = true)]
    #[arg(value_parser = units::bytes::<usize>)]
    pub max_outgoing_bytes: usize,

    /// Most bytes that subscriptions take, all subscribers together [default: a 64th of the memory
    /// that the process may use, at most 64 MiB]
    #[arg(long, env = "VATN_MAX_SUBSCRIPTION_BYTES", default_value_t = share(64, 64 << 20))]
    #[arg(hide_default_value = true, value_name = "BYTES", value_parser = units::bytes::<usize>)]
    pub max_subscription_bytes: usize,

    /// While other peers wait for memory, a peer that reads or sends fewer bytes a second is
    /// disconnected; 0 disables this
    #[arg(long, env = "VATN_MIN_TRANSFER_RATE", default_value_t = 1 << 20, value_name = "BYTES")]
    #[arg(value_parser = units::bytes::<u64>)]
    pub min_transfer_rate: u64,

    /// A connection that has not finished its handshake within this time is closed
    #[arg(long, env = "VATN_HANDSHAKE_MS", default_value_t = 5_000, value_name = "MS")]
    #[arg(value_parser = units::milliseconds)]
    pub handshake_ms: u64,

    /// A peer that reads none of its pending data for this long is disconnected
    #[arg(long, env = "VATN_WRITE_TIMEOUT_MS", default_value_t = 30_000, value_name = "MS")]
    #[arg(value_parser = units::milliseconds)]
    pub write_timeout_ms: u64,

    /// A ZMTP 3.1 peer that is silent for this long gets a PING, and is disconnected after three
    /// times that; older peers get TCP keepalive probes
    #[arg(long, env = "VATN_HEARTBEAT_MS", default_value_t = 30_000, value_name = "MS")]
    #[arg(value_parser = units::milliseconds)]
    pub heartbeat_ms: u64,

    /// How long a thread with one busy connection polls for the next request before it sleeps, in
    /// microseconds; 0 disables this
    #[arg(long, env = "VATN_BUSY_POLL_US", default_value_t = 50, value_name = "US")]
    #[arg(value_parser = units::microseconds)]
    pub busy_poll_us: u64,

    /// A request whose reply is not sent after so long is slow: `-d` logs where the time went, by
    /// stages
    #[arg(long, env = "VATN_SLOW_REQUEST_MS", default_value_t = 100, value_name = "MS")]
    #[arg(value_parser = units::milliseconds)]
    pub slow_request_ms: u64,

    /// An HTTP connection that is idle for this long is closed
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

    /// Most bytes of changes held for subscribers that lag; a subscriber that falls further behind
    /// gets `lost` [default: a 64th of the memory that the process may use, at most 64 MiB]
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
            slow_request_ms: 100,
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
    /// A contradiction between limits, as a sentence that names the flag; `None` when there is
    /// none.
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

    /// The most bytes that the keys and values of one write may take: as many as fit into one
    /// message.
    pub fn write_bytes(&self) -> usize {
        self.max_message_bytes
    }
}

/// The fault of a flag that is above `most`.
pub fn at_most(flag: &str, value: usize, most: usize) -> Option<String> {
    (value > most).then(|| format!("{flag} {value}: must be at most {most}"))
}

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
    fn the_flags_have_the_defaults_of_the_code() {
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
    fn the_fault_of_a_limit_names_its_flag() {
        let limits = Limits { max_incoming_bytes: 10, ..Limits::default() };
        assert!(limits.fault().is_some_and(|text| text.starts_with("--max-incoming-bytes 10")));
        let (max_message_bytes, max_incoming_bytes) = (MESSAGE_BYTES_MAX + 1, 1 << 40);
        let limits = Limits { max_message_bytes, max_incoming_bytes, ..Limits::default() };
        assert!(limits.fault().is_some_and(|text| text.ends_with("at most 536870912")));
        assert_eq!(Limits::default().fault(), None);
    }
}
