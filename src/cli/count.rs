//! `vatn count`: prints the number of keys.

use clap::Args;
use serde_json::json;

use super::Failure;
use super::connection::Connection;
use super::key::{self, Key};
use super::output::Output;

const NOTE: &str = "\
Example:
  vatn count boat:

Counts all keys, or those that begin with PREFIX.";

/// Print the number of keys
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Count {
    /// Only keys that begin with this prefix
    #[arg(default_value = "", hide_default_value = true, value_parser = key::parser())]
    prefix: Key,

    #[command(flatten)]
    connection: Connection,
}

impl Count {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let mut client = self.connection.open().await?;
        let count = client.count(self.prefix.as_bytes()).await?;
        if out.json { out.json(&json!({ "count": count })) } else { out.line(count.to_string()) }
    }
}
