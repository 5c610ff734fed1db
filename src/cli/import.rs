//! `vatn import`: items from JSON Lines, in requests that overlap.

use std::collections::VecDeque;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value as Json;

use super::connection::{Connection, Writing};
use super::lines::{Lines, Place};
use super::output::Output;
use super::progress::Progress;
use super::{Failure, json};
use crate::client::{Client, Packed, Request, Ticket, WriteOptions};

/// A request holds so many items or bytes, whatever comes first.
const BATCH_ITEMS: usize = 500;
const BATCH_BYTES: usize = 256 * 1024;
/// So many requests are under way at a time.
const PIPELINE: usize = 8;

const NOTE: &str = "\
A line is {\"key\": \"k\", \"value\": …}; bytes that are no text are {\"base64\": \"…\"}. Items are
written in atomic writes of up to 500; an error names the lines of the one that failed.";

/// Write the items of a JSON Lines file
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Import {
    /// A file of JSON Lines; - is standard input
    file: PathBuf,

    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    connection: Connection,
}

/// The items of one request, and the lines they come from.
#[derive(Default)]
struct Items {
    pairs: Vec<(Vec<u8>, Packed)>,
    bytes: usize,
    lines: Option<(Place, Place)>,
}

/// A request under way.
struct Sent {
    ticket: Ticket,
    items: u64,
    lines: (Place, Place),
    position: u64,
}

impl Import {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let mut lines = Lines::open(&self.file)?;
        let mut client = self.connection.open().await?;
        let options = self.writing.options();
        let mut progress = Progress::begin(lines.size());
        let mut under_way = VecDeque::new();
        loop {
            let Items { pairs, lines: Some(places), .. } = Items::read(&mut lines)? else { break };
            let count = pairs.len() as u64;
            let ticket = send(&mut client, &pairs, &options).await?;
            let position = lines.bytes();
            under_way.push_back(Sent { ticket, items: count, lines: places, position });
            if under_way.len() == PIPELINE {
                settle(&mut under_way, &mut client, &mut progress).await?;
            }
        }
        while !under_way.is_empty() {
            settle(&mut under_way, &mut client, &mut progress).await?;
        }
        let summary = progress.finish();
        if out.json { out.json(&progress.described()) } else { out.line(summary) }
    }
}

impl Items {
    fn read(lines: &mut Lines) -> Result<Self, Failure> {
        let mut items = Items::default();
        while items.pairs.len() < BATCH_ITEMS && items.bytes < BATCH_BYTES {
            let Some((place, line)) = lines.next()? else { break };
            let (key, value) = item(&line).map_err(|reason| place.failure(reason))?;
            items.bytes += key.len() + value.as_bytes().len();
            items.pairs.push((key, value));
            let first = items.lines.take().map_or_else(|| place.clone(), |(first, _)| first);
            items.lines = Some((first, place));
        }
        Ok(items)
    }
}

async fn send(
    client: &mut Client,
    pairs: &[(Vec<u8>, Packed)],
    options: &WriteOptions,
) -> Result<Ticket, Failure> {
    let request = Request::new("set_multi").pairs(pairs);
    let level = options.durability.map(|level| level.name());
    Ok(client.send(&[request.option_if("durability", level)]).await?)
}

/// Waits for the oldest request.
async fn settle(
    under_way: &mut VecDeque<Sent>,
    client: &mut Client,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let Some(sent) = under_way.pop_front() else { return Ok(()) };
    for outcome in client.receive(sent.ticket).await? {
        if let Err(refusal) = outcome {
            let (first, last) = &sent.lines;
            return Err(Failure::failed(format!("{first} to {last}: {refusal}")));
        }
    }
    progress.advance(sent.items, sent.position);
    Ok(())
}

fn item(line: &Json) -> Result<(Vec<u8>, Packed), String> {
    let members = line.as_object().ok_or("a line is {\"key\": …, \"value\": …}")?;
    if let Some(name) = members.keys().find(|name| !["key", "value"].contains(&name.as_str())) {
        return Err(format!("unknown member \"{name}\": a line is {{\"key\": …, \"value\": …}}"));
    }
    let key = members.get("key").ok_or("the member \"key\" is missing")?;
    let value = members.get("value").ok_or("the member \"value\" is missing")?;
    Ok((json::key_bytes(key)?, json::pack(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_item_says_what_is_wrong_with_it() {
        for (line, reason) in [
            ("1", "a line is"),
            (r#"{"key":"k"}"#, "\"value\" is missing"),
            (r#"{"value":1}"#, "\"key\" is missing"),
            (r#"{"key":"k","value":1,"vlaue":2}"#, "unknown member \"vlaue\""),
            (r#"{"key":1,"value":1}"#, "a key is a string"),
            (r#"{"key":"k","value":1e999}"#, "too large"),
        ] {
            let line = serde_json::from_str(line).unwrap();
            let error = item(&line).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
