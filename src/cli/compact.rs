//! `vatn compact`: reclaims the space of dead rows in the tables.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::Failure;
use super::connection::Connection;
use super::output::Output;
use super::progress::Progress;
use crate::client::Client;
use crate::storage::files;
use crate::storage::{FjallStorage, Storage};

const NOTE: &str = "\
A broker compacts its tables by itself when more is dead than live and that is over 16 MiB; this
command does so at once. The broker goes on serving meanwhile. With --database DIR the store in
DIR is compacted, whose broker must not be running.

Example: vatn compact";

/// How often the broker is polled for the end of the compaction.
const LOOK_AGE: Duration = Duration::from_millis(100);

/// Rewrite the tables, without deleted and overwritten values
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Compact {
    /// The directory of a store whose broker is not running
    #[arg(short = 'b', long, value_name = "DIR")]
    database: Option<PathBuf>,

    #[command(flatten)]
    connection: Connection,
}

impl Compact {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let mut progress = Progress::begin(None);
        let (before, after) = match &self.database {
            Some(path) => offline(path)?,
            None => online(&mut self.connection.open().await?, &mut progress).await?,
        };
        progress.finish();
        if out.json {
            return out.json(&json!({ "before_bytes": before, "after_bytes": after }));
        }
        out.line(format!("the store took {before} bytes on disk and takes {after} now"))
    }
}

fn offline(path: &Path) -> Result<(u64, u64), Failure> {
    let failed = |what: String| Failure::failed(format!("{}: {what}", path.display()));
    if !files::is_store(path) {
        return Err(failed("there is no store in it".to_owned()));
    }
    let disk = FjallStorage::open(path).map_err(|error| Failure::failed(error.to_string()))?;
    let before = disk.usage().total();
    let done = disk.compact().and_then(|()| disk.settle());
    done.map_err(|error| failed(error.to_string()))?;
    Ok((before, disk.usage().total()))
}

async fn online(client: &mut Client, progress: &mut Progress) -> Result<(u64, u64), Failure> {
    client.flush().await?;
    let before = stat(client, "disk_bytes").await?.unwrap_or(0);
    let number = client.compact().await?;
    let began = Instant::now();
    while stat(client, "compactions").await?.is_none_or(|ended| ended < number) {
        progress.say(format!("compacting for {:.0} s", began.elapsed().as_secs_f64()));
        tokio::time::sleep(LOOK_AGE).await;
    }
    let stats = client.stats().await?;
    let failure = find(&stats, "compaction_error").and_then(|error| error.as_str());
    match failure {
        Some(error) => Err(Failure::failed(error.to_owned())),
        None => Ok((before, find(&stats, "disk_bytes").and_then(|n| n.as_u64()).unwrap_or(0))),
    }
}

async fn stat(client: &mut Client, name: &str) -> Result<Option<u64>, Failure> {
    Ok(find(&client.stats().await?, name).and_then(rmpv::Value::as_u64))
}

/// A member of the statistics, or of their `disk`.
fn find<'s>(stats: &'s rmpv::Value, name: &str) -> Option<&'s rmpv::Value> {
    let member = |map: &'s rmpv::Value, name: &str| {
        let pairs = map.as_map()?;
        pairs.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
    };
    member(stats, name).or_else(|| member(member(stats, "disk")?, name))
}
