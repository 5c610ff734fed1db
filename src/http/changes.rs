//! `/changes?from=SEQ&prefix=P&limit=N&wait_ms=N`: the history, one JSON object a line; or, for who
//! accepts `text/event-stream`, as events that go on with what comes.
//!
//! An answer is a page of the engine's. Events are made page by page as their reader takes them, so
//! that a slow one costs no more memory than a quick one: it falls behind in the history.

use super::budget::Room;
use super::edge::Edge;
use super::json::{Length, Sink};
use super::refuse::{Refused, answer};
use super::store::Store;
use super::views::unreadable;
use super::{json, query};
use crate::engine::{Awaited, ChangesQuery};
use crate::wire::reader::Read;
use crate::wire::{Reader, Refusal, Seq};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use std::sync::Arc;

/// The longest wait for a change. A peer that goes away meanwhile is not noticed before.
const WAIT_MS_MAX: u64 = 30_000;
/// Events are at most so far apart: a comment in between keeps the connection, and finds out
/// whether there is still a reader.
const HEARTBEAT_MS: u64 = 5_000;
/// The header of a page that says where the next one begins.
const NEXT: HeaderName = HeaderName::from_static("vatn-next-seq");
/// The header by which a browser says, after a reconnect, which event it has seen last.
const LAST_EVENT_ID: &str = "last-event-id";

/// `/changes`.
pub async fn changes<S: Store>(
    State(edge): State<Arc<Edge<S>>>,
    request: Request,
) -> Result<Response, Refused> {
    let end = edge.store.last_seq();
    let mut asked = asked(request.uri().query().unwrap_or_default(), end)?;
    if !wants_events(request.headers()) {
        return page(&edge, asked).await;
    }
    if let Some(seen) = request.headers().get(LAST_EVENT_ID) {
        asked.after = number("Last-Event-ID", seen.as_bytes())?;
    }
    events(edge, asked).await
}

/// What the query asks for; without `from`, what changes after `end`.
fn asked(query: &str, end: Seq) -> Result<ChangesQuery, Refusal> {
    let given = |name| query::first(query, name).map(|text| number(name, &text)).transpose();
    let limit = given("limit")?;
    if limit == Some(0) {
        return Err(Refusal::argument("limit", "must be a number from 1 on"));
    }
    Ok(ChangesQuery {
        after: given("from")?.unwrap_or(end),
        prefix: query::first(query, "prefix").unwrap_or_default().into_owned(),
        limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        wait_ms: given("wait_ms")?.unwrap_or_default().min(WAIT_MS_MAX),
    })
}

fn number(name: &str, digits: &[u8]) -> Result<u64, Refusal> {
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| Refusal::argument(name, "must be a number from 0 to 2^64-1"))
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let kind = range.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("text/event-stream")
    })
}

/// One page, a line a change.
async fn page<S: Store>(edge: &Edge<S>, asked: ChangesQuery) -> Result<Response, Refused> {
    // The wait holds nothing; the page does.
    let (next, body) = match edge.store.await_changes(&asked).await {
        Awaited::Nothing { next } => (next, Body::empty()),
        Awaited::Something => {
            let made = Made::of(edge, &asked, asked.after, false).await?;
            (made.next, Body::from(made.text))
        }
    };
    let mut response = answer(StatusCode::OK, body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(NEXT, HeaderValue::from(next));
    Ok(response)
}

/// Events until the peer goes or the broker stops.
async fn events<S: Store>(
    edge: Arc<Edge<S>>,
    mut asked: ChangesQuery,
) -> Result<Response, Refused> {
    (asked.limit, asked.wait_ms) = (None, HEARTBEAT_MS);
    let prev = asked.after;
    let mut tail = Tail { edge, asked, prev };
    // What cannot be answered at all is told by the status, not by a stream that breaks off.
    let now = ChangesQuery { wait_ms: 0, ..tail.asked.clone() };
    let first = tail.next(now).await?;
    let rest = stream::try_unfold(tail, |mut tail| async move {
        if tail.edge.store.is_stopping() {
            return Ok(None);
        }
        let events = tail.next(tail.asked.clone()).await?;
        Ok::<_, Refused>(Some((events, tail)))
    });
    let events = stream::StreamExt::chain(stream::once(async { Ok(first) }), rest);
    let mut response = answer(StatusCode::OK, Body::from_stream(events));
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

/// A reader's place in the history.
struct Tail<S> {
    edge: Arc<Edge<S>>,
    asked: ChangesQuery,
    /// The last change that was sent.
    prev: Seq,
}

impl<S: Store> Tail<S> {
    /// The next events; a comment when there are none.
    async fn next(&mut self, asked: ChangesQuery) -> Result<Bytes, Refused> {
        if let Awaited::Nothing { next } = self.edge.store.await_changes(&asked).await {
            self.asked.after = next;
            return Ok(Bytes::from(heartbeat(next)));
        }
        let made = Made::of(&self.edge, &asked, self.prev, true).await?;
        (self.asked.after, self.prev) = (made.next, made.prev);
        Ok(match made.text.is_empty() {
            true => Bytes::from(heartbeat(made.next)),
            false => made.text,
        })
    }
}

/// A page of the history, as text in its room.
struct Made {
    text: Bytes,
    /// Where the next one begins.
    next: Seq,
    /// The last change in it, or before it.
    prev: Seq,
}

impl Made {
    /// Of what there is now. A page that turns out longer than there is room for, by one large
    /// write, is made anew when there is.
    async fn of<S: Store>(
        edge: &Edge<S>,
        asked: &ChangesQuery,
        prev: Seq,
        is_event: bool,
    ) -> Result<Self, Refused> {
        let mut room = edge.budget.wait(edge.page_bytes).await?;
        loop {
            let page = Arc::clone(&edge.store).changes(asked.clone()).await?;
            match Lines::of(&page, prev, is_event, &mut room) {
                Ok((lines, next)) => {
                    drop(page);
                    return Ok(Self { text: room.hold(lines.out), next, prev: lines.prev });
                }
                Err(refused) => {
                    drop(page);
                    room = room.again(refused).await?;
                }
            }
        }
    }
}

/// A comment, and an id without an event: where nothing matched, a reconnect need not look again.
fn heartbeat(next: Seq) -> Vec<u8> {
    format!(": nothing up to {next}\nid: {next}\n\n").into_bytes()
}

/// Changes on their way from MessagePack to JSON.
struct Lines<O> {
    out: O,
    /// The seq of the change before.
    prev: Seq,
    is_event: bool,
}

impl Lines<Vec<u8>> {
    /// The lines of a page, for which there must be room, and where the next page begins.
    fn of(
        page: &[u8],
        prev: Seq,
        is_event: bool,
        room: &mut Room<'_>,
    ) -> Result<(Self, Seq), Refused> {
        let length = room.grow_for_json(page.len(), || {
            let mut measured = Lines { out: Length::default(), prev, is_event };
            measured.read(page).map_err(|_| unreadable())?;
            Ok(measured.out.len())
        })?;
        let mut lines = Self { out: Vec::with_capacity(length), prev, is_event };
        let next = lines.read(page).map_err(|_| unreadable())?;
        Ok((lines, next))
    }
}

impl<O: Sink> Lines<O> {
    /// Reads `[[[key, header, value]…], next]`; returns `next`.
    fn read(&mut self, page: &[u8]) -> Read<Seq> {
        let mut reader = Reader::new(page);
        reader.array_len()?;
        let count = reader.array_len()?;
        for index in 0..count {
            let seq = self.change(&mut reader)?;
            if !self.is_event {
                self.out.write(b"\n");
                continue;
            }
            // An id says that everything up to it has come: only the last change of a write has it.
            let is_last = index + 1 == count || seq_of(reader.clone())? != seq;
            let id = if is_last { format!("\nid: {seq}\n\n") } else { "\n\n".to_owned() };
            self.out.write(id.as_bytes());
        }
        reader.uint()
    }

    fn change(&mut self, changes: &mut Reader<'_>) -> Read<Seq> {
        changes.array_len()?;
        let key = changes.bytes()?;
        changes.array_len()?;
        let seq = changes.uint()?;
        let op = String::from_utf8_lossy(changes.bytes()?);
        let (index, count) = (changes.uint()?, changes.uint()?);
        changes.value()?;
        let ttl_ms = if changes.nil()? { None } else { Some(changes.uint()?) };
        let level = String::from_utf8_lossy(changes.bytes()?);
        let prev = std::mem::replace(&mut self.prev, seq);
        let start = if self.is_event { "data: " } else { "" };
        let ttl_ms = ttl_ms.map_or_else(|| "null".to_owned(), |ttl_ms| ttl_ms.to_string());
        let head = format_args!(
            "{start}{{\"seq\":{seq},\"op\":\"{op}\",\"index\":{index},\"count\":{count},\
             \"prev\":{prev},\"ttl_ms\":{ttl_ms},\"level\":\"{level}\",\"key\":"
        );
        json::print(&mut self.out, head);
        json::render_key(key, &mut self.out);
        self.out.write(b",\"value\":");
        json::render(changes.value()?, &mut self.out)?;
        self.out.write(b"}");
        Ok(seq)
    }
}

/// The seq of the change that comes next.
fn seq_of(mut changes: Reader<'_>) -> Read<Seq> {
    changes.array_len()?;
    changes.value()?;
    changes.array_len()?;
    changes.uint()
}
