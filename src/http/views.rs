//! FlatDB's endpoints: `/get`, `/put`, `/delete`; and `/healthz`. `/getrange` is in
//! [`super::getrange`].

use super::edge::Edge;
use super::json::{Length, Sink};
use super::refuse::{Refused, answer};
use super::store::{Health, Store};
use super::{json, query};
use crate::wire::command::{DeleteMulti, GetMulti, SetMulti};
use crate::wire::params::check_key;
use crate::wire::reader::Read;
use crate::wire::{Command, Level, Reader, Refusal, writer};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use std::collections::HashSet;
use std::sync::Arc;

/// The header by which a write names its durability; in the query every name is a key.
const DURABILITY: &str = "vatn-durability";

type Answer = Result<Response, Refused>;

/// `/get?key=a&key=b`: an object of the keys found; 404 when none is, 204 when none was asked for.
pub async fn get<S: Store>(State(edge): State<Arc<Edge<S>>>, request: Request) -> Answer {
    let query = request.uri().query().unwrap_or_default();
    let asked: Vec<query::Text<'_>> = query::all(query, "key").collect();
    if asked.is_empty() {
        return Ok(answer(StatusCode::NO_CONTENT, Body::empty()));
    }
    let mut seen = HashSet::new();
    let keys: Vec<&[u8]> =
        asked.iter().map(AsRef::as_ref).filter(|key| seen.insert(*key)).collect();
    keys.iter().try_for_each(|key| check_key(key))?;
    let mut room = edge.budget.none();
    let found = edge.store.run(Command::GetMulti(GetMulti { keys }), &mut room).await?;

    let length = room.grow_for_json(found.len(), || length(Reader::new(&found)))?;
    let mut body = Vec::with_capacity(length + 2);
    body.push(b'{');
    let count = members(&mut Reader::new(&found), &mut body).map_err(|_| unreadable())?;
    body.push(b'}');
    drop(found);
    match count {
        0 => Ok(answer(StatusCode::NOT_FOUND, Body::empty())),
        _ => Ok(answer(StatusCode::OK, Body::from(room.hold(body)))),
    }
}

/// `/put?a=1&b=2`: sets all, in one atomic batch. Values are text where they are UTF-8, else bytes.
pub async fn put<S: Store>(State(edge): State<Arc<Edge<S>>>, request: Request) -> Answer {
    let durability = durability(request.headers())?;
    let query = request.uri().query().unwrap_or_default();
    let given: Vec<_> = query::pairs(query).collect();
    let packed: Vec<Vec<u8>> = given.iter().map(|(_, value)| packed(value)).collect();
    let keys = given.into_iter().map(|(key, _)| check_key(&key).map(|()| key));
    let pairs = keys.zip(&packed).map(|(key, value)| Ok((key?, value.as_slice())));
    let pairs = pairs.collect::<Result<_, Refusal>>()?;
    let set = Command::SetMulti(SetMulti { prefix: &[], pairs, ttl_ms: None, durability });
    edge.store.run(set, &mut edge.budget.none()).await?;
    Ok(answer(StatusCode::CREATED, Body::empty()))
}

/// `/delete?key=a&key=b`: deletes all, in one atomic batch; missing keys are as good as deleted.
pub async fn delete<S: Store>(State(edge): State<Arc<Edge<S>>>, request: Request) -> Answer {
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
    edge.store.run(delete, &mut edge.budget.none()).await?;
    Ok(answer(StatusCode::OK, Body::empty()))
}

/// `/healthz`: 200 while the store reads and writes, else 503 with the reason.
pub async fn health<S: Store>(State(edge): State<Arc<Edge<S>>>) -> Response {
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
    answer(status, Body::from(body))
}

/// Appends an array of `[key, value]` as the members of an object, without its braces; tells how
/// many.
pub(super) fn members(reader: &mut Reader<'_>, out: &mut impl Sink) -> Read<usize> {
    let count = reader.array_len()?;
    for index in 0..count {
        reader.array_len()?;
        if index > 0 {
            out.write(b",");
        }
        json::render_key(reader.bytes()?, out);
        out.write(b":");
        json::render(reader.value()?, out)?;
    }
    Ok(count)
}

/// How long the text of the members will be.
pub(super) fn length(mut reader: Reader<'_>) -> Result<usize, Refused> {
    let mut length = Length::default();
    members(&mut reader, &mut length).map_err(|_| unreadable())?;
    Ok(length.len())
}

/// The refusal when the store's own bytes cannot be read: a bug, never the peer's fault.
pub(super) fn unreadable() -> Refused {
    let message = "the store answered with what is not MessagePack";
    Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", message)
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
