//! Arguments shared by the client commands: the endpoint, the timeout, the durability.

use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::Failure;
use crate::client::{Client, ClientError, ClientOptions, Condition, Level, WriteOptions};
use crate::limits::units;

/// The command endpoint of a broker that was started without flags.
pub(super) const DEFAULT_ROUTER: &str = "tcp://127.0.0.1:7533";

/// How to reach the broker.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// The broker's command endpoint, tcp://HOST:PORT or ipc://PATH
    #[arg(long, env = "VATN_CONNECT", value_name = "ENDPOINT")]
    #[arg(default_value = DEFAULT_ROUTER)]
    pub(super) connect: String,

    #[command(flatten)]
    pub(super) patience: Patience,
}

/// The timeout of requests.
#[derive(Debug, Clone, Args)]
pub(super) struct Patience {
    /// How long to wait for a reply, in milliseconds or as 10s; 0 waits without end
    #[arg(long, env = "VATN_TIMEOUT_MS", value_name = "MS", default_value_t = 30_000)]
    #[arg(value_parser = units::milliseconds)]
    pub(super) timeout_ms: u64,
}

impl Connection {
    /// Connects to the broker.
    pub(super) async fn open(&self) -> Result<Client, Failure> {
        let client = Client::connect(&self.connect, &self.patience.options()).await;
        client.map_err(|error| self.named(error))
    }

    /// An error of connecting, with the flag's name where the flag's value is the cause.
    pub(super) fn named(&self, error: ClientError) -> Failure {
        naming_flag("--connect", error)
    }
}

impl Patience {
    /// The client's timeouts; connecting takes at most five seconds.
    pub(super) fn options(&self) -> ClientOptions {
        let timeout = (self.timeout_ms > 0).then(|| Duration::from_millis(self.timeout_ms));
        let longest = Duration::from_secs(5);
        ClientOptions {
            connect_timeout: timeout.map_or(longest, |timeout| timeout.min(longest)),
            reply_timeout: timeout,
            ..ClientOptions::default()
        }
    }
}

/// Prefixes an error with the flag that caused it.
pub(super) fn naming_flag(flag: &str, error: ClientError) -> Failure {
    match error {
        ClientError::BadEndpoint(_) => Failure::usage(format!("{flag}: {error}")),
        other => other.into(),
    }
}

/// The options of a write.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Write")]
pub(super) struct Writing {
    /// When the broker is to answer; without it, when its own --durability is reached
    #[arg(long, value_name = "LEVEL", value_parser = level_parser())]
    pub(super) durability: Option<Level>,
}

impl Writing {
    pub(super) fn options(&self) -> WriteOptions {
        WriteOptions { durability: self.durability, ..WriteOptions::default() }
    }
}

/// The time to live of a value.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Write")]
pub(super) struct Expiry {
    /// After how long the key expires: 500ms, 10s, 1h30m, 7d
    #[arg(long, value_name = "TIME", value_parser = units::milliseconds_with_unit)]
    ttl: Option<u64>,

    /// After how many milliseconds the key expires
    #[arg(long, value_name = "MS", value_parser = units::milliseconds, conflicts_with = "ttl")]
    ttl_ms: Option<u64>,

    /// When the key expires, by the broker's clock: milliseconds since 1970
    #[arg(long, value_name = "MS", conflicts_with_all = ["ttl", "ttl_ms"])]
    expires_at_ms: Option<u64>,
}

impl Expiry {
    /// Sets this expiry in the options.
    pub(super) fn apply(&self, options: &mut WriteOptions) {
        options.ttl_ms = self.ttl.or(self.ttl_ms);
        options.expires_at_ms = self.expires_at_ms;
    }
}

/// Reads the condition of a write.
pub(super) fn condition(text: &str) -> Result<Condition, String> {
    match text {
        "absent" => Ok(Condition::Absent),
        "present" => Ok(Condition::Present),
        _ => text
            .parse()
            .map(Condition::Seq)
            .map_err(|_| "it is none of absent, present, or a sequence number".to_owned()),
    }
}

/// Reads a level by its name, and lists the names in help and completions.
pub(super) fn level_parser() -> impl TypedValueParser<Value = Level> {
    PossibleValuesParser::new(Level::ALL.map(Level::name)).try_map(|name| name.parse::<Level>())
}
