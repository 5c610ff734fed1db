//! `vatn incr` and `vatn decr`: numbers up and down.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use serde_json::json;

use super::Failure;
use super::connection::{Connection, Writing};
use super::output::Output;
use crate::client;

/// Prints the new number.
#[derive(Debug, Args)]
pub(super) struct Step {
    /// The key
    key: OsString,

    /// By how much
    #[arg(default_value_t = 1)]
    delta: u64,

    /// What a missing key becomes; without it that is an error
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = integer)]
    initial: Option<i128>,

    /// After how many milliseconds the key expires
    #[arg(long, value_name = "MS")]
    ttl_ms: Option<u64>,

    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    connection: Connection,
}

/// Which way a step goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Direction {
    Up,
    Down,
}

impl Step {
    pub(super) async fn run(self, direction: Direction, out: &mut Output) -> Result<(), Failure> {
        let mut client = self.connection.open().await?;
        let step = client::Step { delta: Some(self.delta), initial: self.initial };
        let mut options = self.writing.options();
        options.ttl_ms = self.ttl_ms;
        let key = self.key.as_bytes();
        let number = match direction {
            Direction::Up => client.incr(key, &step, &options).await?,
            Direction::Down => client.decr(key, &step, &options).await?,
        };
        if out.json { out.json(&json!({ "value": number })) } else { out.line(number.to_string()) }
    }
}

fn integer(text: &str) -> Result<i128, String> {
    text.parse()
        .ok()
        .filter(|number| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(number))
        .ok_or_else(|| "it is not an integer from -2^63 to 2^64-1".to_owned())
}
