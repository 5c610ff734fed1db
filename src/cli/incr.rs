//! `vatn incr` and `vatn decr`: add to and subtract from a number.

use clap::Args;
use serde_json::json;

use super::Failure;
use super::connection::{Connection, Expiry, Writing};
use super::key::{self, Key};
use super::output::Output;
use crate::client;

/// Prints the new number.
#[derive(Debug, Args)]
pub(super) struct Step {
    /// The key; a byte that cannot be typed is \xNN, a backslash \\
    #[arg(value_parser = key::parser())]
    key: Key,

    /// By how much
    #[arg(default_value = "1", allow_negative_numbers = true, value_parser = integer)]
    delta: i128,

    /// The number that a missing key gets; without --initial a missing key is an error
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = integer)]
    initial: Option<i128>,

    #[command(flatten)]
    expiry: Expiry,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    connection: Connection,
}

/// The direction of a step.
#[derive(Debug, Clone, Copy)]
pub(super) enum Direction {
    Up,
    Down,
}

impl Step {
    pub(super) async fn run(self, direction: Direction, out: &mut Output) -> Result<(), Failure> {
        let mut client = self.connection.open().await?;
        // `integer` accepts no larger number.
        let delta = u64::try_from(self.delta.unsigned_abs()).unwrap_or(u64::MAX);
        let step = client::Step { delta: Some(delta), initial: self.initial };
        let mut options = self.writing.options();
        self.expiry.apply(&mut options);
        let key = self.key.as_bytes();
        let number = match (direction, self.delta < 0) {
            (Direction::Up, false) | (Direction::Down, true) => {
                client.incr(key, &step, &options).await?
            }
            (Direction::Up, true) | (Direction::Down, false) => {
                client.decr(key, &step, &options).await?
            }
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
