//! `stats`.

use super::access::{Access, Right, Visited};
use super::cost::{self, CommandCost};
use super::method::{Broker, BrokerMethod, Effects, Method};
use super::outcome::Outcome;
use crate::protocol::params::Params;
use crate::protocol::{Refusal, Reply, WriteCost};

/// `stats []`: a map of the broker's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats;

impl<'a> Method<'a> for Stats {
    const NAME: &'static str = "stats";
    const EFFECTS: Effects = Effects::READS;
    const IN_BATCH: bool = false;

    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        params.options(&[], |_, _| Ok(()))?;
        Ok(Self)
    }

    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        visit(Access::broker(Right::Observe))
    }

    fn cost(&self) -> CommandCost {
        CommandCost { work: cost::STATUS, write: WriteCost::default() }
    }
}

impl<'a> BrokerMethod<'a> for Stats {
    fn run<'s>(&'s self, broker: &dyn Broker) -> Result<Outcome<'s>, Refusal> {
        Ok(Reply::Encoded(broker.stats()).into())
    }
}
