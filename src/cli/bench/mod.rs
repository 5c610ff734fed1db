//! `vatn bench`: how fast the broker answers.

mod drivers;
mod load;
mod mix;
mod report;
mod template;

use std::num::NonZero;
use std::time::{Duration, Instant};

use clap::Args;

use self::drivers::Drivers;
use self::load::{Load, Tally};
use self::mix::Mix;
use super::Failure;
use super::connection::{Connection, Writing, naming_flag};
use super::output::Output;
use crate::client::{Client, Endpoint, Packed, Range};

const NOTE: &str = "\
Each connection keeps --pipeline messages under way, of --per-message requests each, all of one
operation, and of keys at random. The latency of a request is the time from when its message is
handed to the connection until its reply has been read. The keys begin with bench: and stay,
unless --clean is given.";

/// The keys of values, and those of numbers, begin with these.
const VALUE_PREFIX: &str = "bench:v:";
const NUMBER_PREFIX: &str = "bench:n:";

/// Measure how fast the broker answers
#[derive(Debug, Clone, Args)]
#[command(after_help = NOTE)]
pub(super) struct Bench {
    /// How many connections
    #[arg(short = 'c', long, value_name = "N", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,

    /// How many threads share the connections [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    /// How many messages each connection keeps under way
    #[arg(short = 'P', long, value_name = "N", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pipeline: u32,

    /// How many requests a message carries
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    per_message: u32,

    /// What is done, in which shares: get, set, incr
    #[arg(short = 'm', long, value_name = "OP[=SHARE],…", default_value = "get=50,set=50")]
    mix: Mix,

    /// How many keys there are
    #[arg(short = 'k', long, value_name = "N", default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=9_999_999_999))]
    keys: u64,

    /// The size of the values, byte strings
    #[arg(short = 's', long, value_name = "BYTES", default_value_t = 100)]
    value_size: usize,

    /// For how long
    #[arg(short = 't', long, value_name = "SECONDS", default_value_t = 5.0)]
    #[arg(value_parser = seconds)]
    duration: f64,

    /// How many requests in all, however long they take
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "duration")]
    requests: Option<u64>,

    /// Leave out the writing of all keys beforehand, when they are there from a run before
    #[arg(long)]
    no_load: bool,

    /// Delete the keys afterwards
    #[arg(long)]
    clean: bool,

    /// Where the choice of keys begins, so that a run can be repeated
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    connection: Connection,
}

impl Bench {
    pub(super) fn run(self, out: &mut Output) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
        runtime.block_on(self.measure(out))
    }

    async fn measure(self, out: &mut Output) -> Result<(), Failure> {
        let mut client = self.connection.open().await?;
        if self.mix.has_gets() && !self.no_load {
            self.write_all_keys(&mut client).await?;
        }
        let drivers = self.connect().await?;
        let (tally, elapsed) = self.drive(drivers).await?;
        if self.clean {
            delete_keys(&mut client).await?;
        }
        report::print(&self, &tally, elapsed, out)?;
        match tally.refused() {
            None => Ok(()),
            Some(codes) => Err(Failure::failed(format!("requests were refused: {codes}"))),
        }
    }

    /// Connects, on threads with event loops of their own, as the broker's are.
    async fn connect(&self) -> Result<Drivers, Failure> {
        let endpoint: Endpoint =
            self.connection.connect.parse().map_err(|error| naming_flag("--connect", error))?;
        let mut drivers =
            Drivers::start(self.threads.and_then(|count| NonZero::new(count.into())))?;
        for index in 0..u64::from(self.connections) {
            let connecting = Load::connect(self.clone(), endpoint.clone(), index);
            drivers.add(connecting).await?;
        }
        Ok(drivers)
    }

    /// Lets all connections run side by side until the time or the requests are over.
    async fn drive(&self, drivers: Drivers) -> Result<(Tally, Duration), Failure> {
        let start = Instant::now();
        drivers.begin();
        if self.requests.is_none() {
            tokio::time::sleep(Duration::from_secs_f64(self.duration)).await;
            drivers.stop();
        }
        let total = drivers.total().await?;
        Ok((total, start.elapsed()))
    }

    async fn write_all_keys(&self, client: &mut Client) -> Result<(), Failure> {
        let value = Packed::bin(&vec![b'x'; self.value_size]);
        let options = self.writing.options();
        let step = (1 << 20) / (self.value_size + 32) + 1;
        let mut keys = 0..self.keys;
        loop {
            let pairs: Vec<_> =
                keys.by_ref().take(step).map(|key| (value_key(key), value.clone())).collect();
            if pairs.is_empty() {
                return Ok(());
            }
            client.set_multi(&pairs, &options).await?;
        }
    }
}

async fn delete_keys(client: &mut Client) -> Result<(), Failure> {
    for prefix in [VALUE_PREFIX, NUMBER_PREFIX] {
        let mut range = Range { prefix: Some(prefix.into()), ..Range::default() };
        loop {
            let page = client.range_keys(&range).await?;
            client.delete_multi(&page.items, &Default::default()).await?;
            let Some(next) = page.next else { break };
            range.after = Some(next.to_vec());
        }
    }
    Ok(())
}

fn value_key(number: u64) -> String {
    format!("{VALUE_PREFIX}{number:010}")
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|seconds: &f64| *seconds > 0.0 && *seconds < 1e9)
        .ok_or_else(|| "it is not a positive number of seconds".to_owned())
}
