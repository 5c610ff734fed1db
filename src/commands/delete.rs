//! `delete`.

use super::access::{Access, Right, Visited};
use super::cost::CommandCost;
use super::method::{Effects, Method, WriteMethod};
use super::options::{self, Condition, WriteOptions};
use super::outcome::Outcome;
use crate::budget::Cost;
use crate::protocol::params::{Params, join_key};
use crate::protocol::{Key, Level, Refusal, Reply, WriteCost};
use crate::state::Store;
use crate::state::write::Write;

/// `delete [key, {return_value, if, durability, key_prefix}]`: whether it existed, or the old
/// value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete<'a> {
    /// The key.
    pub key: Key<'a>,
    /// Answer the old value (nil where there was none) instead of true or false.
    pub return_value: bool,
    /// The delete happens only if this holds.
    pub condition: Option<Condition>,
    /// When the reply may be sent.
    pub durability: Option<Level>,
}

impl<'a> Method<'a> for Delete<'a> {
    const NAME: &'static str = "delete";
    const EFFECTS: Effects = Effects::REMOVES;

    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let key = params.key()?;
        let mut given = WriteOptions::default();
        let known = ["return_value", "if", "durability", "key_prefix"];
        params.options(&known, |name, reader| given.read(name, reader))?;
        let WriteOptions { return_value, condition, durability, key_prefix, .. } = given;
        if condition == Some(Condition::Absent) {
            return Err(Refusal::argument("if", "must be \"present\" or a seq for a delete"));
        }
        Ok(Self { key: join_key(key_prefix, key)?, return_value, condition, durability })
    }

    #[inline]
    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        visit(Access::key(Right::Write, &self.key))
    }

    fn cost(&self) -> CommandCost {
        CommandCost { work: Cost::new(1, 0), write: WriteCost::of(self.key.len(), 0) }
    }

    fn durability(&self) -> Option<Level> {
        self.durability
    }
}

impl<'a> WriteMethod<'a> for Delete<'a> {
    fn run(&self, store: &mut Store, write: &mut Write<'_>) -> Result<Outcome<'static>, Refusal> {
        let key = store.hashed(&self.key, write.hash);
        if let Some(condition) = self.condition {
            condition.check(store, key, write)?;
        }
        let old = match self.return_value {
            true => Some(options::old_value(store, key, write)?),
            false => None,
        };
        let existed = store.delete(key, write);
        Ok(old.unwrap_or(Reply::Bool(existed)).into())
    }
}
