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

/// The items of one request, and the first and the last of the lines they come from.
struct Items {
    pairs: Vec<(Vec<u8>, Packed)>,
    bytes: usize,
    first: Place,
    last: Place,
}

/// A request under way.
struct Sent {
    ticket: Ticket,
    items: Items,
    position: u64,
}

impl Import {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let mut lines = Lines::open(&self.file)?;
        let mut client = self.connection.open().await?;
        let options = self.writing.options();
        let mut progress = Progress::begin(lines.size());
        let mut under_way = VecDeque::new();
        while let Some(items) = Items::read(&mut lines)? {
            let ticket = send(&mut client, &items.pairs, &options).await?;
            under_way.push_back(Sent { ticket, items, position: lines.bytes() });
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
    /// Reads as many as a request holds; `None` at the end.
    fn read(lines: &mut Lines) -> Result<Option<Self>, Failure> {
        let mut read: Option<Items> = None;
        while read.as_ref().is_none_or(Items::has_room) {
            let Some((place, line)) = lines.next()? else { break };
            let pair = item(&line).map_err(|reason| place.failure(reason))?;
            let items = read.get_or_insert_with(|| Items::begin(place.clone()));
            items.bytes += pair.0.len() + pair.1.as_bytes().len();
            items.pairs.push(pair);
            items.last = place;
        }
        Ok(read)
    }

    fn begin(place: Place) -> Self {
        Items { pairs: Vec::new(), bytes: 0, first: place.clone(), last: place }
    }

    fn has_room(&self) -> bool {
        self.pairs.len() < BATCH_ITEMS && self.bytes < BATCH_BYTES
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
            let Items { first, last, .. } = &sent.items;
            return Err(Failure::failed(format!("{first} to {last}: {refusal}")));
        }
    }
    progress.advance(sent.items.pairs.len() as u64, sent.position);
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
