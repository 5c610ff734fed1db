//! Changes as JSON: an object a line, or as server-sent events.

use super::json::{self, Sink};
use super::render::{Items, Rendering};
use crate::protocol::reader::Read;
use crate::protocol::{Reader, Seq};
use std::sync::Arc;

/// The changes of a page: `[[[key, header, value]…], next]`.
#[derive(Debug, Clone)]
pub struct Lines {
    left: usize,
    /// The seq of the change before the next one.
    pub prev: Seq,
    /// The store's id, which events have in their own; `None` for lines.
    events_of: Option<Arc<str>>,
}

impl Lines {
    /// The changes of a page that come after `prev`.
    pub fn of(page: &[u8], prev: Seq, events_of: Option<Arc<str>>) -> Read<Rendering<Self>> {
        let mut reader = Reader::new(page);
        reader.array_len()?;
        let left = reader.array_len()?;
        Ok(Rendering::new(Self { left, prev, events_of }, page.len() - reader.rest().len()))
    }
}

impl Items for Lines {
    fn begin(&mut self, input: &[u8], at: usize, out: &mut impl Sink) -> Read<Option<usize>> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        let mut reader = Reader::new(input.get(at..).unwrap_or_default());
        reader.array_len()?;
        let key = reader.bytes()?;
        reader.array_len()?;
        let seq = reader.uint()?;
        let op = String::from_utf8_lossy(reader.bytes()?);
        let (index, count) = (reader.uint()?, reader.uint()?);
        reader.value()?;
        let ttl_ms = if reader.nil()? { None } else { Some(reader.uint()?) };
        let level = String::from_utf8_lossy(reader.bytes()?);
        let prev = std::mem::replace(&mut self.prev, seq);
        let start = if self.events_of.is_some() { "data: " } else { "" };
        let ttl_ms = ttl_ms.map_or_else(|| "null".to_owned(), |ttl_ms| ttl_ms.to_string());
        let head = format_args!(
            "{start}{{\"seq\":{seq},\"op\":\"{op}\",\"index\":{index},\"count\":{count},\
             \"prev\":{prev},\"ttl_ms\":{ttl_ms},\"level\":\"{level}\",\"key\":"
        );
        json::print(out, head);
        json::render_key(key, out);
        out.write(b",\"value\":");
        self.left = left;
        Ok(Some(input.len() - reader.rest().len()))
    }

    fn end(&mut self, input: &[u8], at: usize, out: &mut impl Sink) -> Read<()> {
        let Some(store) = &self.events_of else {
            out.write(b"}\n");
            return Ok(());
        };
        // An id says that everything up to it was sent: only the last change of a write has one.
        let seq = self.prev;
        let next = Reader::new(input.get(at..).unwrap_or_default());
        match self.left == 0 || seq_of(next)? != seq {
            true => json::print(out, format_args!("}}\nid: {store}-{seq}\n\n")),
            false => out.write(b"}\n\n"),
        }
        Ok(())
    }
}

/// The seq of the change that comes next.
fn seq_of(mut changes: Reader<'_>) -> Read<Seq> {
    changes.array_len()?;
    changes.value()?;
    changes.array_len()?;
    changes.uint()
}
