//! `/changes?from=SEQ&prefix=P&limit=N&wait_ms=N`: the history, one JSON object a line; or, for
//! clients that accept `text/event-stream`, as events that continue with new changes.
//!
//! An answer is one page from the engine. Events are made page by page as their reader takes them.
//! So a slow reader costs no more memory than a quick one: it falls behind in the history.

use super::connection::Connection;
use super::lines::Lines;
use super::position::Position;
use super::query;
use super::refuse::{Refused, answer};
use super::render::{Text, unreadable};
use super::room::Room;
use super::store::Store;
use super::view::{Edge, streamed, unrendered};
use crate::engine::{Awaited, ChangesQuery};
use crate::net::turns::bulk;
use crate::protocol::{Reader, Refusal, Seq};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use std::sync::Arc;
use std::time::Instant;

/// The longest wait for a change. A peer that disconnects meanwhile goes unnoticed until then.
const WAIT_MS_MAX: u64 = 30_000;
/// The longest time between two events: a comment in between keeps the connection open and shows
/// whether there is still a reader.
const HEARTBEAT_MS: u64 = 5_000;
/// The names that a query may have.
const ARGUMENTS: [&str; 4] = ["from", "prefix", "limit", "wait_ms"];
/// The header of a page with the position where the next one begins.
const NEXT: HeaderName = HeaderName::from_static("vatn-next-seq");
/// The header in which a browser, after a reconnect, names the last event that it has seen.
const LAST_EVENT_ID: &str = "last-event-id";

/// `/changes`.
pub async fn changes<S: Store>(
    State(edge): State<Arc<Edge<S>>>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Result<Response, Refused> {
    let end = edge.store.last_seq();
    let (mut position, mut requested) = parse_query(request.uri().query().unwrap_or_default())?;
    let is_stream = wants_events(request.headers());
    let seen = request.headers().get(LAST_EVENT_ID).map(HeaderValue::as_bytes);
    if let Some(seen) = seen.filter(|seen| is_stream && !seen.trim_ascii().is_empty()) {
        position = Some(Position::read("Last-Event-ID", seen.trim_ascii())?);
    }
    if let Some(position) = position {
        requested.after = position.within(edge.store.id(), edge.store.seq())?;
    } else {
        requested.after = end;
    }
    let is_head = request.method() == Method::HEAD;
    match is_stream {
        true => events(edge, connection, requested, is_head).await,
        false => page(&edge, &connection, requested, is_head).await,
    }
}

/// Parses the query: the changes it requests, and the position after which they begin.
fn parse_query(query: &str) -> Result<(Option<Position>, ChangesQuery), Refusal> {
    query::check_names(query, &ARGUMENTS)?;
    let given = |name| query::first(query, name).map(|text| number(name, &text)).transpose();
    let limit = given("limit")?;
    if limit == Some(0) {
        return Err(Refusal::argument("limit", "must be a number from 1 on"));
    }
    let from = query::first(query, "from").map(|text| Position::read("from", &text)).transpose()?;
    let requested = ChangesQuery {
        after: 0,
        prefix: query::first(query, "prefix").unwrap_or_default().into_owned(),
        limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        wait_ms: given("wait_ms")?.unwrap_or_default().min(WAIT_MS_MAX),
    };
    Ok((from, requested))
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

/// Answers one page, a line a change. A page of unknown length is chunked; then only its last line
/// says where the next page begins.
async fn page<S: Store>(
    edge: &Edge<S>,
    connection: &Connection,
    requested: ChangesQuery,
    is_head: bool,
) -> Result<Response, Refused> {
    // The wait holds no memory; the page does.
    connection.follows(Instant::now());
    let awaited = edge.store.await_changes(connection.caller(), &requested).await;
    connection.is_served(Instant::now());
    let mut headers = HeaderMap::new();
    let body = match awaited {
        Awaited::Nothing { next } => {
            headers.insert(NEXT, next.into());
            Body::empty()
        }
        Awaited::Something if is_head => unrendered(),
        Awaited::Something => {
            bulk::turn().await;
            let text = made(edge, connection, &requested, requested.after, false).await?;
            match text.measure(edge.answer_bytes).await? {
                Some((len, end)) => {
                    headers.insert(NEXT, next(text.input_from(end.at))?.into());
                    headers.insert(CONTENT_LENGTH, len.into());
                    text.into_body(b"")
                }
                None => text.into_body(b""),
            }
        }
    };
    let mut response = streamed(answer(StatusCode::OK, body));
    response.headers_mut().extend(headers);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

/// The position where the next page begins, which follows the changes.
fn next(rest: &[u8]) -> Result<Seq, Refused> {
    Reader::new(rest).uint().map_err(|_| unreadable())
}

/// Sends events until the peer leaves or the broker stops.
async fn events<S: Store>(
    edge: Arc<Edge<S>>,
    connection: Connection,
    requested: ChangesQuery,
    is_head: bool,
) -> Result<Response, Refused> {
    let requested = ChangesQuery { limit: None, wait_ms: HEARTBEAT_MS, ..requested };
    let prev = requested.after;
    let active_at = Instant::now();
    let mut tail = Tail { edge, connection, requested, prev, active_at, text: None };
    let body = if is_head {
        unrendered()
    } else {
        // A request that cannot be answered at all gets an error status, not a stream that breaks
        // off.
        let first = tail.piece(0).await?;
        let rest = stream::try_unfold(tail, |mut tail| async move {
            if tail.edge.store.is_stopping() && tail.text.is_none() {
                return Ok(None);
            }
            Ok::<_, Refused>(Some((tail.piece(HEARTBEAT_MS).await?, tail)))
        });
        let first = stream::once(async { Ok(first) });
        Body::from_stream(stream::StreamExt::chain(first, rest))
    };
    let mut response = streamed(answer(StatusCode::OK, body));
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

/// A reader's place in the history.
struct Tail<S> {
    edge: Arc<Edge<S>>,
    connection: Connection,
    requested: ChangesQuery,
    /// The last change that was sent.
    prev: Seq,
    /// When that change was sent.
    active_at: Instant,
    /// The page that is being sent.
    text: Option<Text<Lines>>,
}

impl<S: Store> Tail<S> {
    /// Returns the next piece of the events; a comment when there is none within `wait_ms`.
    async fn piece(&mut self, wait_ms: u64) -> Result<Bytes, Refused> {
        if self.text.is_none() {
            let requested = ChangesQuery { wait_ms, ..self.requested.clone() };
            self.connection.follows(self.active_at);
            let awaited = self.edge.store.await_changes(self.connection.caller(), &requested).await;
            if let Awaited::Something = awaited {
                self.active_at = Instant::now();
                // One commit wakes all readers.
                bulk::turn().await;
            }
            self.connection.is_served(self.active_at);
            if let Awaited::Nothing { next } = awaited {
                return Ok(self.heartbeat(next));
            }
            self.text =
                Some(made(&self.edge, &self.connection, &requested, self.prev, true).await?);
        }
        let Some(text) = &mut self.text else { return Ok(Bytes::new()) };
        let piece = text.piece().await?;
        if !text.is_whole() {
            return Ok(piece.unwrap_or_default());
        }
        let next = next(text.rest())?;
        self.prev = text.items().prev;
        self.text = None;
        self.requested.after = next;
        Ok(piece.unwrap_or_else(|| self.heartbeat(next)))
    }

    /// A comment, and an id without an event: after a reconnect, the stretch without a matching
    /// change need not be searched again.
    fn heartbeat(&mut self, next: Seq) -> Bytes {
        self.requested.after = next;
        let id = self.edge.store.id();
        Bytes::from(format!(": nothing up to {next}\nid: {id}-{next}\n\n"))
    }
}

/// Renders a page of the current history. When one large write makes the page longer than the
/// reserved memory, the page is made again once there is room.
async fn made<S: Store>(
    edge: &Edge<S>,
    connection: &Connection,
    requested: &ChangesQuery,
    prev: Seq,
    is_event: bool,
) -> Result<Text<Lines>, Refused> {
    let mut room = Room::of(connection.account());
    room.wait(edge.page_bytes).await?;
    let page = loop {
        let page = Arc::clone(&edge.store).changes(requested.clone()).await?;
        match room.grow(page.len()) {
            Ok(()) => break page,
            Err(refused) => {
                drop(page);
                room.again(refused).await?;
            }
        }
    };
    room.settle(page.len());
    let events_of = is_event.then(|| Arc::clone(edge.store.id()));
    let list = Lines::of(&page, prev, events_of).map_err(|_| unreadable())?;
    Text::begin(&edge.turns, page, room, list, b"").await
}
