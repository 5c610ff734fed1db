//! `changes`: the history, from memory where the feed reaches back so far, from the log otherwise.

use super::Engine;
use crate::clock::Millis;
use crate::commands::ChangesQuery;
use crate::protocol::refusal::{Code, Detail};
use crate::protocol::{Change, Op, Refusal, Seq, writer};
use crate::storage::StorageError;
use crate::wal::Record;
use crate::wal::history;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// So much of the history is looked through on an I/O thread, for a page; more is for another
/// thread.
const SMALL_BYTES: usize = 256 * 1024;
/// What a change takes in a reply besides its key and value, in bytes; an upper bound.
const CHANGE_OVERHEAD: usize = 64;
/// The longest wait, whatever was asked for.
pub(super) const WAIT_MS_MAX: Millis = 3_600_000;

/// What a wait for changes came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// There are changes, or a part of the history that is no longer in memory.
    Something,
    /// There is none up to `next`.
    Nothing {
        /// The seq up to which that is known.
        next: Seq,
    },
}

/// A page of the history while it fills.
struct Page<'q> {
    query: &'q ChangesQuery,
    items_max: usize,
    bytes_max: usize,
    /// The encoded changes.
    bytes: Vec<u8>,
    items: usize,
    /// The last seq that is in `bytes`.
    prev: Seq,
    /// The page is complete up to this seq.
    next: Seq,
    /// How many bytes of keys and values it has passed since its first change.
    passed: usize,
    /// How many bytes it may still look at.
    budget: usize,
    is_spent: bool,
    is_full: bool,
}

impl<'q> Page<'q> {
    /// Adds the matching changes of a record, whole writes only, until the page is full.
    fn add(&mut self, record: &Record) {
        let mut mark = (self.bytes.len(), self.items, self.prev);
        for change in record.changes() {
            let bytes = change.key.len() + change.value.len() + CHANGE_OVERHEAD;
            let Some(budget) = self.budget.checked_sub(bytes) else {
                self.is_spent = true;
                return;
            };
            self.budget = budget;
            if change.seq <= self.query.after {
                continue;
            }
            if self.items > 0 {
                self.passed += change.key.len() + change.value.len();
            }
            if change.index == 0 {
                mark = (self.bytes.len(), self.items, self.prev);
            }
            if change.key.starts_with(&self.query.prefix) {
                self.push(&change);
            }
            let is_over = self.items > self.items_max || self.bytes.len() > self.bytes_max;
            if is_over && mark.1 > 0 {
                self.bytes.truncate(mark.0);
                (self.items, self.prev) = (mark.1, mark.2);
                self.is_full = true;
                return;
            }
            if change.index + 1 == change.count {
                self.next = change.seq;
                let is_full = self.items >= self.items_max || self.bytes.len() >= self.bytes_max;
                if is_full || self.items > 0 && self.passed >= self.bytes_max {
                    self.is_full = true;
                    return;
                }
            }
        }
        self.next = self.next.max(record.last_seq);
    }

    fn push(&mut self, change: &Change<'_>) {
        self.bytes.reserve(change.key.len() + change.value.len() + CHANGE_OVERHEAD);
        writer::array_len(&mut self.bytes, 3);
        writer::key(&mut self.bytes, change.key);
        change.header(self.prev).encode(&mut self.bytes);
        match change.op {
            Op::Set => self.bytes.extend_from_slice(change.value),
            Op::Touch | Op::Delete | Op::Expire => writer::nil(&mut self.bytes),
        }
        self.items += 1;
        self.prev = change.seq;
    }

    /// The encoded result.
    fn finish(self) -> Bytes {
        let mut out = Vec::with_capacity(self.bytes.len() + 16);
        writer::array_len(&mut out, 2);
        writer::array_len(&mut out, self.items);
        out.extend_from_slice(&self.bytes);
        writer::uint(&mut out, self.next);
        Bytes::from(out)
    }
}

impl Engine {
    /// What there is of the history now.
    pub async fn changes_now(self: &Arc<Self>, query: ChangesQuery) -> Result<Bytes, Refusal> {
        let from = query.after.saturating_add(1);
        match self.small_page(&query, from) {
            Some(page) => Ok(page),
            None => self.large_page(&query, from, self.deferred.read().await).await,
        }
    }

    /// An empty page before which, from `query.after` on, there is nothing earlier than `from`.
    fn page_from<'q>(&self, query: &'q ChangesQuery, from: Seq, budget: usize) -> Page<'q> {
        let limits = &self.config.limits;
        Page {
            query,
            items_max: query.limit.unwrap_or(usize::MAX).min(limits.range_items),
            bytes_max: limits.range_bytes,
            bytes: Vec::new(),
            items: 0,
            prev: query.after,
            next: query.after.max(from.saturating_sub(1)),
            passed: 0,
            budget,
            is_spent: false,
            is_full: false,
        }
    }

    /// A page that is soon made; `None` where another thread is to make it.
    pub(super) fn small_page(&self, query: &ChangesQuery, from: Seq) -> Option<Bytes> {
        self.page_from_memory(self.page_from(query, from, SMALL_BYTES))
    }

    /// `None` when the feed does not reach back so far, or the page's budget is spent before.
    fn page_from_memory(&self, mut page: Page<'_>) -> Option<Bytes> {
        while !page.is_full {
            let records = self.feed.later_than(page.next, page.bytes_max)?;
            if records.is_empty() {
                break;
            }
            for record in records {
                page.add(&record);
                if page.is_spent {
                    return None;
                }
                if page.is_full {
                    break;
                }
            }
        }
        Some(page.finish())
    }

    /// Has it made by another thread, whose `turn` it is.
    pub(super) async fn large_page(
        self: &Arc<Self>,
        query: &ChangesQuery,
        from: Seq,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Bytes, Refusal> {
        let (engine, query) = (Arc::clone(self), query.clone());
        // Dropped with this future, when nobody waits for the page any more.
        let wanted = Arc::new(());
        let is_wanted = Arc::downgrade(&wanted);
        // The turn ends with the reading, also when whoever asked is gone before, and not before
        // the page is taken up.
        let read = tokio::task::spawn_blocking(move || {
            (engine.read_page(&query, from, &|| is_wanted.strong_count() > 0), turn)
        });
        let read = read.await;
        drop(wanted);
        match read {
            Ok((page, _turn)) => page,
            Err(_) => Err(unreadable("the reader stopped unexpectedly")),
        }
    }

    /// Reads a page, from the log where it is not in memory, unless it is no longer wanted.
    fn read_page(
        &self,
        query: &ChangesQuery,
        from: Seq,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Bytes, Refusal> {
        if let Some(page) = self.page_from_memory(self.page_from(query, from, usize::MAX)) {
            return Ok(page);
        }
        let mut page = self.page_from(query, from, usize::MAX);
        let start = page.next;
        let hole = self.segments.next_hole(start);
        let is_before_hole = |seq: Seq| hole.is_none_or(|hole| seq < hole.first);
        // What the log holds may be ahead of what has been shown to anyone.
        let shown = self.feed.last_seq();
        let read = history::read(self.disk.as_ref(), start, &mut |record, _| {
            let is_next = record.first_seq <= shown && is_before_hole(record.first_seq);
            if is_next {
                page.add(&record);
            }
            !page.is_full && is_next && is_wanted()
        });
        let first = self.segments.first_seq();
        if start.saturating_add(1) < first {
            return Err(compacted(first));
        }
        if let Some(hole) = hole.filter(|_| !is_before_hole(start.saturating_add(1))) {
            return Err(compacted(hole.last.saturating_add(1)));
        }
        read.map_err(|error: StorageError| unreadable(&error.to_string()))?;
        if let Some(hole) = hole.filter(|_| !page.is_full) {
            // Whoever reads on from there is told what is missing.
            page.next = page.next.max(hole.first.saturating_sub(1));
        } else if !page.is_full {
            // After a crash the seqs go on far above the last one in the log: nothing lies between.
            page.next = page.next.max(shown);
        }
        Ok(page.finish())
    }
}

/// The encoded result without a change.
pub(super) fn empty_page(next: Seq) -> Bytes {
    let mut out = Vec::with_capacity(16);
    writer::array_len(&mut out, 2);
    writer::array_len(&mut out, 0);
    writer::uint(&mut out, next);
    Bytes::from(out)
}

fn compacted(first: Seq) -> Refusal {
    let message = format!("the history before seq {first} is no longer held; take the state anew");
    Refusal::new(Code::Compacted, message).with("first", Detail::Number(first))
}

fn unreadable(what: &str) -> Refusal {
    Refusal::new(Code::Storage, format!("the history cannot be read: {what}"))
}
