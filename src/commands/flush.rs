//! `flush`.

use super::access::{Access, Right, Visited};
use super::cost::CommandCost;
use super::deferred::Deferred;
use super::method::{Broker, BrokerMethod, Effects, Method};
use super::outcome::Outcome;
use crate::protocol::Refusal;
use crate::protocol::params::Params;

/// `flush []`: the status line, once all earlier writes are in the tables and fsynced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flush;

impl<'a> Method<'a> for Flush {
    const NAME: &'static str = "flush";
    const EFFECTS: Effects = Effects::FLUSHES;
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

impl<'a> BrokerMethod<'a> for Flush {
    fn run<'s>(&'s self, _: &dyn Broker) -> Result<Outcome<'s>, Refusal> {
        Ok(Outcome::Deferred(Deferred::Flush))
    }
}
