//! `get`.

use super::access::{Access, Right, Visited};
use super::cost::CommandCost;
use super::method::{Effects, Method, ReadMethod};
use super::options;
use crate::protocol::params::{Params, join_key};
use crate::protocol::{Key, Refusal, Reply};
use crate::state::read_set::ReadSet;
use crate::state::{Context, Store};

/// `get [key, {meta, key_prefix}]`: the value, or nil.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Get<'a> {
    /// The key.
    pub key: Key<'a>,
    /// Answer `[value, seq, ttl_ms or nil, level]` instead of the value alone.
    pub meta: bool,
}

impl<'a> Method<'a> for Get<'a> {
    const NAME: &'static str = "get";
    const EFFECTS: Effects = Effects::READS;

    #[inline]
    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let key = params.key()?;
        let (mut meta, mut prefix): (bool, &'a [u8]) = (false, &[]);
        params.options(&["meta", "key_prefix"], |name, reader| {
            match name {
                "meta" => meta = options::flag(name, reader)?,
                _ => prefix = options::key_prefix(reader)?,
            }
            Ok(())
        })?;
        Ok(Self { key: join_key(prefix, key)?, meta })
    }

    #[inline]
    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        visit(Access::key(Right::Read, &self.key))
    }

    #[inline]
    fn cost(&self) -> CommandCost {
        CommandCost::read(1, 0)
    }
}

impl<'a> ReadMethod<'a> for Get<'a> {
    #[inline]
    fn run<'s>(
        &self,
        store: &'s Store,
        context: &Context,
        seen: &mut ReadSet,
    ) -> Result<Reply<'s>, Refusal> {
        let key = store.hashed(&self.key, seen.hash);
        let Some(entry) = store.look(key, context.now, seen) else {
            return Ok(Reply::Nil);
        };
        Ok(match self.meta {
            true => Reply::Meta(entry.meta(context.now)),
            false => Reply::Value(entry.shown()),
        })
    }
}
