//! `range`.

use super::access::{Access, Keys, Right, Visited};
use super::cost::CommandCost;
use super::method::{Effects, Method, ReadMethod};
use super::options;
use crate::budget::Cost;
use crate::protocol::params::Params;
use crate::protocol::reply::Shown;
use crate::protocol::{Refusal, Reply};
use crate::state::map::{Entry, prefix_end};
use crate::state::read_set::ReadSet;
use crate::state::{Context, REPLY_LIMIT, Store};
use std::ops::Bound;

/// The bytes that an item of a page takes besides its key and value; an upper bound.
pub(super) const ITEM_OVERHEAD: usize = 40;

/// `range [{from, after, to, prefix, limit, reverse, keys_only, meta}]`: `[[[key, value]…], next or
/// nil]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Range<'a> {
    /// The first key, inclusive.
    pub from: Option<&'a [u8]>,
    /// A cursor: only keys strictly beyond it, in the direction of travel.
    pub after: Option<&'a [u8]>,
    /// The end, exclusive.
    pub to: Option<&'a [u8]>,
    /// Only keys that begin with this.
    pub prefix: &'a [u8],
    /// Most items in the reply; `None` for the broker's cap.
    pub limit: Option<usize>,
    /// From the last key to the first.
    pub reverse: bool,
    /// Keys without their values.
    pub keys_only: bool,
    /// Values with their properties, as `get` with `meta` returns them.
    pub meta: bool,
}

impl<'a> Method<'a> for Range<'a> {
    const NAME: &'static str = "range";
    const EFFECTS: Effects = Effects::WALKS;

    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let mut range = Self::default();
        let known = ["from", "after", "to", "prefix", "limit", "reverse", "keys_only", "meta"];
        params.options(&known, |name, reader| {
            match name {
                "limit" => range.limit = Some(options::limit(reader)?),
                "reverse" => range.reverse = options::flag(name, reader)?,
                "meta" => range.meta = options::flag(name, reader)?,
                "keys_only" => range.keys_only = options::flag(name, reader)?,
                bound => {
                    let bytes = reader.bytes().map_err(|fault| fault.at(name))?;
                    match bound {
                        "from" => range.from = Some(bytes),
                        "after" => range.after = Some(bytes),
                        "to" => range.to = Some(bytes),
                        _ => range.prefix = bytes,
                    }
                }
            }
            Ok(())
        })?;
        if range.meta && range.keys_only {
            return Err(Refusal::argument(
                "meta",
                "tells of values, and keys_only leaves them out",
            ));
        }
        Ok(range)
    }

    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        let Self { prefix, from, to, .. } = *self;
        visit(Access { right: Right::Read, keys: Keys::Range { prefix, from, to } })
    }

    fn cost(&self) -> CommandCost {
        CommandCost::read(1, 0)
    }
}

impl<'a> ReadMethod<'a> for Range<'a> {
    fn run<'s>(
        &self,
        store: &'s Store,
        context: &Context,
        seen: &mut ReadSet,
    ) -> Result<Reply<'s>, Refusal> {
        seen.barrier.join(store.removals());
        let between = self.entries(store);
        match self.reverse {
            true => page(between.rev(), self, context, seen),
            false => page(between, self, context, seen),
        }
    }
}

impl Range<'_> {
    /// The entries in the range, in the order of their keys.
    pub(super) fn entries<'s>(
        &self,
        store: &'s Store,
    ) -> impl DoubleEndedIterator<Item = (&'s [u8], Entry<'s>)> + use<'s> {
        let end = prefix_end(self.prefix);
        let (lower, upper) = bounds(self, end.as_deref());
        store.entries_between(lower, upper)
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
    seen: &mut ReadSet,
) -> Result<Reply<'s>, Refusal> {
    let most = range.limit.unwrap_or(usize::MAX).min(context.page_items);
    let mut items: Vec<(&[u8], Shown<'_>)> = Vec::with_capacity(most.min(128));
    let mut bytes = 0;
    let mut passed = 0;
    for (key, entry) in between {
        passed += 1;
        seen.pass(1);
        if !Cost::new(passed, bytes).fits(context.walk) {
            return Err(Refusal::too_large(REPLY_LIMIT, context.reply_bytes));
        }
        if !entry.head.is_live(context.now) {
            // Its absence shows that it expired, so the reply waits for its write.
            seen.barrier.require(entry.head.level, entry.head.seq);
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
        seen.barrier.require(entry.head.level, entry.head.seq);
        items.push((key, shown));
    }
    Ok(Reply::Page { items, next: None })
}
