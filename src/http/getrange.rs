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
use super::views::{length, members, unreadable};
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
    let Some(first) = walk.page(&edge, b'{').await? else {
        return Ok(answer(StatusCode::NOT_FOUND, Body::empty()));
    };
    if walk.is_done {
        return Ok(answer(StatusCode::OK, Body::from(first)));
    }
    let rest = stream::try_unfold((edge, walk), |(edge, mut walk)| async move {
        if walk.is_done {
            return Ok(None);
        }
        // What was left may have gone away meanwhile.
        let end = || Bytes::from_static(b"}");
        let page = walk.page(&edge, b',').await?.unwrap_or_else(end);
        Ok(Some((page, (edge, walk))))
    });
    let pages = stream::StreamExt::chain(stream::once(async { Ok::<_, Refused>(first) }), rest);
    Ok(answer(StatusCode::OK, Body::from_stream(pages)))
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

    /// The text of the next page, `before` and all, in its room; `None` where there is nothing, and
    /// the walk is done. A page that turns out longer than there is room for, by one large item,
    /// is made anew when there is.
    async fn page<S: Store>(
        &mut self,
        edge: &Edge<S>,
        before: u8,
    ) -> Result<Option<Bytes>, Refused> {
        let mut room = edge.budget.wait(edge.page_bytes).await?;
        loop {
            match self.text(&*edge.store, before, &mut room).await {
                Ok(text) => return Ok(text.map(|text| room.hold(text))),
                Err(refused) => room = room.again(refused).await?,
            }
        }
    }

    async fn text<S: Store>(
        &mut self,
        store: &S,
        before: u8,
        room: &mut Room<'_>,
    ) -> Result<Option<Vec<u8>>, Refused> {
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
        let page = store.run(Command::Range(range), room).await?;
        let mut reader = Reader::new(&page);
        reader.array_len().map_err(|_| unreadable())?;
        let length = room.grow_for_json(page.len(), || length(reader.clone()))?;
        let mut text = Vec::with_capacity(length + 2);
        text.push(before);
        let count = self.read(&mut reader, &mut text).map_err(|_| unreadable())?;
        self.is_done |= count == 0;
        if self.is_done {
            text.push(b'}');
        }
        Ok((count > 0).then_some(text))
    }

    /// Appends the members of a page; tells how many.
    fn read(&mut self, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Read<usize> {
        let count = members(reader, out)?;
        self.after = if reader.nil()? { None } else { Some(reader.bytes()?.to_vec()) };
        self.left = self.left.map(|left| left.saturating_sub(count));
        self.is_done = self.after.is_none() || self.left == Some(0);
        Ok(count)
    }
}
