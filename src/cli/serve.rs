use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::Failure;
use super::connection::level_parser;
use super::output::Output;
use crate::client::Level;
use crate::config::{Config, QueueConfig};
use crate::limits::Limits;

const NOTE: &str = "\
Serves until Ctrl-C or SIGTERM, then writes what is queued and ends.";

/// Run a broker
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Serve {
    /// The directory of the store; created when it is missing
    #[arg(short = 'b', long, env = "VATN_DATABASE", value_name = "DIR")]
    #[arg(default_value = "./vatn-data")]
    database: PathBuf,

    /// The address to listen on
    #[arg(short = 'H', long, env = "VATN_HOST", default_value = "127.0.0.1")]
    host: String,

    /// The HTTP port; 0 asks the system for one
    #[arg(short = 'p', long, env = "VATN_PORT", default_value_t = 7532)]
    port: u16,

    /// Log what happens in detail
    #[arg(short = 'd', long, env = "VATN_DEBUG", value_parser = FalseyValueParser::new())]
    debug: bool,

    /// Take commands here, tcp://HOST:PORT or ipc://PATH; may be repeated [default: tcp://HOST:7533]
    #[arg(long, env = "VATN_ROUTER", value_name = "ENDPOINT", value_delimiter = ',')]
    router: Vec<String>,

    /// Publish changes here; may be repeated [default: tcp://HOST:7534]
    #[arg(long, env = "VATN_PUBLISHER", value_name = "ENDPOINT", value_delimiter = ',')]
    publisher: Vec<String>,

    /// A further name under which HTTP clients may call this broker; may be repeated
    #[arg(long, env = "VATN_HTTP_HOST", value_name = "NAME", value_delimiter = ',')]
    http_host: Vec<String>,

    /// What an acknowledged write survives when its writer does not say
    #[arg(long, env = "VATN_DURABILITY", value_name = "LEVEL", default_value = "synced")]
    #[arg(value_parser = level_parser())]
    durability: Level,

    /// Most changes that may wait for the tables; reaching it flushes
    #[arg(long, env = "VATN_QUEUE_ITEMS", value_name = "N")]
    #[arg(default_value_t = QueueConfig::default().items)]
    queue_items: usize,

    /// Most bytes of changes that may wait for the tables
    #[arg(long, env = "VATN_QUEUE_BYTES", value_name = "BYTES")]
    #[arg(default_value_t = QueueConfig::default().bytes)]
    queue_bytes: usize,

    /// How long a write waits for room in the queue before it is refused
    #[arg(long, env = "VATN_QUEUE_WAIT_MS", value_name = "MS")]
    #[arg(default_value_t = QueueConfig::default().wait_ms)]
    queue_wait_ms: u64,

    /// How many threads bring the tables up to date
    #[arg(long, env = "VATN_WORKERS", value_name = "N", default_value_t = 2)]
    workers: usize,

    #[command(flatten)]
    limits: Limits,
}

impl Serve {
    pub(super) fn run(self, _out: &mut Output) -> Result<(), Failure> {
        let _config = self.config()?;
        Err(Failure::failed("serve: this build has no broker yet"))
    }

    fn config(self) -> Result<Config, Failure> {
        if let Some(fault) = self.limits.fault() {
            return Err(Failure::usage(fault));
        }
        for (flag, value) in [
            ("--queue-items", self.queue_items),
            ("--queue-bytes", self.queue_bytes),
            ("--workers", self.workers),
        ] {
            if value == 0 {
                return Err(Failure::usage(format!("{flag} 0: must be at least 1")));
            }
        }
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let or_default = |endpoints: Vec<String>, port: u16| match endpoints.is_empty() {
            true => vec![format!("tcp://{host}:{port}")],
            false => endpoints,
        };
        Ok(Config {
            database: self.database,
            routers: or_default(self.router, 7533),
            publishers: or_default(self.publisher, 7534),
            http_host: self.host,
            http_port: self.port,
            http_host_names: self.http_host,
            durability: self.durability,
            queue: QueueConfig {
                items: self.queue_items,
                bytes: self.queue_bytes,
                wait_ms: self.queue_wait_ms,
            },
            workers: self.workers,
            limits: self.limits,
        })
    }
}
