//! `vatn wait`: waits until writes have reached a level of durability.

use clap::Args;
use serde_json::json;

use super::Failure;
use super::connection::{Connection, level_parser};
use super::output::Output;
use crate::client::Level;

const NOTE: &str = "\
Examples:
  vatn wait                  all that was written so far is synced
  vatn wait 812 stored --timeout-ms 5s

Exit code 5 when the time ran out (--timeout-ms).";

/// How long the broker may take to answer, in addition to the wait itself.
const CONNECT_MS: u64 = 30_000;

/// Wait until writes have reached a level of durability
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Wait {
    /// The sequence number of the last of the writes; without it, that of the last write so far
    seq: Option<u64>,

    /// The level
    #[arg(default_value = "synced", value_parser = level_parser())]
    level: Level,

    #[command(flatten)]
    connection: Connection,
}

impl Wait {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let timeout = self.connection.patience.options().reply_timeout;
        // The time limits the wait, and not the connecting.
        let mut connection = self.connection.clone();
        connection.patience.timeout_ms = CONNECT_MS;
        let mut client = connection.open().await?;
        let seq = match self.seq {
            Some(seq) => seq,
            None => {
                let seq = client.hello().await?["seq"].as_u64();
                seq.ok_or_else(|| Failure::failed("the broker's hello has no seq"))?
            }
        };
        let (has_reached, level) = (client.wait(seq, self.level, timeout).await?, self.level);
        let printed = match (out.json, has_reached) {
            (true, _) => {
                out.json(&json!({ "seq": seq, "level": level.name(), "reached": has_reached }))
            }
            (false, true) => out.line(format!("seq {seq} is {level}")),
            (false, false) => Ok(()),
        };
        if has_reached {
            return printed;
        }
        let limit = timeout.unwrap_or_default();
        let text = format!("seq {seq} is not {level} yet after {limit:?} (--timeout-ms)");
        Err(Failure::timed_out(text).after(printed.and_then(|()| out.flush())))
    }
}
