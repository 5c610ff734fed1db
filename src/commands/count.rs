//! `count`.

use super::access::{Access, Right, Visited};
use super::cost::CommandCost;
use super::method::{Effects, Method, ReadMethod};
use crate::protocol::params::Params;
use crate::protocol::{Refusal, Reply};
use crate::state::read_set::ReadSet;
use crate::state::{Context, Store};

/// `count [{prefix}]`: how many keys begin with the prefix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Count<'a> {
    /// The prefix; empty counts all.
    pub prefix: &'a [u8],
}

impl<'a> Method<'a> for Count<'a> {
    const NAME: &'static str = "count";
    const EFFECTS: Effects = Effects::WALKS;

    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let mut count = Self::default();
        params.options(&["prefix"], |name, reader| {
            count.prefix = reader.bytes().map_err(|fault| fault.at(name))?;
            Ok(())
        })?;
        Ok(count)
    }

    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        visit(Access::prefix(Right::Read, self.prefix))
    }

    fn cost(&self) -> CommandCost {
        CommandCost::read(1, 0)
    }
}

impl<'a> ReadMethod<'a> for Count<'a> {
    fn run<'s>(
        &self,
        store: &'s Store,
        context: &Context,
        seen: &mut ReadSet,
    ) -> Result<Reply<'s>, Refusal> {
        seen.barrier.join(store.writes());
        seen.pass(1);
        let count = store.count(self.prefix, context.now, || seen.pass(1));
        Ok(Reply::Uint(count as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::options::Expiry;
    use crate::commands::{Command, Range, Set};
    use crate::protocol::{ChangeBuffer, Level};

    #[test]
    fn a_count_visits_only_entries_that_have_expired_unseen() {
        let context = |now| Context::unbounded(now, Level::Queued);
        let (mut store, mut changes) = (Store::default(), ChangeBuffer::default());
        for number in 0..10_u8 {
            let key = vec![b'a' + number % 2, number];
            let ttl_ms = (number < 3).then_some(5);
            let set = Set {
                key: key.into(),
                value: b"\x01",
                expiry: ttl_ms.map(Expiry::After),
                condition: None,
                durability: None,
                return_value: false,
            };
            assert!(store.apply(&Command::Set(set), &context(1), &mut changes).outcome.is_ok());
        }
        for (now, prefix, found, looks) in [
            (2, &b""[..], 10, 1),
            (2, b"a", 5, 1),
            (9, b"", 7, 4),
            (9, b"a", 3, 4),
            (9, b"b", 4, 4),
        ] {
            let mut seen = ReadSet::default();
            let counted = Count { prefix }.run(&store, &context(now), &mut seen).unwrap();
            assert!(matches!(counted, Reply::Uint(count) if count == found), "{prefix:?} at {now}");
            assert_eq!(seen.cost.entries, looks, "{prefix:?} at {now}");
        }
        let mut seen = ReadSet::default();
        let two = Range { limit: Some(2), ..Range::default() };
        assert!(two.run(&store, &context(9), &mut seen).is_ok());
        assert_eq!(
            seen.cost.entries, 5,
            "two expired ones, two items, and the one that ends the page"
        );
    }
}
