//! `range` and `count`.

use super::map::{Entry, prefix_end};
use super::read::Sight;
use super::{Context, REPLY_LIMIT, Store};
use crate::budget::Cost;
use crate::clock::Millis;
use crate::wire::command::{Count, Range};
use crate::wire::reply::Shown;
use crate::wire::{Refusal, Reply};
use std::ops::Bound;

/// What an item of a page takes besides its key and value, in bytes; an upper bound.
pub(super) const ITEM_OVERHEAD: usize = 40;

impl Store {
    pub(super) fn range<'s>(
        &'s self,
        range: &Range<'_>,
        context: &Context,
        sight: &mut Sight,
    ) -> Result<Reply<'s>, Refusal> {
        sight.gate.join(self.removals);
        let end = prefix_end(range.prefix);
        let (lower, upper) = bounds(range, end.as_deref());
        let between = self.map.range(lower, upper);
        if range.reverse {
            page(between.rev(), range, context, sight)
        } else {
            page(between, range, context, sight)
        }
    }

    pub(super) fn count(&self, count: &Count<'_>, now: Millis, sight: &mut Sight) -> Reply<'_> {
        sight.gate.join(self.writes);
        sight.pass(1);
        let expired = self.map.expired(now).inspect(|_| sight.pass(1));
        let expired = expired.filter(|key| key.starts_with(count.prefix)).count();
        Reply::Uint(self.map.count(count.prefix).saturating_sub(expired) as u64)
    }
}

/// The tightest bounds that `from`, `after`, `to` and `prefix` set together.
pub(super) fn bounds<'b>(
    range: &Range<'b>,
    end: Option<&'b [u8]>,
) -> (Bound<&'b [u8]>, Bound<&'b [u8]>) {
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
    sight: &mut Sight,
) -> Result<Reply<'s>, Refusal> {
    let most = range.limit.unwrap_or(usize::MAX).min(context.page_items);
    let mut items: Vec<(&[u8], Shown<'_>)> = Vec::with_capacity(most.min(128));
    let mut bytes = 0;
    let mut passed = 0;
    for (key, entry) in between {
        passed += 1;
        sight.pass(1);
        if !Cost::new(passed, bytes).fits(context.walk) {
            return Err(Refusal::too_large(REPLY_LIMIT, context.reply_bytes));
        }
        if !entry.head.is_live(context.now) {
            // Whoever misses it sees that it was there.
            sight.gate.require(entry.head.level, entry.head.seq);
            continue;
        }
        let shown = match (range.keys_only, range.meta) {
            (true, _) => Shown::Key,
            (false, true) => Shown::Meta(entry.meta(context.now)),
            (false, false) => Shown::Value(entry.shown()),
        };
        let value_bytes = if range.keys_only { 0 } else { entry.value.len() };
        let size = key.len() + value_bytes + ITEM_OVERHEAD;
        let is_full = items.len() == most || bytes + size > context.page_bytes;
        if is_full && !items.is_empty() {
            let next = items.last().map(|(key, _)| *key);
            return Ok(Reply::Page { items, next });
        }
        bytes += size;
        sight.gate.require(entry.head.level, entry.head.seq);
        items.push((key, shown));
    }
    Ok(Reply::Page { items, next: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::command::Set;
    use crate::wire::{ChangeBuffer, Command, Level};

    #[test]
    fn a_count_looks_only_at_what_has_expired_unseen() {
        let context = |now| Context::unbounded(now, Level::Queued);
        let (mut store, mut changes) = (Store::default(), ChangeBuffer::default());
        for number in 0..10_u8 {
            let key = vec![b'a' + number % 2, number];
            let ttl_ms = (number < 3).then_some(5);
            let set =
                Set { key: key.into(), value: b"\x01", ttl_ms, condition: None, durability: None };
            assert!(store.apply(&Command::Set(set), &context(1), &mut changes).reply.is_ok());
        }
        for (now, prefix, found, looks) in [
            (2, &b""[..], 10, 1),
            (2, b"a", 5, 1),
            (9, b"", 7, 4),
            (9, b"a", 3, 4),
            (9, b"b", 4, 4),
        ] {
            let mut sight = Sight::default();
            let counted = store.count(&Count { prefix }, now, &mut sight);
            assert!(matches!(counted, Reply::Uint(count) if count == found), "{prefix:?} at {now}");
            assert_eq!(sight.cost.entries, looks, "{prefix:?} at {now}");
        }
        let mut sight = Sight::default();
        let two = Range { limit: Some(2), ..Range::default() };
        assert!(store.range(&two, &context(9), &mut sight).is_ok());
        assert_eq!(
            sight.cost.entries, 5,
            "two expired ones, two items, and the one that ends the page"
        );
    }
}
