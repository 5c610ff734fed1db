//! Answers of the store as JSON text, rendered in slices while their reader takes them.
//!
//! The store's answer is kept meanwhile, not the text, which may be much longer. The length of a
//! text is found by rendering it once without keeping it.

use super::json::{Length, Renderer, Sink, Spent};
use super::refuse::Refused;
use super::room::Room;
use super::turns::Turns;
use crate::protocol::reader::Read;
use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::stream;
use std::sync::Arc;

/// A shorter answer of the store is rendered at once.
const SHORT_BYTES: usize = 1024;

/// A list of items in an answer of the store, each with one value.
pub trait Items: Clone + Send + 'static {
    /// Writes the text before the value of the item at `at`; returns where that value begins,
    /// `None` when there is no further item.
    fn begin(&mut self, input: &[u8], at: usize, out: &mut impl Sink) -> Read<Option<usize>>;

    /// Writes the text after the value, which ends at `at`.
    fn end(&mut self, input: &[u8], at: usize, out: &mut impl Sink) -> Read<()>;
}

/// A list being rendered.
#[derive(Debug, Clone)]
pub struct Rendering<I> {
    /// The list.
    pub items: I,
    /// The position of the next byte to read.
    pub at: usize,
    value: Option<Renderer>,
    is_done: bool,
}

impl<I: Items> Rendering<I> {
    /// A rendering of the list whose first item is at `at`.
    pub fn new(items: I, at: usize) -> Self {
        Self { items, at, value: None, is_done: false }
    }

    /// Continues where the last call stopped, until the end of the slice or of the list.
    pub fn run(&mut self, input: &[u8], out: &mut impl Sink, spent: &mut Spent) -> Read<()> {
        while !self.is_done && !spent.is_over() {
            if let Some(value) = &mut self.value {
                value.run(input, out, spent)?;
                if let Some(end) = value.end() {
                    (self.at, self.value) = (end, None);
                    self.items.end(input, end, out)?;
                }
                continue;
            }
            let len = out.len();
            match self.items.begin(input, self.at, out)? {
                Some(begin) => {
                    spent.0 += begin - self.at + out.len() - len;
                    (self.at, self.value) = (begin, Some(Renderer::new(begin)));
                }
                None => self.is_done = true,
            }
        }
        Ok(())
    }
}

/// The text of one answer of the store: its first slice, and the rest on demand.
pub struct Text<I> {
    /// The store's answer.
    input: Bytes,
    room: Room,
    rendering: Rendering<I>,
    turns: Arc<Turns>,
    /// Text that is rendered and not taken yet.
    begun: Vec<u8>,
}

impl<I: Items> Text<I> {
    /// Renders the first slice of `input`'s text, after `before`.
    pub async fn begin(
        turns: &Arc<Turns>,
        input: Bytes,
        room: Room,
        rendering: Rendering<I>,
        before: &[u8],
    ) -> Result<Self, Refused> {
        let (turns_kept, begun) = (Arc::clone(turns), before.to_vec());
        let mut text = Self { input, room, rendering, turns: turns_kept, begun };
        let (input, rendering, begun) = (&text.input, &mut text.rendering, &mut text.begun);
        let first = |spent: &mut Spent| rendering.run(input, begun, spent);
        match input.len() <= SHORT_BYTES {
            true => turns.render(first),
            false => turns.take(first).await,
        }
        .map_err(|_| unreadable())?;
        Ok(text)
    }

    /// The list, as far as it was rendered; all of it if [`Self::is_whole`].
    pub fn items(&self) -> &I {
        &self.rendering.items
    }

    /// Whether all of it is rendered.
    pub fn is_whole(&self) -> bool {
        self.rendering.is_done
    }

    /// The bytes after the list in the store's answer; only once all of the list is rendered.
    pub fn rest(&self) -> &[u8] {
        self.input.get(self.rendering.at..).unwrap_or_default()
    }

    /// The length of the whole text, and the bytes after the list; `None` when it is over `max`.
    pub async fn measure(&self, max: usize) -> Result<Option<(usize, Rendering<I>)>, Refused> {
        let (mut rendering, mut length) = (self.rendering.clone(), Length::default());
        while !rendering.is_done {
            let slice = |spent: &mut Spent| rendering.run(&self.input, &mut length, spent);
            self.turns.take(slice).await.map_err(|_| unreadable())?;
            if length.len() + self.begun.len() > max {
                return Ok(None);
            }
        }
        Ok(Some((self.begun.len() + length.len(), rendering)))
    }

    /// The store's answer from `at` on.
    pub fn input_from(&self, at: usize) -> &[u8] {
        self.input.get(at..).unwrap_or_default()
    }

    /// The next piece of the text; `None` after the last.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Refused> {
        let mut out = std::mem::take(&mut self.begun);
        while out.is_empty() && !self.rendering.is_done {
            let slice = |spent: &mut Spent| self.rendering.run(&self.input, &mut out, spent);
            self.turns.take(slice).await.map_err(|_| unreadable())?;
        }
        Ok((!out.is_empty()).then(|| Bytes::from(out)))
    }

    /// The text as the body of an answer, followed by `after`.
    pub fn into_body(mut self, after: &'static [u8]) -> Body {
        if self.is_whole() {
            self.begun.extend_from_slice(after);
            return Body::from(self.room.hold(self.begun));
        }
        let pieces = stream::try_unfold(Some(self), move |text| async move {
            let Some(mut text) = text else { return Ok::<_, Refused>(None) };
            Ok(match text.piece().await? {
                Some(piece) => Some((piece, Some(text))),
                None => Some((Bytes::from_static(after), None)),
            })
        });
        Body::from_stream(pieces)
    }
}

/// The refusal when the store's own bytes cannot be read: a bug, never the peer's fault.
pub fn unreadable() -> Refused {
    let message = "the store answered with what is not MessagePack";
    Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", message)
}
