//! `vatn ping`: shows the broker's identity and response time.

use std::time::Instant;

use clap::Args;
use rmpv::Value;
use serde_json::json;

use super::connection::Connection;
use super::output::Output;
use super::{Failure, json};
use crate::client::RawValue;

const NOTE: &str = "\
Example:
  vatn ping --connect tcp://127.0.0.1:7533

Prints which broker answers and how long the answer took.";

/// Check that the broker answers
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Ping {
    #[command(flatten)]
    connection: Connection,
}

impl Ping {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let mut client = self.connection.open().await?;
        let hello = client.hello().await?;
        let payload = RawValue::from("vatn ping");
        let start = Instant::now();
        let answer = client.ping(&payload).await?;
        let round_trip_us = start.elapsed().as_micros() as u64;
        if answer != payload {
            return Err(Failure::failed(format!(
                "{} answered the ping with something else",
                client.endpoint()
            )));
        }
        if out.json {
            return out.json(&json!({
                "endpoint": client.endpoint(),
                "round_trip_us": round_trip_us,
                "hello": json::show(&hello),
            }));
        }
        out.line(format!(
            "{} {} answers on {} in {:.2} ms",
            text(&hello, "server"),
            text(&hello, "version"),
            client.endpoint(),
            round_trip_us as f64 / 1000.0
        ))
    }
}

fn text<'a>(map: &'a Value, name: &str) -> &'a str {
    let pairs = map.as_map().map_or(&[][..], Vec::as_slice);
    let found = pairs.iter().find(|(key, _)| key.as_str() == Some(name));
    found.and_then(|(_, value)| value.as_str()).unwrap_or("?")
}
