//! Keys and values as the members of one JSON object.

use super::json::{self, Sink};
use super::render::{Items, Rendering};
use crate::protocol::Reader;
use crate::protocol::reader::Read;

/// The pairs of `[[key, value]…]`, without the braces around them.
#[derive(Debug, Clone)]
pub struct Members {
    left: usize,
    /// How many pairs were begun.
    pub count: usize,
}

impl Members {
    /// The pairs of the list at `at`.
    pub fn at(input: &[u8], at: usize) -> Read<Rendering<Self>> {
        let mut reader = Reader::new(input.get(at..).unwrap_or_default());
        let left = reader.array_len()?;
        Ok(Rendering::new(Self { left, count: 0 }, input.len() - reader.rest().len()))
    }

    /// The pairs of a page of `range`: `[[[key, value]…], next]`.
    pub fn of_page(input: &[u8]) -> Read<Rendering<Self>> {
        let mut reader = Reader::new(input);
        reader.array_len()?;
        Self::at(input, input.len() - reader.rest().len())
    }

    /// How many pairs there are in all.
    pub fn total(&self) -> usize {
        self.count + self.left
    }
}

impl Items for Members {
    fn begin(&mut self, input: &[u8], at: usize, out: &mut impl Sink) -> Read<Option<usize>> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        let mut reader = Reader::new(input.get(at..).unwrap_or_default());
        reader.array_len()?;
        let key = reader.bytes()?;
        if self.count > 0 {
            out.write(b",");
        }
        json::render_key(key, out);
        out.write(b":");
        (self.left, self.count) = (left, self.count + 1);
        Ok(Some(input.len() - reader.rest().len()))
    }

    fn end(&mut self, _: &[u8], _: usize, _: &mut impl Sink) -> Read<()> {
        Ok(())
    }
}
