//! `vatn changes`: prints the history from a sequence number on.

use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::connection::Connection;
use super::key::{self, Key};
use super::output::Output;
use super::stop::{Stop, unless_interrupted};
use super::{Failure, change};
use crate::client::{Change, ClientError, Replay};

const NOTE: &str = "\
Examples:
  vatn changes --from 0
  vatn changes --from 812 --follow --prefix boat:

Prints one change a line. With --follow it goes on with what comes, and waits for a broker that
restarts; Ctrl-C ends it. With --json the lines are what `vatn import` reads, so that

  vatn export state.jsonl && vatn import state.jsonl --connect MIRROR
  vatn changes --from SEQ --follow --json | vatn import - --connect MIRROR

keeps a mirror, SEQ being the one in the last line of the export.";

/// How long one request waits for a change.
const WAIT: Duration = Duration::from_secs(10);
/// The pause between two tries to reach an unreachable broker.
const PAUSE: Duration = Duration::from_millis(200);
/// About how long an applied write may take to appear in the history.
const COMMIT: Duration = Duration::from_millis(5);

/// Print what changed since a sequence number
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Changes {
    /// Changes of writes later than this; 0 means from the beginning
    #[arg(long, value_name = "SEQ")]
    from: u64,

    /// Only keys that begin with this prefix
    #[arg(long, default_value = "", hide_default_value = true, value_parser = key::parser())]
    prefix: Key,

    /// End after this many changes; those of one write stay together
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// Continue with new changes
    #[arg(long)]
    follow: bool,

    #[command(flatten)]
    connection: Connection,
}

impl Changes {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let options = self.connection.patience.options();
        let prefix = self.prefix.as_bytes();
        let mut replay = Replay::new(&self.connection.connect, prefix, self.from, &options);
        // A broker that is unreachable at the start is an error, also with --follow.
        let end = async { replay.end().await.map_err(|error| self.connection.named(error)) };
        let end = unless_interrupted(end).await?;
        let mut stop = Stop::new()?;
        let (mut printed, mut is_gone) = (0, false);
        loop {
            let left = self.limit.map(|limit| limit.saturating_sub(printed));
            if left == Some(0) || !self.follow && replay.after() >= end {
                break;
            }
            let wait = if self.follow { WAIT } else { Duration::ZERO };
            let page = tokio::select! {
                page = replay.next(left, wait) => page,
                () = stop.requested() => break,
            };
            match page {
                Ok(page) => {
                    if std::mem::take(&mut is_gone) {
                        eprintln!("{} is back", replay.endpoint());
                    }
                    print(&page, out)?;
                    printed += page.len() as u64;
                    if page.is_empty() && !self.follow {
                        sleep(COMMIT).await;
                    }
                }
                Err(error) if self.follow && error.is_passing() => {
                    self.report_gone(&error, &mut is_gone);
                    tokio::select! {
                        () = sleep(PAUSE) => {}
                        () = stop.requested() => break,
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.report_end(replay.after(), printed, out)
    }

    fn report_gone(&self, error: &ClientError, is_gone: &mut bool) {
        if !std::mem::replace(is_gone, true) {
            eprintln!("{error}; waiting for {}", self.connection.connect);
        }
    }

    fn report_end(&self, seq: u64, printed: u64, out: &mut Output) -> Result<(), Failure> {
        if out.json {
            return out.json(&change::mark("changes", seq, printed));
        }
        eprintln!("all up to seq {seq}: go on with --from {seq}");
        Ok(())
    }
}

fn print(page: &[Change], out: &mut Output) -> Result<(), Failure> {
    for change in page {
        change::print(change, out)?;
    }
    out.flush()
}
