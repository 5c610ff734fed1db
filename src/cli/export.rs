//! `vatn export`: writes all items as JSON Lines.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value as Json, json};

use super::atomic_file::AtomicFile;
use super::connection::Connection;
use super::key::{self, Key};
use super::output::Output;
use super::progress::Progress;
use super::stop::{unless_interrupted, unless_stopped};
use super::{Failure, change, json};
use crate::client::{Client, HistoryOptions, Level, Range};

const NOTE: &str = "\
Example:
  vatn export state.jsonl --prefix boat:

Writes {\"key\": …, \"value\": …} a line, with \"ttl_ms\" where it expires; `vatn import` reads it
back byte for byte. What changed meanwhile follows as changes, so that the whole is the state at one
sequence number, which the last line names: {\"vatn\": \"export\", \"seq\": SEQ, \"lines\": N}. From
there on, `vatn changes --from SEQ --follow` tells what changes.";

/// Write all items as JSON Lines
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Export {
    /// The file to write, replaced when all is written; without it, or with -, standard output
    #[arg(default_value = "-", hide_default_value = true)]
    file: PathBuf,

    /// Only keys that begin with this prefix
    #[arg(long, default_value = "", hide_default_value = true, value_parser = key::parser())]
    prefix: Key,

    #[command(flatten)]
    connection: Connection,
}

impl Export {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let mut client = unless_interrupted(self.connection.open()).await?;
        let prefix = self.prefix.as_bytes();
        let mut progress = Progress::begin(Some(client.count(prefix).await?));
        let mut sink = match self.file.as_os_str().as_bytes() {
            b"-" => Sink::Output(out),
            _ => Sink::File(AtomicFile::begin(self.file.clone())?),
        };
        let is_file = matches!(&sink, Sink::File(file) if file.is_file());
        let true_at = unless_stopped(is_file, async {
            let begun_at = seq(&mut client).await?;
            write_items(&mut client, prefix, &mut sink, &mut progress).await?;
            write_changes(&mut client, prefix, begun_at, &mut sink, &mut progress).await
        })
        .await?;
        sink.line(&change::mark("export", true_at, progress.items()))?;
        let summary = progress.finish();
        let Sink::File(file) = sink else { return Ok(()) };
        file.finish()?;
        if !is_file {
            return Ok(());
        }
        if !out.json {
            return out.line(format!("{summary}; true at seq {true_at}"));
        }
        let mut described = progress.described();
        if let Some(members) = described.as_object_mut() {
            members.insert("seq".into(), true_at.into());
        }
        out.json(&described)
    }
}

/// The destination of the lines.
enum Sink<'o> {
    Output(&'o mut Output),
    File(AtomicFile),
}

impl Sink<'_> {
    fn line(&mut self, line: &Json) -> Result<(), Failure> {
        let mut line = line.to_string();
        line.push('\n');
        match self {
            Sink::Output(out) => out.bytes(line.as_bytes()),
            Sink::File(file) => {
                file.write_all(line.as_bytes()).map_err(|error| file.failed(&error))
            }
        }
    }
}

/// Writes all items, page by page: each page is from a different moment.
async fn write_items(
    client: &mut Client,
    prefix: &[u8],
    sink: &mut Sink<'_>,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let prefix = (!prefix.is_empty()).then(|| prefix.to_vec());
    let mut range = Range { prefix, ..Range::default() };
    loop {
        let page = client.range_entries(&range).await?;
        for (key, entry) in &page.items {
            let mut item = json!({ "key": json::key(key), "value": json::exact(&entry.value) });
            if let (Some(ttl_ms), Some(members)) = (entry.ttl_ms, item.as_object_mut()) {
                members.insert("ttl_ms".into(), ttl_ms.into());
            }
            sink.line(&item)?;
        }
        let count = page.items.len() as u64;
        progress.advance(count, progress.items() + count);
        let Some(next) = page.next else { return Ok(()) };
        range.after = Some(next.to_vec());
    }
}

/// Writes the changes made while the items were read, so that all lines together are the state of
/// one moment; returns the seq of that moment.
async fn write_changes(
    client: &mut Client,
    prefix: &[u8],
    begun_at: u64,
    sink: &mut Sink<'_>,
    progress: &mut Progress,
) -> Result<u64, Failure> {
    let end = seq(client).await?;
    // Applied writes may not be in the history yet.
    client.wait(end, Level::Stored, None).await?;
    let options = HistoryOptions { prefix: prefix.to_vec(), ..HistoryOptions::default() };
    let mut after = begun_at;
    while after < end {
        let page = client.changes(after, &options).await?;
        for changed in &page.changes {
            sink.line(&change::described(changed))?;
        }
        progress.advance(page.changes.len() as u64, progress.items());
        after = page.next;
    }
    Ok(after)
}

/// The seq of the last write.
async fn seq(client: &mut Client) -> Result<u64, Failure> {
    let seq = client.hello().await?["seq"].as_u64();
    seq.ok_or_else(|| Failure::failed("the broker's hello has no seq"))
}
