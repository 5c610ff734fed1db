//! `ping`.

use super::access::{Access, Visited};
use super::cost::CommandCost;
use super::method::{Broker, BrokerMethod, Effects, Method};
use super::outcome::Outcome;
use crate::protocol::params::Params;
use crate::protocol::{Refusal, Reply};
use std::ops::ControlFlow;

/// `ping [payload]`: the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping<'a> {
    /// Any value, sent back byte for byte; nil without one.
    pub payload: Option<&'a [u8]>,
}

impl<'a> Method<'a> for Ping<'a> {
    const NAME: &'static str = "ping";
    const EFFECTS: Effects = Effects::READS;
    const IN_BATCH: bool = false;

    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let payload = params.optional_value("payload")?;
        params.finish()?;
        Ok(Self { payload })
    }

    /// No right is needed.
    fn access<'s>(&'s self, _: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        ControlFlow::Continue(())
    }

    fn cost(&self) -> CommandCost {
        CommandCost::read(1, self.payload.map_or(0, <[u8]>::len))
    }
}

impl<'a> BrokerMethod<'a> for Ping<'a> {
    fn run<'s>(&'s self, _: &dyn Broker) -> Result<Outcome<'s>, Refusal> {
        Ok(self.payload.map_or(Reply::Nil, |bytes| Reply::Value(bytes.into())).into())
    }
}
