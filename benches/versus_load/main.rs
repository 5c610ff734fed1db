//! One load generator for two protocols, so that vatn and redis can be put under the same load by
//! the same code: requests that are copies of a template, on connections that a few threads share.
//! `benches/versus` drives it; it prints one line of JSON.
//!
//!     cargo run --release --example versus_load -- drive vatn 127.0.0.1:7533 --operation get

mod closed;
mod drive;
mod fan;
mod fill;
mod outgoing;
mod paced;
mod protocol;
mod range;
mod wire;

use clap::{Args, Parser, Subcommand};
use protocol::Protocol;

/// An error ends the run with one sentence.
type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Put a broker, redis, or a bare echo under load
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand)]
enum Load {
    /// Write all keys once, in a scattered order
    Fill(fill::Fill),
    /// Get or set random keys, as fast as it goes or at a given rate
    Drive(drive::Drive),
    /// One writer, many subscribers: count the deliveries
    Fan(fan::Fan),
    /// Read a thousand neighbours from a random key on
    Range(range::Range),
}

/// The server, and the keys of the load.
#[derive(Debug, Clone, Args)]
struct Target {
    /// The protocol of the server
    protocol: Protocol,

    /// HOST:PORT, or the path of a Unix socket
    address: String,

    /// How many keys there are
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,

    /// The prefix of a key; the rest is its number
    #[arg(long, default_value = "key:")]
    prefix: String,

    /// With how many digits
    #[arg(long, default_value_t = 12)]
    digits: usize,

    /// The size of the values
    #[arg(long, default_value_t = 100)]
    value_size: usize,

    /// The durability that writes to vatn ask for
    #[arg(long, default_value = "queued")]
    level: String,
}

fn main() -> Fallible<()> {
    let figures = match Arguments::parse().load {
        Load::Fill(fill) => fill.run()?,
        Load::Drive(drive) => drive.run()?,
        Load::Fan(fan) => fan.run()?,
        Load::Range(range) => range.run()?,
    };
    println!("{figures}");
    Ok(())
}
