//! `range` and `count`.

use super::map::{Entry, prefix_end};
use super::{Context, Store};
use crate::clock::Millis;
use crate::wire::command::{Count, Range};
use crate::wire::reply::Shown;
use crate::wire::{Gate, Reply};
use std::ops::Bound;

/// What an item of a page takes besides its key and value, in bytes; an upper bound.
const ITEM_OVERHEAD: usize = 40;

impl Store {
    pub(super) fn range<'s>(
        &'s self,
        range: &Range<'_>,
        context: &Context,
        gate: &mut Gate,
    ) -> Reply<'s> {
        gate.join(self.removals);
        let end = prefix_end(range.prefix);
        let (lower, upper) = bounds(range, end.as_deref());
        let between = self.map.range(lower, upper);
        if range.reverse {
            page(between.rev(), range, context, gate)
        } else {
            page(between, range, context, gate)
        }
    }

    pub(super) fn count(&self, count: &Count<'_>, now: Millis, gate: &mut Gate) -> Reply<'_> {
        gate.join(self.writes);
        let expired = self.map.count_expired(count.prefix, now);
        Reply::Uint((self.map.count(count.prefix) - expired) as u64)
    }
}

/// The tightest bounds that `from`, `after`, `to` and `prefix` set together.
fn bounds<'b>(range: &Range<'b>, end: Option<&'b [u8]>) -> (Bound<&'b [u8]>, Bound<&'b [u8]>) {
    let from = range.from.unwrap_or(&[]).max(range.prefix);
    let to = match (range.to, end) {
        (Some(to), Some(end)) => Some(to.min(end)),
        (to, end) => to.or(end),
    };
    let mut lower = Bound::Included(from);
    let mut upper = to.map_or(Bound::Unbounded, Bound::Excluded);
    match range.after {
        Some(after) if range.reverse && to.is_none_or(|to| after < to) => {
            upper = Bound::Excluded(after)
        }
        Some(after) if !range.reverse && after >= from => lower = Bound::Excluded(after),
        _ => {}
    }
    (lower, upper)
}

fn page<'s>(
    between: impl Iterator<Item = (&'s [u8], Entry<'s>)>,
    range: &Range<'_>,
    context: &Context,
    gate: &mut Gate,
) -> Reply<'s> {
    let most = range.limit.unwrap_or(usize::MAX).min(context.page_items);
    let mut items: Vec<(&[u8], Shown<'_>)> = Vec::with_capacity(most.min(128));
    let mut bytes = 0;
    for (key, entry) in between.filter(|(_, entry)| entry.head.is_live(context.now)) {
        let shown = match (range.keys_only, range.meta) {
            (true, _) => Shown::Key,
            (false, true) => Shown::Meta(entry.meta(context.now)),
            (false, false) => Shown::Value(entry.value),
        };
        let value_bytes = if range.keys_only { 0 } else { entry.value.len() };
        let size = key.len() + value_bytes + ITEM_OVERHEAD;
        let is_full = items.len() == most || bytes + size > context.page_bytes;
        if is_full && !items.is_empty() {
            let next = items.last().map(|(key, _)| *key);
            return Reply::Page { items, next };
        }
        bytes += size;
        gate.require(entry.head.level, entry.head.seq);
        items.push((key, shown));
    }
    Reply::Page { items, next: None }
}
