//! `changes`: the history, from memory where the feed reaches back so far, from the log otherwise.

use super::Engine;
use crate::clock::Millis;
use crate::disk::DiskError;
use crate::log::Record;
use crate::log::history;
use crate::wire::command::Changes;
use crate::wire::refusal::{Code, Detail};
use crate::wire::{Change, Op, Refusal, Seq, writer};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

/// What a change takes in a reply besides its key and value, in bytes; an upper bound.
const CHANGE_OVERHEAD: usize = 64;
/// The longest wait, whatever was asked for.
const WAIT_MS_MAX: Millis = 3_600_000;

/// A `changes` request that outlives the bytes it was decoded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesQuery {
    /// Only changes of writes later than this.
    pub after: Seq,
    /// Only changes of keys that begin with this.
    pub prefix: Vec<u8>,
    /// Most changes in the reply.
    pub limit: Option<usize>,
    /// How long to wait for a change when there is none yet.
    pub wait_ms: Millis,
}

impl From<&Changes<'_>> for ChangesQuery {
    fn from(changes: &Changes<'_>) -> Self {
        let Changes { after, prefix, limit, wait_ms } = changes;
        Self { after: *after, prefix: prefix.to_vec(), limit: *limit, wait_ms: *wait_ms }
    }
}

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
    is_full: bool,
}

impl<'q> Page<'q> {
    /// Adds the matching changes of a record, whole writes only, until the page is full.
    fn add(&mut self, record: &Record) {
        let mut mark = (self.bytes.len(), self.items, self.prev);
        for change in record.changes() {
            if change.seq <= self.query.after {
                continue;
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
                if self.items >= self.items_max || self.bytes.len() >= self.bytes_max {
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
            Op::Set | Op::Touch => self.bytes.extend_from_slice(change.value),
            Op::Delete | Op::Expire => writer::nil(&mut self.bytes),
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
    /// Answers a `changes` request when it is due: at once when there are changes, or when one
    /// comes, or when its time is up. The result is encoded.
    pub async fn changes(self: Arc<Self>, query: ChangesQuery) -> Result<Bytes, Refusal> {
        if query.wait_ms > 0 {
            self.await_changes(&query).await;
        }
        self.changes_now(query).await
    }

    /// What there is of the history now.
    pub async fn changes_now(self: &Arc<Self>, query: ChangesQuery) -> Result<Bytes, Refusal> {
        match self.page_from_memory(&query) {
            Some(page) => Ok(page),
            None => self.page_from_disk(&query, self.laters.read().await).await,
        }
    }

    /// Waits until there is a change that `query` asks for, or a write whose changes are no longer
    /// in memory, or until its time is up or the broker stops.
    pub async fn await_changes(&self, query: &ChangesQuery) -> Awaited {
        let deadline = Instant::now() + Duration::from_millis(query.wait_ms.min(WAIT_MS_MAX));
        let mut news = self.feed.subscribe();
        let mut progress = self.watermarks.subscribe();
        let mut after = query.after;
        loop {
            news.mark_unchanged();
            let records = self.feed.later_than(after, usize::MAX);
            let Some(records) = records else { return Awaited::Something };
            let mut changes = records.iter().flat_map(|record| record.changes());
            if changes.any(|change| change.seq > after && change.key.starts_with(&query.prefix)) {
                return Awaited::Something;
            }
            // What did not match need not be looked at again.
            after = records.last().map_or(after, |record| record.last_seq.max(after));
            if Instant::now() >= deadline || progress.borrow().is_stopping {
                return Awaited::Nothing { next: after };
            }
            tokio::select! {
                _ = news.changed() => {}
                _ = progress.wait_for(|progress| progress.is_stopping) => {}
                () = sleep_until(deadline) => {}
            }
        }
    }

    fn empty_page<'q>(&self, query: &'q ChangesQuery) -> Page<'q> {
        let limits = &self.config.limits;
        Page {
            query,
            items_max: query.limit.unwrap_or(usize::MAX).min(limits.range_items),
            bytes_max: limits.range_bytes,
            bytes: Vec::new(),
            items: 0,
            prev: query.after,
            next: query.after,
            is_full: false,
        }
    }

    /// `None` when the feed does not reach back so far.
    pub(super) fn page_from_memory(&self, query: &ChangesQuery) -> Option<Bytes> {
        let mut page = self.empty_page(query);
        while !page.is_full {
            let records = self.feed.later_than(page.next, page.bytes_max)?;
            if records.is_empty() {
                break;
            }
            for record in records {
                page.add(&record);
                if page.is_full {
                    break;
                }
            }
        }
        Some(page.finish())
    }

    /// Has it read by another thread, whose `turn` it is.
    pub(super) async fn page_from_disk(
        self: &Arc<Self>,
        query: &ChangesQuery,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Bytes, Refusal> {
        let (engine, query) = (Arc::clone(self), query.clone());
        // Dropped with this future, when nobody waits for the page any more.
        let wanted = Arc::new(());
        let is_wanted = Arc::downgrade(&wanted);
        // The turn ends with the reading, also when whoever asked is gone before, and not before
        // the page is taken up.
        let read = tokio::task::spawn_blocking(move || {
            (engine.read_page(&query, &|| is_wanted.strong_count() > 0), turn)
        });
        let read = read.await;
        drop(wanted);
        match read {
            Ok((page, _turn)) => page,
            Err(_) => Err(unreadable("the reader stopped unexpectedly")),
        }
    }

    /// Reads a page from the log, unless it is no longer wanted.
    fn read_page(
        &self,
        query: &ChangesQuery,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Bytes, Refusal> {
        let mut page = self.empty_page(query);
        // What the log holds may be ahead of what has been shown to anyone.
        let shown = self.feed.last_seq();
        let read = history::read(self.disk.as_ref(), query.after, &mut |record, _| {
            if record.first_seq <= shown {
                page.add(&record);
            }
            !page.is_full && record.first_seq <= shown && is_wanted()
        });
        let first = self.segments.first_seq();
        if query.after.saturating_add(1) < first {
            return Err(compacted(first));
        }
        read.map_err(|error: DiskError| unreadable(&error.to_string()))?;
        if !page.is_full {
            // After a crash the seqs go on far above the last one in the log: nothing lies between.
            page.next = page.next.max(shown);
        }
        Ok(page.finish())
    }
}

fn compacted(first: Seq) -> Refusal {
    let message = format!("the history before seq {first} is no longer held; take the state anew");
    Refusal::new(Code::Compacted, message).with("first", Detail::Number(first))
}

fn unreadable(what: &str) -> Refusal {
    Refusal::new(Code::Storage, format!("the history cannot be read: {what}"))
}
