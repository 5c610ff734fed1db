//! `vatn touch`: changes the time to live of a key.

use clap::{ArgGroup, Args};
use serde_json::json;

use super::Failure;
use super::connection::{Connection, Writing};
use super::key::{self, Key};
use super::output::Output;
use crate::limits::units;

const NOTE: &str = "\
Example:
  vatn touch session:7 --ttl 30m

The value stays. Exit code 3 when there is no such key.";

/// The ways to give a time to live.
const TIMES: [&str; 4] = ["for_time", "ttl", "ttl_ms", "forever"];

/// Give a key another time to live
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
#[command(group = ArgGroup::new("time").required(true).args(TIMES))]
pub(super) struct Touch {
    /// The key
    #[arg(value_parser = key::parser())]
    key: Key,

    /// The same as --ttl
    #[arg(value_name = "TTL", value_parser = units::milliseconds_with_unit)]
    for_time: Option<u64>,

    /// After how long the key expires: 500ms, 10s, 1h30m, 7d
    #[arg(long, value_name = "TIME", value_parser = units::milliseconds_with_unit)]
    ttl: Option<u64>,

    /// After how many milliseconds the key expires
    #[arg(long, value_name = "MS", value_parser = units::milliseconds)]
    ttl_ms: Option<u64>,

    /// Remove the expiry of the key
    #[arg(long)]
    forever: bool,

    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    connection: Connection,
}

impl Touch {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let ttl_ms = self.for_time.or(self.ttl).or(self.ttl_ms);
        let mut client = self.connection.open().await?;
        let (key, options) = (self.key.as_bytes(), self.writing.options());
        let is_there = client.touch(key, ttl_ms, &options).await?;
        let printed = match (out.json, is_there) {
            (true, _) => out.json(&json!({ "touched": is_there })),
            (false, true) => out.line("1 touched"),
            (false, false) => Ok(()),
        };
        if is_there {
            return printed;
        }
        let failure = Failure::not_found(format!("no key '{}'", key::show(key)));
        Err(failure.after(printed.and_then(|()| out.flush())))
    }
}
