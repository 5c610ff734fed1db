//! `vatn serve`: runs the broker, from its flags to its end.

use std::future::Future;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::pin::pin;

use clap::Args;
use clap::builder::FalseyValueParser;
use serde_json::json;
use tracing_subscriber::EnvFilter;

use super::Failure;
use super::connection::level_parser;
use super::output::Output;
use super::progress::Progress;
use crate::client::Level;
use crate::config::{Config, RetainConfig, WriteQueueConfig};
use crate::http::Names;
use crate::limits::machine_memory::{default_data_bytes, share};
use crate::limits::units;
use crate::limits::{self, Limits, QUEUE_BYTES_MAX, QUEUE_ITEMS_MAX};
use crate::process;
use crate::process::signals::{Notice, Signals};
use crate::server::{Broker, ServeError};

const NOTE: &str = "\
Example:
  vatn serve -b /var/lib/vatn -p 7532

Serves until Ctrl-C or SIGTERM, then writes what is queued and ends.

Sizes are bytes, or have a unit: kB MB GB TB (1000), KiB MiB GiB TiB (1024), as in 64MiB. Times
are in the unit that the flag names, or have one of their own: ms s m h d, as in 10s or 1h30m.";

/// The ports of the command and the change endpoint, relative to the HTTP port.
const ROUTER_STEP: u16 = 1;
const PUBLISHER_STEP: u16 = 2;

/// Run a broker
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Serve {
    /// The directory of the store; created when it is missing
    #[arg(short = 'b', long, env = "VATN_DATABASE", value_name = "DIR")]
    #[arg(default_value = "./vatn-data")]
    database: PathBuf,

    /// The address to listen on; one that other machines can reach needs --insecure
    #[arg(short = 'H', long, env = "VATN_HOST", default_value = "127.0.0.1")]
    host: String,

    /// The HTTP port; commands and changes have the next two. 0 asks the system for each
    #[arg(short = 'p', long, env = "VATN_PORT", default_value_t = 7532)]
    port: u16,

    /// Log what happens in detail
    #[arg(short = 'd', long, env = "VATN_DEBUG", value_parser = FalseyValueParser::new())]
    debug: bool,

    /// Take commands here, tcp://HOST:PORT or ipc://PATH; repeatable [default: tcp://HOST:PORT+1]
    #[arg(long, env = "VATN_ROUTER", value_name = "ENDPOINT", value_delimiter = ',')]
    router: Vec<String>,

    /// Publish changes here; repeatable [default: tcp://HOST:PORT+2]
    #[arg(long, env = "VATN_PUBLISHER", value_name = "ENDPOINT", value_delimiter = ',')]
    publisher: Vec<String>,

    /// Listen where other machines can reach it, though there are no passwords yet
    #[arg(long, env = "VATN_INSECURE", value_parser = FalseyValueParser::new())]
    insecure: bool,

    /// A further name under which HTTP clients may call this broker; repeatable
    #[arg(long, env = "VATN_HTTP_HOST_NAME", value_name = "NAME", value_delimiter = ',')]
    http_host_name: Vec<String>,

    /// Let a URL that is opened in a browser write (/put and /delete); then a page of any site can
    /// have one opened
    #[arg(long, env = "VATN_ALLOW_BROWSER_WRITES", value_parser = FalseyValueParser::new())]
    allow_browser_writes: bool,

    /// The durability of writes that do not name one
    #[arg(long, env = "VATN_DURABILITY", value_name = "LEVEL", default_value = "synced")]
    #[arg(value_parser = level_parser())]
    durability: Level,

    /// Most changes that may wait for the tables; reaching it flushes
    #[arg(long, env = "VATN_WRITE_QUEUE_ITEMS", value_name = "N")]
    #[arg(default_value_t = WriteQueueConfig::default().items)]
    write_queue_items: usize,

    /// Most bytes of changes that may wait for the tables [default: a sixteenth of the memory that
    /// the process may use, at most 512 MiB]
    #[arg(long, env = "VATN_WRITE_QUEUE_BYTES", value_name = "BYTES")]
    #[arg(value_parser = units::bytes::<usize>)]
    #[arg(default_value_t = share(16, WriteQueueConfig::default().bytes))]
    #[arg(hide_default_value = true)]
    write_queue_bytes: usize,

    /// How long a write waits for room in the queue before it is refused
    #[arg(long, env = "VATN_WRITE_QUEUE_WAIT_MS", value_name = "MS")]
    #[arg(value_parser = units::milliseconds)]
    #[arg(default_value_t = WriteQueueConfig::default().wait_ms)]
    write_queue_wait_ms: u64,

    /// Retain at least this many bytes of history for `changes`, unless they are too old
    #[arg(long, env = "VATN_RETAIN_BYTES", value_name = "BYTES")]
    #[arg(value_parser = units::bytes::<u64>)]
    #[arg(default_value_t = RetainConfig::default().bytes)]
    retain_bytes: u64,

    /// Remove older history, whatever --retain-bytes says; 0 sets no bound
    #[arg(long, env = "VATN_RETAIN_AGE_MS", value_name = "MS", default_value_t = 0)]
    #[arg(value_parser = units::milliseconds)]
    retain_age_ms: u64,

    /// The history is trimmed in segments of about this many bytes
    #[arg(long, env = "VATN_SEGMENT_BYTES", value_name = "BYTES", hide = true)]
    #[arg(value_parser = units::bytes::<u64>)]
    #[arg(default_value_t = RetainConfig::default().segment_bytes)]
    segment_bytes: u64,

    /// How many threads bring the tables up to date
    #[arg(long, env = "VATN_CHECKPOINT_THREADS", value_name = "N", default_value_t = 2)]
    checkpoint_threads: usize,

    #[command(flatten)]
    limits: Limits,
}

impl Serve {
    pub(super) fn run(self, out: &mut Output) -> Result<(), Failure> {
        log_to_stderr(self.debug);
        let is_derived = self.port != 0;
        let derived: Vec<&str> = [("--router", &self.router), ("--publisher", &self.publisher)]
            .into_iter()
            .filter(|(_, endpoints)| is_derived && endpoints.is_empty())
            .map(|(flag, _)| flag)
            .collect();
        let port = self.port;
        let mut config = self.config()?;
        fit_connections(&mut config);
        // Connections have their own threads.
        let served = super::wait_for(serve(config, out));
        served.map_err(|failure| match derived.iter().find(|flag| failure.is_about(flag)) {
            Some(flag) => failure.adding(&format!(
                "; the port follows from -p {port}: choose another -p, or give {flag}"
            )),
            None => failure,
        })
    }

    fn config(self) -> Result<Config, Failure> {
        let mut limits = self.limits.clone();
        limits.max_data_bytes = limits.max_data_bytes.or_else(default_data_bytes);
        if let Some(fault) = limits.fault() {
            return Err(Failure::usage(fault));
        }
        for (flag, value) in [
            ("--write-queue-items", self.write_queue_items),
            ("--write-queue-bytes", self.write_queue_bytes),
            ("--checkpoint-threads", self.checkpoint_threads),
        ] {
            if value == 0 {
                return Err(Failure::usage(format!("{flag} 0: must be at least 1")));
            }
        }
        if let Some(name) = self.http_host_name.iter().find(|name| !Names::may_configure(name)) {
            return Err(Failure::usage(format!(
                "--http-host-name {name}: pages of any site reach the broker by it and could \
                 write; give the name or address that clients use"
            )));
        }
        let items = limits::at_most("--write-queue-items", self.write_queue_items, QUEUE_ITEMS_MAX);
        let bytes = limits::at_most("--write-queue-bytes", self.write_queue_bytes, QUEUE_BYTES_MAX);
        if let Some(fault) = items.or(bytes) {
            return Err(Failure::usage(fault));
        }
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let derived = |flag: &str, endpoints: &Vec<String>, step: u16| match self.port {
            _ if !endpoints.is_empty() => Ok(endpoints.clone()),
            0 => Ok(vec![format!("tcp://{host}:0")]),
            port => match port.checked_add(step) {
                Some(port) => Ok(vec![format!("tcp://{host}:{port}")]),
                None => Err(Failure::usage(format!(
                    "-p {port}: there is no port {step} above it for {flag}: choose a lower one, \
                     or give {flag}"
                ))),
            },
        };
        let routers = derived("--router", &self.router, ROUTER_STEP)?;
        let publishers = derived("--publisher", &self.publisher, PUBLISHER_STEP)?;
        Ok(Config {
            database: self.database,
            routers,
            publishers,
            insecure: self.insecure,
            warnings: Vec::new(),
            http_host: self.host,
            http_port: self.port,
            http_host_names: self.http_host_name,
            allow_browser_writes: self.allow_browser_writes,
            durability: self.durability,
            write_queue: WriteQueueConfig {
                items: self.write_queue_items,
                bytes: self.write_queue_bytes,
                wait_ms: self.write_queue_wait_ms,
            },
            retain: RetainConfig {
                bytes: self.retain_bytes,
                age_ms: self.retain_age_ms,
                segment_bytes: self.segment_bytes.max(1),
            },
            checkpoint_threads: self.checkpoint_threads,
            limits,
        })
    }
}

/// Limits the connections of each edge to the available descriptors.
fn fit_connections(config: &mut Config) {
    let open_files = process::limits::raise_open_files();
    let most = process::limits::connections(open_files);
    if config.limits.max_connections > most {
        let text = format!(
            "--max-connections {}: the limit of {open_files} open files leaves room for {most}: \
             raise it (ulimit -n, or LimitNOFILE= of systemd)",
            config.limits.max_connections
        );
        tracing::warn!("{text}");
        config.warnings.push(text);
        config.limits.max_connections = most;
    }
}

/// Serves until a signal requests a stop.
async fn serve(config: Config, out: &mut Output) -> Result<(), Failure> {
    // Before the store is opened, so that a signal during a long load also ends the process in
    // order.
    let signals = Signals::of_broker();
    let mut signals =
        signals.map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))?;
    let database = config.database.display().to_string();
    let mut progress = Progress::begin(None);
    let mut loaded = 0;
    let starting = Broker::start(config, move |items| {
        progress.advance((items - loaded) as u64, items as u64);
        loaded = items;
    });
    let mut is_to_stop = false;
    let broker = until(starting, &mut signals, |signal| {
        is_to_stop = true;
        tracing::info!("{signal}: stopping as soon as the store is loaded");
    });
    let broker = broker.await.map_err(failed)?;
    // The reader of the endpoints may have closed the output.
    let announced = announce(&broker, &database, out)
        .or_else(|failure| if failure.is_output_closed() { Ok(()) } else { Err(failure) });
    if announced.is_ok() && !is_to_stop {
        let signal = stop_signal(&mut signals).await;
        tracing::info!("{signal}: stopping: answering what was taken, emptying the queue");
    }
    let pid = std::process::id();
    let stopped = until(broker.stop(), &mut signals, |signal| {
        tracing::warn!(
            "{signal}: still writing what is queued to the disk; `kill -9 {pid}` ends at once, and \
             loses what is only queued"
        );
    });
    announced.and(stopped.await.map_err(failed))
}

/// Waits for a signal that requests a stop, and handles the others.
async fn stop_signal(signals: &mut Signals) -> &'static str {
    loop {
        match signals.next().await {
            Notice::Stop(signal) => return signal,
            Notice::Reload => tracing::info!("SIGHUP: there is nothing to read anew yet"),
            Notice::Ignored(signal) => tracing::info!("{signal}: ignored"),
        }
    }
}

/// Does `work`; `stop` is called for each signal that requests a stop meanwhile.
async fn until<T>(
    work: impl Future<Output = T>,
    signals: &mut Signals,
    mut stop: impl FnMut(&str),
) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            signal = stop_signal(signals) => stop(signal),
        }
    }
}

fn failed(error: ServeError) -> Failure {
    match error {
        ServeError::Exposed { .. } => Failure::usage(error.to_string()),
        error => Failure::failed(error.to_string()),
    }
}

/// Prints the endpoints, one a line for scripts; then examples, for people.
fn announce(broker: &Broker, database: &str, out: &mut Output) -> Result<(), Failure> {
    let endpoints = broker.endpoints();
    if out.json {
        out.json(&json!({
            "http": endpoints.http,
            "routers": endpoints.routers,
            "publishers": endpoints.publishers,
            "items": broker.engine().len(),
            "database": database,
        }))?;
        return out.flush();
    }
    out.line(format!("listening http {}", endpoints.http))?;
    for router in &endpoints.routers {
        out.line(format!("listening router {router}"))?;
    }
    for publisher in &endpoints.publishers {
        out.line(format!("listening publisher {publisher}"))?;
    }
    out.line(format!("ready {} items from {database}", broker.engine().len()))?;
    let router = endpoints.routers.first().map_or("", String::as_str);
    let publisher = endpoints.publishers.first().map_or("", String::as_str);
    out.line("")?;
    out.line("Try, in another terminal:")?;
    out.line(format!("  vatn watch --subscribe {publisher}"))?;
    out.line(format!("  vatn set greeting hello --connect {router}"))?;
    out.line(format!("  curl '{}/get?key=greeting'", endpoints.http))?;
    out.flush()
}

fn log_to_stderr(debug: bool) {
    let level = if debug { "debug" } else { "info" };
    let filter = EnvFilter::try_from_env("VATN_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,vatn={level}")));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // A line that cannot be written is lost: a report of that on the same stderr would panic.
        .log_internal_errors(false)
        .finish();
    // A second logger in the same process (a test) keeps the first.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
