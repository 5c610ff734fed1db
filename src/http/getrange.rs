//! `/getrange?from=a&to=b&prefix=c&limit=n`: the keys from `from` on, in bytewise order, as one
//! object.
//!
//! The engine gives pages. An answer that is one page has a `Content-Length`; a longer one is
//! chunked and made page by page as its reader takes it, so that a whole database passes through a
//! bounded memory. Each page is one moment of the store; a key that changes while the answer is on
//! its way may show either value.

use super::budget::Room;
use super::edge::Edge;
use super::query;
use super::refuse::{Refused, answer};
use super::store::Store;
use super::views::{members, unreadable};
use crate::wire::command::Range;
use crate::wire::reader::Read;
use crate::wire::{Command, Reader, Refusal};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use std::sync::Arc;

/// `/getrange`: 404 when there is no key in the range.
pub async fn getrange<S: Store>(
    State(edge): State<Arc<Edge<S>>>,
    request: Request,
) -> Result<Response, Refused> {
    let mut walk = Walk::new(request.uri().query().unwrap_or_default())?;
    let room = edge.budget.wait(edge.page_bytes).await?;
    let mut first = vec![b'{'];
    if walk.page(&*edge.store, &mut first).await? == 0 {
        return Ok(answer(StatusCode::NOT_FOUND, Body::empty()));
    }
    let first = walk.close(first, room);
    if walk.is_done {
        return Ok(answer(StatusCode::OK, Body::from(first)));
    }
    let rest = stream::try_unfold((edge, walk), |(edge, mut walk)| async move {
        if walk.is_done {
            return Ok(None);
        }
        let page = next_page(&edge, &mut walk).await?;
        Ok(Some((page, (edge, walk))))
    });
    let pages = stream::StreamExt::chain(stream::once(async { Ok::<_, Refused>(first) }), rest);
    Ok(answer(StatusCode::OK, Body::from_stream(pages)))
}

/// A page after the first, once the first has been taken.
async fn next_page<S: Store>(edge: &Edge<S>, walk: &mut Walk) -> Result<Bytes, Refused> {
    let room = edge.budget.wait(edge.page_bytes).await?;
    let mut page = vec![b','];
    if walk.page(&*edge.store, &mut page).await? == 0 {
        // What was left went away meanwhile.
        page.clear();
    }
    Ok(walk.close(page, room))
}

/// A walk through a range, page by page.
struct Walk {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
    prefix: Vec<u8>,
    after: Option<Vec<u8>>,
    /// How many items may still come; `None` when all may.
    left: Option<usize>,
    is_done: bool,
}

impl Walk {
    fn new(query: &str) -> Result<Self, Refused> {
        let given = |name| query::first(query, name).map(query::Text::into_owned);
        let left = match given("limit") {
            None => None,
            Some(digits) => {
                let number =
                    std::str::from_utf8(&digits).ok().and_then(|digits| digits.parse().ok());
                let positive = number.filter(|number| *number > 0);
                Some(
                    positive
                        .ok_or_else(|| Refusal::argument("limit", "must be a number from 1 on"))?,
                )
            }
        };
        Ok(Self {
            from: given("from").unwrap_or_default(),
            to: given("to"),
            prefix: given("prefix").unwrap_or_default(),
            after: None,
            left,
            is_done: false,
        })
    }

    /// Appends the members of the next page; tells how many.
    async fn page<S: Store>(&mut self, store: &S, out: &mut Vec<u8>) -> Result<usize, Refused> {
        let range = Range {
            from: Some(&self.from),
            after: self.after.as_deref(),
            to: self.to.as_deref(),
            prefix: &self.prefix,
            limit: self.left,
            reverse: false,
            keys_only: false,
            meta: false,
        };
        let page = store.run(Command::Range(range)).await?;
        out.reserve(page.len() + 16);
        self.read(&page, out).map_err(|_| unreadable())
    }

    fn read(&mut self, page: &[u8], out: &mut Vec<u8>) -> Read<usize> {
        let mut reader = Reader::new(page);
        reader.array_len()?;
        let count = members(&mut reader, out)?;
        self.after = if reader.nil()? { None } else { Some(reader.bytes()?.to_vec()) };
        self.left = self.left.map(|left| left.saturating_sub(count));
        self.is_done = self.after.is_none() || self.left == Some(0);
        Ok(count)
    }

    /// Ends the object if this was the last page, and holds the text in its room.
    fn close(&self, mut text: Vec<u8>, room: Room) -> Bytes {
        if self.is_done {
            text.push(b'}');
        }
        room.hold(text)
    }
}
