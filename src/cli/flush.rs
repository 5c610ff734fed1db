//! `vatn flush`: waits until all writes are in the tables.

use clap::Args;
use serde_json::json;

use super::Failure;
use super::connection::Connection;
use super::output::Output;

const NOTE: &str = "\
Example:
  vatn flush

Prints the broker's status line.";

/// Wait until all that is queued is in the tables and on the disk
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Flush {
    #[command(flatten)]
    connection: Connection,
}

impl Flush {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let mut client = self.connection.open().await?;
        let status = client.flush().await?;
        if out.json { out.json(&json!({ "status": status })) } else { out.line(status) }
    }
}
