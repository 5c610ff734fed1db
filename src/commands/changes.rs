//! `changes`.

use super::access::{Access, Right, Visited};
use super::cost::CommandCost;
use super::deferred::{ChangesQuery, Deferred};
use super::method::{Broker, BrokerMethod, Effects, Method};
use super::options;
use super::outcome::Outcome;
use crate::clock::Millis;
use crate::limits::KEY_BYTES_MAX;
use crate::protocol::params::Params;
use crate::protocol::{Reader, Refusal, Seq};

/// `changes [after_seq, {prefix, limit, wait_ms}]`: `[[change…], next_seq]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes<'a> {
    /// Only changes of writes later than this.
    pub after: Seq,
    /// Only changes of keys that begin with this.
    pub prefix: &'a [u8],
    /// Most changes in the reply; `None` for the broker's cap. A write's changes stay together.
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

impl<'a> Method<'a> for Changes<'a> {
    const NAME: &'static str = "changes";
    const EFFECTS: Effects = Effects::PAGES;
    const IN_BATCH: bool = false;

    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let after = params.required("after_seq", Reader::uint)?;
        let mut changes = Self { after, prefix: &[], limit: None, wait_ms: 0 };
        params.options(&["prefix", "limit", "wait_ms"], |name, reader| {
            match name {
                "prefix" => {
                    changes.prefix = reader.bytes().map_err(|fault| fault.at(name))?;
                    // The request keeps the prefix while it waits, and no key can begin with a
                    // longer one.
                    if changes.prefix.len() > KEY_BYTES_MAX {
                        let what = format!("must have at most {KEY_BYTES_MAX} bytes, as a key");
                        return Err(Refusal::argument(name, what));
                    }
                }
                "limit" => changes.limit = Some(options::limit(reader)?),
                _ => changes.wait_ms = reader.uint().map_err(|fault| fault.at(name))?,
            }
            Ok(())
        })?;
        Ok(changes)
    }

    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        visit(Access::prefix(Right::Read, self.prefix))
    }

    fn cost(&self) -> CommandCost {
        CommandCost::read(1, 0)
    }
}

impl<'a> BrokerMethod<'a> for Changes<'a> {
    fn run<'s>(&'s self, _: &dyn Broker) -> Result<Outcome<'s>, Refusal> {
        Ok(Outcome::Deferred(Deferred::Changes(self.into())))
    }
}
