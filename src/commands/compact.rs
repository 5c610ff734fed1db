//! `compact`.

use super::access::{Access, Right, Visited};
use super::cost::CommandCost;
use super::method::{Broker, BrokerMethod, Effects, Method};
use super::outcome::Outcome;
use crate::protocol::params::Params;
use crate::protocol::{Refusal, Reply};

/// `compact []`: the number of the requested compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compact;

impl<'a> Method<'a> for Compact {
    const NAME: &'static str = "compact";
    const EFFECTS: Effects = Effects::READS;
    const IN_BATCH: bool = false;

    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        params.options(&[], |_, _| Ok(()))?;
        Ok(Self)
    }

    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        visit(Access::broker(Right::Operate))
    }

    fn cost(&self) -> CommandCost {
        CommandCost::read(1, 0)
    }
}

impl<'a> BrokerMethod<'a> for Compact {
    fn run<'s>(&'s self, broker: &dyn Broker) -> Result<Outcome<'s>, Refusal> {
        Ok(Reply::Uint(broker.compact()).into())
    }
}
