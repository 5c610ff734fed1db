//! FlatDB's endpoints: `/get`, `/put`, `/delete`; and `/healthz`. `/getrange` is in
//! [`super::getrange`].

use super::connection::Connection;
use super::members::Members;
use super::refuse::{Refused, answer};
use super::render::{Text, unreadable};
use super::room::Room;
use super::store::{Health, Store};
use super::view::{Edge, unrendered};
use super::{json, query};
use crate::commands::Command;
use crate::commands::{Batch, DeleteMulti, GetMulti, Range, SetMulti};
use crate::protocol::params::check_key;
use crate::protocol::reader::Read;
use crate::protocol::{Level, Reader, Refusal, writer};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use std::collections::HashSet;
use std::sync::Arc;

/// The header in which a write names its durability; in the query every name is a key.
const DURABILITY: &str = "vatn-durability";

type Answer = Result<Response, Refused>;

/// `/get?key=a&key=b`: an object of the keys found; 404 when none is found, 204 when none is
/// requested.
pub async fn get<S: Store>(
    State(edge): State<Arc<Edge<S>>>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Answer {
    let query = request.uri().query().unwrap_or_default();
    let requested: Vec<query::Text<'_>> = query::all(query, "key").collect();
    if requested.is_empty() {
        return Ok(answer(StatusCode::NO_CONTENT, Body::empty()));
    }
    let mut seen = HashSet::new();
    let keys: Vec<&[u8]> =
        requested.iter().map(AsRef::as_ref).filter(|key| seen.insert(*key)).collect();
    keys.iter().try_for_each(|key| check_key(key))?;
    if request.method() == Method::HEAD {
        let is_found = finds_any(&*edge.store, &connection, &keys).await?;
        return Ok(match is_found {
            true => answer(StatusCode::OK, unrendered()),
            false => answer(StatusCode::NOT_FOUND, Body::empty()),
        });
    }
    let mut room = Room::of(connection.account());
    let found = edge.read(&connection, Command::GetMulti(GetMulti { keys }), &mut room).await?;
    let list = Members::at(&found, 0).map_err(|_| unreadable())?;
    if list.items.total() == 0 {
        return Ok(answer(StatusCode::NOT_FOUND, Body::empty()));
    }
    let text = Text::begin(&edge.turns, found, room, list, b"{").await?;
    let Some((len, _)) = text.measure(edge.answer_bytes).await? else {
        return Err(too_long(edge.answer_bytes));
    };
    let mut response = answer(StatusCode::OK, text.into_body(b"}"));
    response.headers_mut().insert(CONTENT_LENGTH, (len + 1).into());
    Ok(response)
}

/// Whether any of the keys exists; reads no value.
async fn finds_any<S: Store>(
    store: &S,
    connection: &Connection,
    keys: &[&[u8]],
) -> Result<bool, Refused> {
    let ends: Vec<Vec<u8>> = keys.iter().map(|key| [key, b"\0".as_slice()].concat()).collect();
    let one = |(key, end)| {
        let (from, to) = (Some(key), Some(end));
        Command::Range(Range { from, to, keys_only: true, limit: Some(1), ..Range::default() })
    };
    let ends = ends.iter().map(Vec::as_slice);
    let commands = keys.iter().copied().zip(ends).map(one).collect();
    let batch = Command::Batch(Batch { commands, durability: None });
    let found = store.run(connection.caller(), batch, |_| Ok(())).await?;
    let mut pages = Reader::new(&found);
    let mut is_found = false;
    let read = (|| {
        for _ in 0..pages.array_len()? {
            let mut page = Reader::new(pages.value()?);
            page.array_len()?;
            is_found |= page.array_len()? > 0;
        }
        Read::Ok(())
    })();
    read.map_err(|_| unreadable())?;
    Ok(is_found)
}

/// The refusal of an answer whose text is over the limit.
fn too_long(max: usize) -> Refused {
    let message = format!(
        "the JSON of this answer is over http_answer_bytes ({max}): ask for fewer keys, take the \
         value with /getrange, which is streamed, or over ZeroMQ, or raise --http-answer-bytes"
    );
    Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", message)
}

/// `/put?a=1&b=2`: sets all keys in one atomic batch. Values are text where they are UTF-8, else
/// bytes.
pub async fn put<S: Store>(
    State(edge): State<Arc<Edge<S>>>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Answer {
    let durability = durability(request.headers())?;
    let query = request.uri().query().unwrap_or_default();
    let given: Vec<_> = query::pairs(query).collect();
    let packed: Vec<Vec<u8>> = given.iter().map(|(_, value)| packed(value)).collect();
    let keys = given.into_iter().map(|(key, _)| check_key(&key).map(|()| key));
    let pairs = keys.zip(&packed).map(|(key, value)| Ok((key?, value.as_slice())));
    let pairs = pairs.collect::<Result<_, Refusal>>()?;
    let set = Command::SetMulti(SetMulti { prefix: &[], pairs, expiry: None, durability });
    edge.store.run(connection.caller(), set, |_| Ok(())).await?;
    Ok(answer(StatusCode::CREATED, Body::empty()))
}

/// `/delete?key=a&key=b`: deletes all keys in one atomic batch; missing keys are ignored.
pub async fn delete<S: Store>(
    State(edge): State<Arc<Edge<S>>>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Answer {
    let durability = durability(request.headers())?;
    let query = request.uri().query().unwrap_or_default();
    let mut seen = HashSet::new();
    let mut keys = Vec::new();
    for key in query::all(query, "key") {
        check_key(&key)?;
        if seen.insert(key.clone()) {
            keys.push(key);
        }
    }
    let delete = Command::DeleteMulti(DeleteMulti { prefix: &[], keys, durability });
    edge.store.run(connection.caller(), delete, |_| Ok(())).await?;
    Ok(answer(StatusCode::OK, Body::empty()))
}

/// `/healthz`: 200 while the store reads and writes, else 503 with the reason.
pub async fn health<S: Store>(State(edge): State<Arc<Edge<S>>>, request: Request) -> Answer {
    query::check_names(request.uri().query().unwrap_or_default(), &[])?;
    let (status, name, reason) = match edge.store.health() {
        Health::Ok => (StatusCode::OK, "ok", None),
        Health::Failed(reason) => (StatusCode::SERVICE_UNAVAILABLE, "failed", Some(reason)),
        Health::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping", None),
    };
    let mut body = format!("{{\"status\":\"{name}\"").into_bytes();
    if let Some(reason) = reason {
        body.extend_from_slice(b",\"reason\":");
        json::string(&reason, &mut body);
    }
    body.push(b'}');
    Ok(answer(status, Body::from(body)))
}

/// A value as it is stored.
fn packed(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 5);
    match std::str::from_utf8(value) {
        Ok(text) => writer::str(&mut out, text),
        Err(_) => writer::bin(&mut out, value),
    }
    out
}

fn durability(headers: &HeaderMap) -> Result<Option<Level>, Refused> {
    let Some(value) = headers.get(DURABILITY) else { return Ok(None) };
    let level = Level::from_name(value.as_bytes()).map(Some);
    level.ok_or_else(|| {
        Refusal::argument("Vatn-Durability", "must be memory, queued, stored or synced").into()
    })
}
