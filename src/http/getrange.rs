//! `/getrange?from=a&to=b&prefix=c&limit=n`: the keys from `from` on, in bytewise order, as one
//! object.
//!
//! The engine returns pages. An answer of one page has a `Content-Length`. A longer one is chunked
//! and rendered page by page as its reader takes it, so that a whole database passes through
//! bounded memory. Each page shows one moment of the store; a key that changes during the answer
//! may show either value.

use super::connection::Connection;
use super::members::Members;
use super::query;
use super::refuse::{Refused, answer};
use super::render::{Text, unreadable};
use super::room::Room;
use super::store::Store;
use super::view::{Edge, streamed, unrendered};
use crate::commands::Command;
use crate::commands::Range;
use crate::protocol::reader::Read;
use crate::protocol::{Reader, Refusal};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use std::sync::Arc;

/// `/getrange`: 404 when there is no key in the range.
pub async fn getrange<S: Store>(
    State(edge): State<Arc<Edge<S>>>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Result<Response, Refused> {
    let walk = Walk::new(request.uri().query().unwrap_or_default())?;
    if request.method() == Method::HEAD {
        return Ok(match walk.finds_any(&*edge.store, &connection).await? {
            true => answer(StatusCode::OK, unrendered()),
            false => answer(StatusCode::NOT_FOUND, Body::empty()),
        });
    }
    let Some(text) = walk.page(&edge, &connection, b"{").await? else {
        return Ok(answer(StatusCode::NOT_FOUND, Body::empty()));
    };
    let measured = text.measure(edge.answer_bytes).await?;
    if let Some((len, end)) = measured
        && walk.next(text.input_from(end.at), end.items.count).is_ok_and(|next| next.is_none())
    {
        let mut response = answer(StatusCode::OK, text.into_body(b"}"));
        response.headers_mut().insert(CONTENT_LENGTH, (len + 1).into());
        return Ok(response);
    }
    let pages = Pages { edge, connection, walk: Some(walk), text: Some(text) };
    let pieces = stream::try_unfold(pages, |mut pages| async move {
        Ok::<_, Refused>(pages.piece().await?.map(|piece| (piece, pages)))
    });
    Ok(streamed(answer(StatusCode::OK, Body::from_stream(pieces))))
}

/// The pages of an answer that is longer than one.
struct Pages<S> {
    edge: Arc<Edge<S>>,
    connection: Connection,
    /// Where the next page begins; `None` after the end.
    walk: Option<Walk>,
    /// The page that is being sent.
    text: Option<Text<Members>>,
}

impl<S: Store> Pages<S> {
    async fn piece(&mut self) -> Result<Option<Bytes>, Refused> {
        loop {
            if let Some(text) = &mut self.text {
                if let Some(piece) = text.piece().await? {
                    return Ok(Some(piece));
                }
                let walk = self.walk.take();
                let next = walk.map(|walk| walk.next(text.rest(), text.items().count)).transpose();
                (self.walk, self.text) = (next.map_err(|_| unreadable())?.flatten(), None);
                if self.walk.is_none() {
                    return Ok(Some(Bytes::from_static(b"}")));
                }
            }
            let Some(walk) = &self.walk else { return Ok(None) };
            self.text = walk.page(&self.edge, &self.connection, b",").await?;
            if self.text.is_none() {
                // The rest was deleted meanwhile.
                self.walk = None;
                return Ok(Some(Bytes::from_static(b"}")));
            }
        }
    }
}

/// A position in a range, from which a page is read.
struct Walk {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
    prefix: Vec<u8>,
    after: Option<Vec<u8>>,
    /// How many items may still be sent; `None` for no limit.
    left: Option<usize>,
}

impl Walk {
    fn new(query: &str) -> Result<Self, Refused> {
        query::check_known(query, &["from", "to", "prefix", "limit"])?;
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
        })
    }

    fn range(&self) -> Range<'_> {
        Range {
            from: Some(&self.from),
            after: self.after.as_deref(),
            to: self.to.as_deref(),
            prefix: &self.prefix,
            limit: self.left,
            reverse: false,
            keys_only: false,
            meta: false,
        }
    }

    /// Whether the range has any key; reads no value.
    async fn finds_any<S: Store>(
        &self,
        store: &S,
        connection: &Connection,
    ) -> Result<bool, Refused> {
        let range = Range { keys_only: true, limit: Some(1), ..self.range() };
        let page = store.run(connection.caller(), Command::Range(range), |_| Ok(())).await?;
        let mut reader = Reader::new(&page);
        let found = reader.array_len().and_then(|_| reader.array_len());
        Ok(found.map_err(|_| unreadable())? > 0)
    }

    /// The text of the page with `before` in front; `None` for an empty page.
    async fn page<S: Store>(
        &self,
        edge: &Edge<S>,
        connection: &Connection,
        before: &[u8],
    ) -> Result<Option<Text<Members>>, Refused> {
        let mut room = Room::of(connection.account());
        room.wait(edge.page_bytes).await?;
        let page = edge.read(connection, Command::Range(self.range()), &mut room).await?;
        room.settle(page.len());
        let list = Members::of_page(&page).map_err(|_| unreadable())?;
        if list.items.total() == 0 {
            return Ok(None);
        }
        Text::begin(&edge.turns, page, room, list, before).await.map(Some)
    }

    /// Where the next page begins, after a page with `count` items; `rest` is the bytes after them.
    fn next(&self, rest: &[u8], count: usize) -> Read<Option<Self>> {
        let mut reader = Reader::new(rest);
        let after = if reader.nil()? { None } else { Some(reader.bytes()?.to_vec()) };
        let left = self.left.map(|left| left.saturating_sub(count));
        if after.is_none() || left == Some(0) {
            return Ok(None);
        }
        let (from, to, prefix) = (self.from.clone(), self.to.clone(), self.prefix.clone());
        Ok(Some(Self { from, to, prefix, after, left }))
    }
}
