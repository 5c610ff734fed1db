//! `delete_range`.

use super::access::{Access, Keys, Right, Visited};
use super::cost::CommandCost;
use super::method::{Effects, Method, WriteMethod};
use super::options::{self, WriteOptions};
use super::outcome::Outcome;
use super::range::{ITEM_OVERHEAD, Range};
use crate::budget::Cost;
use crate::protocol::params::Params;
use crate::protocol::{Level, Refusal, Reply, WriteCost, writer};
use crate::state::write::Write;
use crate::state::{Context, Store};

/// `delete_range [{from, to, prefix, after, limit, durability}]`: `[count, next or nil]`, one
/// atomic write.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteRange<'a> {
    /// The first key, inclusive.
    pub from: Option<&'a [u8]>,
    /// The end, exclusive.
    pub to: Option<&'a [u8]>,
    /// Only keys that begin with this.
    pub prefix: Option<&'a [u8]>,
    /// A cursor: only keys above it.
    pub after: Option<&'a [u8]>,
    /// Most keys to delete; `None` for the broker's cap.
    pub limit: Option<usize>,
    /// When the reply may be sent.
    pub durability: Option<Level>,
}

impl<'a> Method<'a> for DeleteRange<'a> {
    const NAME: &'static str = "delete_range";
    const EFFECTS: Effects = Effects::REMOVES;

    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let (mut range, mut given) = (Self::default(), WriteOptions::default());
        let known = ["from", "to", "prefix", "after", "limit", "durability"];
        params.options(&known, |name, reader| {
            match name {
                "limit" => range.limit = Some(options::limit(reader)?),
                "durability" => given.read(name, reader)?,
                bound => {
                    let bytes = Some(reader.bytes().map_err(|fault| fault.at(name))?);
                    match bound {
                        "from" => range.from = bytes,
                        "to" => range.to = bytes,
                        "prefix" => range.prefix = bytes,
                        _ => range.after = bytes,
                    }
                }
            }
            Ok(())
        })?;
        if range.from.or(range.to).or(range.prefix).is_none() {
            let what = "is missing, and so are from and to; give one of them (an empty prefix \
                        stands for all keys)";
            return Err(Refusal::argument("prefix", what));
        }
        Ok(Self { durability: given.durability, ..range })
    }

    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        let Self { from, to, .. } = *self;
        let keys = Keys::Range { prefix: self.prefix.unwrap_or_default(), from, to };
        visit(Access { right: Right::Write, keys })
    }

    /// The room of one change; the keys in the range are known only when the command runs.
    fn cost(&self) -> CommandCost {
        let entries = self.limit.unwrap_or(usize::MAX);
        CommandCost { work: Cost::new(entries, 0), write: WriteCost::of(0, 0) }
    }

    fn durability(&self) -> Option<Level> {
        self.durability
    }
}

/// The keys in one page.
struct Passed {
    keys: Vec<Box<[u8]>>,
    /// Whether the range holds more.
    has_next: bool,
}

impl<'a> WriteMethod<'a> for DeleteRange<'a> {
    fn run(&self, store: &mut Store, write: &mut Write<'_>) -> Result<Outcome<'static>, Refusal> {
        write.has_many();
        let Passed { keys, has_next } = self.pass(store, write);
        write.looks += keys.len();
        let mut deleted = 0;
        for key in &keys {
            deleted += u64::from(store.delete(store.hashed(key, None), write));
        }
        // Keys missing between these, or after the last one, may have been removed just now.
        write.barrier.join(store.removals());
        let mut reply = Vec::new();
        writer::array_len(&mut reply, 2);
        writer::uint(&mut reply, deleted);
        match keys.last().filter(|_| has_next) {
            Some(next) => writer::key(&mut reply, next),
            None => writer::nil(&mut reply),
        }
        Ok(Reply::Encoded(reply).into())
    }
}

impl DeleteRange<'_> {
    /// Chooses the keys of one page, expired ones included. A page is bounded by `limit` and
    /// `page_items` in keys, and by `page_bytes` in the bytes that the write may copy: its keys
    /// into the log, its keys and values into the undo buffer.
    fn pass(&self, store: &Store, write: &mut Write<'_>) -> Passed {
        let Context { page_items, page_bytes, .. } = *write.context;
        let most = self.limit.unwrap_or(usize::MAX).min(page_items);
        let prefix = self.prefix.unwrap_or_default();
        let Self { from, to, after, .. } = *self;
        let range = Range { from, to, after, prefix, ..Range::default() };
        let (mut keys, mut bytes) = (Vec::with_capacity(most.min(128)), 0);
        for (key, entry) in range.entries(store) {
            write.charge(1, key.len());
            bytes += key.len() + entry.value.len() + ITEM_OVERHEAD;
            if keys.len() == most || bytes > page_bytes && !keys.is_empty() {
                // The reply shows that this key exists.
                write.barrier.require(entry.head.level, entry.head.seq);
                return Passed { keys, has_next: true };
            }
            keys.push(key.into());
        }
        Passed { keys, has_next: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::options::Expiry;
    use crate::commands::{Batch, Command, SetMulti};
    use crate::protocol::change::{ChangeReader, Op};
    use crate::protocol::{ChangeBuffer, Code, DurabilityBarrier};
    use crate::state::undo::Undo;

    /// A store that holds `keys`, each with a value of `bytes` bytes and this time to live.
    fn store_of(keys: &[&str], bytes: usize, ttl_ms: Option<u64>) -> Store {
        let mut store = Store::default();
        let mut value = vec![0xC6];
        value.extend_from_slice(&(bytes as u32).to_be_bytes());
        value.resize(bytes + 5, 0);
        let pairs = keys.iter().map(|key| (key.as_bytes().into(), &value[..])).collect();
        let durability = Some(Level::Synced);
        let set = SetMulti { prefix: &[], pairs, expiry: ttl_ms.map(Expiry::After), durability };
        apply(&mut store, &Command::SetMulti(set), &Context::unbounded(1, Level::Synced)).unwrap();
        drop(store.take_undo(Undo::default()));
        store
    }

    /// The reply's bytes, the barrier of the reply, and the changes.
    type Done = Result<(Vec<u8>, DurabilityBarrier, ChangeBuffer), Code>;

    fn apply(store: &mut Store, command: &Command<'_>, context: &Context) -> Done {
        let mut changes = ChangeBuffer::default();
        let applied = store.apply(command, context, &mut changes);
        let (barrier, mut out) = (applied.barrier, Vec::new());
        let outcome = applied.outcome.map_err(|refusal| refusal.code())?;
        outcome.reply().unwrap().encode(&mut out);
        Ok((out, barrier, changes))
    }

    fn under<'a>(prefix: &'a str, after: &'a str, level: Level) -> Command<'a> {
        let after = (!after.is_empty()).then_some(after.as_bytes());
        let (prefix, durability) = (Some(prefix.as_bytes()), Some(level));
        Command::DeleteRange(DeleteRange { prefix, after, durability, ..DeleteRange::default() })
    }

    #[test]
    fn a_page_is_bounded_in_items_and_bytes_and_has_at_least_one_key() {
        let keys = ["a", "b", "c", "d", "e"];
        let whole = Context::unbounded(2, Level::Queued);
        for (page_items, page_bytes, passed) in
            [(2, usize::MAX, 2), (usize::MAX, 3 * 150, 3), (usize::MAX, 10, 1), (9, 5 * 150, 5)]
        {
            let mut store = store_of(&keys, 100, None);
            let context = Context { page_items, page_bytes, ..whole };
            let range = under("", "", Level::Stored);
            let (reply, barrier, changes) = apply(&mut store, &range, &context).unwrap();
            let next =
                if passed == 5 { "\u{c0}".into() } else { format!("\u{a1}{}", keys[passed - 1]) };
            let next: Vec<u8> = next.chars().map(|letter| letter as u8).collect();
            assert_eq!(reply, [&[0x92, passed as u8][..], &next].concat());
            assert_eq!((store.len(), store.seq()), (5 - passed, 2), "one write");
            assert_eq!(
                barrier,
                DurabilityBarrier { stored: 2, synced: 1, ..DurabilityBarrier::OPEN }
            );
            assert_eq!(ChangeReader::new(changes.bytes()).count(), passed);
        }
    }

    #[test]
    fn a_page_passes_expired_keys_without_counting_them() {
        let mut store = store_of(&["a", "b", "c"], 1, Some(5));
        let context = Context { page_items: 2, ..Context::unbounded(9, Level::Queued) };
        let (reply, barrier, changes) =
            apply(&mut store, &under("", "", Level::Queued), &context).unwrap();
        assert_eq!(reply, *b"\x92\x00\xA1b", "none was there any more; go on after b");
        assert_eq!(
            barrier,
            DurabilityBarrier { stored: 2, synced: 1, ..DurabilityBarrier::OPEN },
            "it tells of expiries"
        );
        let ops = ChangeReader::new(changes.bytes()).map(|change| change.unwrap().op);
        assert_eq!(ops.collect::<Vec<_>>(), [Op::Expire, Op::Expire]);
        let (reply, ..) = apply(&mut store, &under("", "b", Level::Queued), &context).unwrap();
        assert_eq!((&reply[..], store.len()), (&b"\x92\x00\xC0"[..], 0));
    }

    #[test]
    fn a_page_of_level_memory_waits_until_its_hidden_keys_are_gone_for_good() {
        let mut store = store_of(&["a", "b"], 1, None);
        let context = Context::unbounded(2, Level::Memory);
        let pairs = vec![(b"a0"[..].into(), &b"\x01"[..])];
        let set = SetMulti { prefix: b"", pairs, expiry: None, durability: None };
        apply(&mut store, &Command::SetMulti(set), &context).unwrap();
        // The key of level memory comes first, so that its deletion alone would wait for nothing.
        let from = DeleteRange { from: Some(b"a0"), ..DeleteRange::default() };
        let (reply, barrier, changes) =
            apply(&mut store, &Command::DeleteRange(from), &context).unwrap();
        assert_eq!((&reply[..], store.len()), (&b"\x92\x02\xC0"[..], 1));
        assert_eq!(barrier, DurabilityBarrier { synced: 3, ..DurabilityBarrier::OPEN });
        let undo = [store.take_undo(Undo::default())];
        let lost = ChangeReader::new(changes.bytes()).map(Result::unwrap);
        assert_eq!((store.rollback(lost, &undo), store.len()), (2, 3), "lost as a whole");
    }

    #[test]
    fn a_batch_is_bounded_in_the_entries_of_its_pages() {
        let mut store = store_of(&["a", "b"], 0, None);
        let context = Context { command_items: 9, ..Context::unbounded(2, Level::Queued) };
        let commands = vec![under("", "", Level::Queued)];
        let batch = Batch { commands, durability: None };
        for (passed_before, left) in [(8, 2), (7, 0)] {
            let mut changes = ChangeBuffer::default();
            let mut write = store.begin(Level::Queued, &context, &mut changes);
            write.looks = passed_before;
            let done = WriteMethod::run(&batch, &mut store, &mut write);
            let done = done.map_err(|refusal| refusal.code());
            assert_eq!(done.err(), (left == 2).then_some(Code::TooLarge));
            assert_eq!(store.len(), left);
        }
    }
}
