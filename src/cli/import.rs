//! `vatn import`: writes items and changes from JSON Lines, in overlapping requests.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Failure;
use super::change::{self, Action, Line};
use super::connection::{Connection, Writing};
use super::lines::{Lines, Parsed, Place};
use super::output::Output;
use super::progress::Progress;
use super::stop::{Stop, unless_interrupted};
use crate::client::{Client, ClientError, Level, RawValue, Request, Ticket};

/// The most items or bytes in a request.
const BATCH_ITEMS: usize = 500;
const BATCH_BYTES: usize = 256 * 1024;
/// How many requests are in flight at a time.
const PIPELINE: usize = 8;
/// How long a request waits for further lines.
const LINGER: Duration = Duration::from_millis(3);
/// The same for lines of a write that has begun.
const REST: Duration = Duration::from_millis(50);

const NOTE: &str = "\
A line is {\"key\": \"k\", \"value\": …}, with \"ttl_ms\" where the item expires; bytes that are no
text are {\"base64\": \"…\"}. An item whose \"ttl_ms\" is 0 has no time left: it is not written,
and counted as skipped. Lines of `vatn changes --json` are applied in their order. Items are
written in atomic writes of up to 500, and as soon as no further line is there; an error names the
lines of the one that failed. Ctrl-C says up to which line all is written.

Examples:
  vatn import state.jsonl
  jq -c '{key: .id, value: .}' records.json | vatn import -";

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

/// Lines, read ahead.
struct Source {
    chunks: mpsc::Receiver<Vec<Result<Parsed, Failure>>>,
    lines: VecDeque<Result<Parsed, Failure>>,
    /// The lines so far are complete up to this seq of another broker.
    mark: Option<u64>,
    /// How many lines came since the last mark.
    unmarked: u64,
    /// How many items had already expired.
    skipped: u64,
    /// The failure for a mark that counts more lines than there were; reported at the end.
    missing: Option<Failure>,
}

/// An item or a change, and its place.
struct Item {
    place: Place,
    position: u64,
    key: Vec<u8>,
    action: Action,
    goes_on: Option<u64>,
}

/// The items of one request, with their first and last lines.
struct Items {
    items: Vec<(Vec<u8>, Action)>,
    bytes: usize,
    first: Place,
    last: Place,
    position: u64,
    /// The write that may have more changes in later lines.
    goes_on: Option<u64>,
}

/// A request in flight.
struct Sent {
    ticket: Ticket,
    items: Items,
}

impl Import {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let lines = Lines::open(&self.file)?;
        let mut client = unless_interrupted(self.connection.open()).await?;
        let level = self.writing.durability;
        let batch_bytes = batch_bytes(client.message_bytes().await?);
        let progress = Progress::begin(lines.size());
        let mut transfer = Transfer {
            client,
            progress,
            under_way: VecDeque::new(),
            stop: Stop::new()?,
            last: None,
        };
        let mut source = Source::new(lines);
        while let Some(item) = transfer.next(&mut source).await? {
            let items = Items::gather(item, batch_bytes, &mut source).await?;
            let ticket = transfer.client.send(&[items.request(level)]).await;
            let ticket = ticket.map_err(|error| items.failure(error))?;
            transfer.under_way.push_back(Sent { ticket, items });
            if transfer.under_way.len() == PIPELINE {
                transfer.settle().await?;
            }
        }
        let progress = transfer.progress;
        let mut summary = progress.finish();
        if source.skipped > 0 {
            let count = source.skipped;
            summary += &format!("; {count} skipped: no time is left of them (\"ttl_ms\": 0)");
        }
        let mut described = progress.described();
        if let Some(members) = described.as_object_mut() {
            members.insert("skipped".into(), source.skipped.into());
            members.extend(source.mark.map(|seq| ("seq".to_owned(), seq.into())));
        }
        if let Some(missing) = source.missing {
            return Err(missing);
        }
        match source.mark {
            _ if out.json => out.json(&described),
            Some(seq) => out.line(format!("{summary}; complete up to seq {seq} of the source")),
            None => out.line(summary),
        }
    }
}

/// The requests in flight, and the results so far.
struct Transfer {
    client: Client,
    progress: Progress,
    under_way: VecDeque<Sent>,
    stop: Stop,
    /// The last line that was written.
    last: Option<Place>,
}

impl Transfer {
    /// The next item, unless a signal interrupts. Where no line is available, the requests in
    /// flight are completed first.
    async fn next(&mut self, source: &mut Source) -> Result<Option<Item>, Failure> {
        let soon = tokio::select! {
            biased;
            () = self.stop.requested() => return Err(self.interrupted().await),
            item = source.soon(LINGER) => item?,
        };
        if soon.is_some() {
            return Ok(soon);
        }
        while !self.under_way.is_empty() {
            self.settle().await?;
        }
        tokio::select! {
            biased;
            () = self.stop.requested() => Err(self.interrupted().await),
            item = source.next() => item,
        }
    }

    /// Waits for the oldest request, and for all of them if a signal interrupts meanwhile.
    async fn settle(&mut self) -> Result<(), Failure> {
        let Some(sent) = self.under_way.pop_front() else { return Ok(()) };
        let mut is_interrupted = false;
        let outcomes = {
            let mut received = pin!(self.client.receive(sent.ticket));
            loop {
                tokio::select! {
                    outcomes = &mut received => break outcomes?,
                    () = self.stop.requested() => {
                        if is_interrupted {
                            let lines = sent.items.lines();
                            let text = format!("interrupted; {lines}: there was no answer yet");
                            return Err(Failure::interrupted(text));
                        }
                        is_interrupted = true;
                    }
                }
            }
        };
        if let Some(refusal) = outcomes.into_iter().find_map(Result::err) {
            return Err(Failure::failed(format!("{}: {refusal}", sent.items.lines())));
        }
        let items = sent.items;
        self.progress.advance(items.items.len() as u64, items.position);
        self.last = Some(items.last);
        match is_interrupted {
            true => Err(Box::pin(self.interrupted()).await),
            false => Ok(()),
        }
    }

    /// Completes the requests in flight, and reports the result.
    async fn interrupted(&mut self) -> Failure {
        while !self.under_way.is_empty() {
            if let Err(failure) = self.settle().await {
                return failure;
            }
        }
        let written = self.progress.finish();
        Failure::interrupted(match &self.last {
            Some(place) => format!("interrupted; {written}, written up to {place}"),
            None => "interrupted; nothing was written".to_owned(),
        })
    }
}

impl Source {
    fn new(lines: Lines) -> Self {
        let (chunks, lines) = (lines.stream(), VecDeque::new());
        Source { chunks, lines, mark: None, unmarked: 0, skipped: 0, missing: None }
    }

    /// The next item, if it was read already.
    fn ready(&mut self) -> Result<Option<Item>, Failure> {
        loop {
            while let Some(read) = self.lines.pop_front() {
                if let Some(item) = self.take(read?)? {
                    return Ok(Some(item));
                }
            }
            let Ok(chunk) = self.chunks.try_recv() else { return Ok(None) };
            self.lines.extend(chunk);
        }
    }

    /// The next item, if it arrives in time.
    async fn soon(&mut self, patience: Duration) -> Result<Option<Item>, Failure> {
        match self.ready()? {
            None => timeout(patience, self.next()).await.unwrap_or(Ok(None)),
            item => Ok(item),
        }
    }

    /// Waits for the next item; `None` at the end.
    async fn next(&mut self) -> Result<Option<Item>, Failure> {
        loop {
            if let Some(item) = self.ready()? {
                return Ok(Some(item));
            }
            let Some(chunk) = self.chunks.recv().await else { return Ok(None) };
            self.lines.extend(chunk);
        }
    }

    fn take(&mut self, read: Parsed) -> Result<Option<Item>, Failure> {
        let Parsed { place, json, position } = read;
        match change::read(&json).map_err(|reason| place.failure(reason))? {
            Line::Item { key, action, goes_on } => {
                self.unmarked += 1;
                Ok(Some(Item { place, position, key, action, goes_on }))
            }
            Line::Expired => {
                self.unmarked += 1;
                self.skipped += 1;
                Ok(None)
            }
            Line::Mark { seq, lines } => {
                self.mark = Some(seq);
                let found = std::mem::take(&mut self.unmarked);
                if let Some(lines) = lines.filter(|lines| *lines > found) {
                    let text = format!(
                        "{lines} lines should come before it, and {found} did; what was there is \
                         written; leave this line out where that is meant"
                    );
                    // Reported when everything is written: the rest may be complete.
                    self.missing.get_or_insert(place.failure(text));
                }
                Ok(None)
            }
        }
    }
}

impl Items {
    /// Adds the available items to the first one, as many as fit into a request. The changes of one
    /// write stay in one request.
    async fn gather(first: Item, bytes: usize, source: &mut Source) -> Result<Self, Failure> {
        let mut items = Items {
            items: Vec::new(),
            bytes: 0,
            first: first.place.clone(),
            last: first.place.clone(),
            position: 0,
            goes_on: None,
        };
        items.push(first);
        while items.goes_on.is_some() || items.has_room(bytes) {
            let patience = if items.goes_on.is_some() { REST } else { LINGER };
            let Some(more) = source.soon(patience).await? else { break };
            items.push(more);
        }
        Ok(items)
    }

    fn push(&mut self, item: Item) {
        let value = match &item.action {
            Action::Set { value, .. } => value.as_bytes().len(),
            Action::Touch { .. } | Action::Delete => 0,
        };
        self.bytes += item.key.len() + value;
        self.items.push((item.key, item.action));
        (self.last, self.position) = (item.place, item.position);
        self.goes_on = item.goes_on;
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.items.len() < BATCH_ITEMS && self.bytes < bytes
    }

    /// Their lines.
    fn lines(&self) -> String {
        format!("{} to {}", self.first, self.last)
    }

    /// The failure of their request.
    fn failure(&self, error: ClientError) -> Failure {
        let is_too_large = matches!(error, ClientError::TooLarge { .. });
        let failure = Failure::from(error);
        if is_too_large { failure.at(self.lines()) } else { failure }
    }

    /// The items as one atomic write.
    fn request(&self, level: Option<Level>) -> Request {
        let plain = |(key, action): &(Vec<u8>, Action)| match action {
            Action::Set { value, ttl_ms: None } => Some((key.clone(), value.clone())),
            _ => None,
        };
        let pairs: Option<Vec<(Vec<u8>, RawValue)>> = self.items.iter().map(plain).collect();
        let request = match pairs {
            Some(pairs) => Request::new("set_multi").pairs(&pairs),
            None => {
                let commands: Vec<Request> = self.items.iter().map(command).collect();
                Request::new("batch").requests(&commands)
            }
        };
        request.option_if("durability", level.map(Level::name))
    }
}

fn command((key, action): &(Vec<u8>, Action)) -> Request {
    match action {
        Action::Set { value, ttl_ms } => {
            // An item without time left expires a moment later.
            let ttl_ms = ttl_ms.map(|ttl_ms| ttl_ms.max(1));
            Request::new("set").key(key).argument(value).option_if("ttl_ms", ttl_ms)
        }
        Action::Touch { ttl_ms } => {
            let ttl_ms = ttl_ms.map_or(RawValue::nil(), |ttl_ms| RawValue::from(ttl_ms.max(1)));
            Request::new("touch").key(key).argument(&ttl_ms)
        }
        Action::Delete => Request::new("delete").key(key),
    }
}

/// Keys and values may take half of the broker's largest message.
fn batch_bytes(message_bytes: u64) -> usize {
    usize::try_from(message_bytes / 2).unwrap_or(BATCH_BYTES).min(BATCH_BYTES)
}
