//! `vatn bench`: measures how fast the broker answers.

mod drivers;
mod load;
mod mix;
mod report;
mod template;

use std::num::NonZero;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;

use self::drivers::Drivers;
use self::load::{Load, Tally};
use self::mix::Mix;
use super::Failure;
use super::connection::{Connection, Writing, naming_flag};
use super::output::Output;
use super::stop::{Stop, unless_interrupted};
use crate::client::{Client, Endpoint, Range, RawValue, WriteOptions};
use crate::limits::units;

const NOTE: &str = "\
Each connection keeps --pipeline messages under way, of --per-message requests each, all of one
operation, and of keys at random. The latency of a request is the time from when its message is
handed to the connection until its reply has been read. The keys begin with bench: and are deleted
afterwards, unless --keep is given.

Examples:
  vatn bench
  vatn bench -m get=80,set=20 -s 1KiB -t 30 --durability stored";

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

    /// How many messages each connection keeps in flight
    #[arg(short = 'P', long, value_name = "N", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pipeline: u32,

    /// How many requests a message carries
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    per_message: u32,

    /// The operations and their shares: get, set, incr
    #[arg(short = 'm', long, value_name = "OP[=SHARE],…", default_value = "get=50,set=50")]
    mix: Mix,

    /// How many keys there are
    #[arg(short = 'k', long, value_name = "N", default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=9_999_999_999))]
    keys: u64,

    /// The size of the values, byte strings
    #[arg(short = 's', long, value_name = "BYTES", default_value_t = 100)]
    #[arg(value_parser = units::bytes::<usize>)]
    value_size: usize,

    /// For how long, in seconds or as 500ms or 2m
    #[arg(short = 't', long, value_name = "SECONDS", default_value_t = 5.0)]
    #[arg(value_parser = seconds)]
    duration: f64,

    /// How many requests in all, however long they take
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "duration")]
    requests: Option<u64>,

    /// Skip writing all keys first, when they exist from an earlier run
    #[arg(long)]
    no_load: bool,

    /// Keep the keys afterwards
    #[arg(long)]
    keep: bool,

    /// Delete the keys afterwards, also with --no-load, which keeps them otherwise
    #[arg(long, conflicts_with = "keep")]
    clean: bool,

    /// The seed of the choice of keys, so that a run can be repeated
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
        let mut client = unless_interrupted(self.connection.open()).await?;
        let mut stop = Stop::new()?;
        if self.mix.has_gets() && !self.no_load {
            let written = tokio::select! {
                written = self.write_all_keys(&mut client) => written,
                () = stop.requested() => {
                    let text = "interrupted while the keys were written; nothing was measured";
                    Err(Failure::interrupted(text))
                }
            };
            if let Err(failure) = written {
                // A request may be half sent, so its connection is unusable.
                return Err(self.clean_after(failure).await);
            }
        }
        let driven = match self.connect().await {
            Ok(drivers) => self.drive(drivers, &mut stop).await,
            Err(failure) => Err(failure),
        };
        let Driven { tally, elapsed, is_whole } = match driven {
            Ok(driven) => driven,
            Err(failure) => return Err(self.clean_after(failure).await),
        };
        let printed = report::print(&self, &tally, elapsed, out).and_then(|()| out.flush());
        if self.is_to_clean() {
            self.clean(&mut client).await?;
        }
        let failure = match tally.refused() {
            Some(codes) => Failure::failed(format!("requests were refused: {codes}")),
            None if is_whole => return printed,
            None => Failure::interrupted(format!(
                "interrupted after {:.1} s: the figures are of what was done until then",
                elapsed.as_secs_f64()
            )),
        };
        Err(failure.after(printed))
    }

    /// Keys that existed before stay.
    fn is_to_clean(&self) -> bool {
        self.clean || !(self.keep || self.no_load)
    }

    /// Deletes the keys of a failed run, as far as possible.
    async fn clean_after(&self, failure: Failure) -> Failure {
        if !self.is_to_clean() {
            return failure;
        }
        let cleaned = match self.connection.open().await {
            Ok(mut client) => self.clean(&mut client).await,
            Err(error) => Err(error),
        };
        match cleaned {
            Ok(()) => failure,
            Err(_) => failure.adding("; its keys, which begin with bench:, are still there"),
        }
    }

    /// Deletes the benchmark's keys, and no other keys with the same prefix.
    async fn clean(&self, client: &mut Client) -> Result<(), Failure> {
        for prefix in [VALUE_PREFIX, NUMBER_PREFIX] {
            let key = |number: u64| Some(format!("{prefix}{number:010}").into_bytes());
            let mut range = Range { from: key(0), to: key(self.keys), ..Range::default() };
            loop {
                let page = client.delete_range(&range, &WriteOptions::default()).await?;
                let Some(next) = page.next else { break };
                range.after = Some(next.to_vec());
            }
        }
        Ok(())
    }

    /// Connects, on threads with their own event loops, like the broker's.
    async fn connect(&self) -> Result<Drivers, Failure> {
        let endpoint = Endpoint::to_connect(&self.connection.connect)
            .map_err(|error| naming_flag("--connect", error.into()))?;
        let mut drivers =
            Drivers::start(self.threads.and_then(|count| NonZero::new(count.into())))?;
        for index in 0..u64::from(self.connections) {
            let connecting = Load::connect(self.clone(), endpoint.clone(), index);
            drivers.add(connecting).await?;
        }
        Ok(drivers)
    }

    /// Runs all connections in parallel until the time or the requests are used up, or a signal
    /// interrupts them.
    async fn drive(&self, drivers: Drivers, stop: &mut Stop) -> Result<Driven, Failure> {
        let (start, is_over) = (Instant::now(), drivers.stop());
        drivers.begin();
        let time = match self.requests {
            None => Duration::from_secs_f64(self.duration),
            // They are counted instead.
            Some(_) => Duration::from_secs(1 << 32),
        };
        let (mut total, mut time) = (pin!(drivers.total()), pin!(tokio::time::sleep(time)));
        let (mut is_whole, mut is_late) = (true, false);
        loop {
            tokio::select! {
                tally = &mut total => {
                    return Ok(Driven { tally: tally?, elapsed: start.elapsed(), is_whole });
                }
                () = &mut time, if !is_late => is_late = true,
                () = stop.requested() => {
                    if !is_whole {
                        // Connections that wait for a reply in vain are abandoned.
                        let text = "interrupted; some requests had no answer yet";
                        return Err(Failure::interrupted(text));
                    }
                    is_whole = false;
                }
            }
            is_over.store(true, Ordering::Relaxed);
        }
    }

    async fn write_all_keys(&self, client: &mut Client) -> Result<(), Failure> {
        let value = RawValue::bin(&vec![b'x'; self.value_size]);
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

/// The result of the connections.
struct Driven {
    tally: Tally,
    elapsed: Duration,
    is_whole: bool,
}

fn value_key(number: u64) -> String {
    format!("{VALUE_PREFIX}{number:010}")
}

fn seconds(text: &str) -> Result<f64, String> {
    let with_unit = || units::milliseconds_with_unit(text).ok().map(|ms| ms as f64 / 1000.0);
    let seconds = text.parse().ok().or_else(with_unit);
    seconds
        .filter(|seconds: &f64| *seconds > 0.0 && *seconds < 1e9)
        .ok_or_else(|| "it is not a positive number of seconds, or a time such as 2m".to_owned())
}
