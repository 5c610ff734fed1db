//! `hello`.

use super::access::{Access, Right, Visited};
use super::cost::{self, CommandCost};
use super::method::{Broker, BrokerMethod, Effects, Method};
use super::outcome::Outcome;
use crate::protocol::params::Params;
use crate::protocol::refusal::{self, Refusal};
use crate::protocol::{Reply, WriteCost};

/// How many characters of a client's name are kept.
const CLIENT_CHARS: usize = 256;

/// `hello [{client}]`: a map of the broker's version, limits and features.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// The name the client gives itself, for the broker's log.
    pub client: Option<String>,
}

impl<'a> Method<'a> for Hello {
    const NAME: &'static str = "hello";
    const EFFECTS: Effects = Effects::READS;
    const IN_BATCH: bool = false;

    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let mut hello = Self::default();
        params.options(&["client"], |name, reader| {
            let bytes = reader.bytes().map_err(|fault| fault.at(name))?;
            hello.client = Some(refusal::shown(bytes, CLIENT_CHARS));
            Ok(())
        })?;
        Ok(hello)
    }

    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        visit(Access::broker(Right::Observe))
    }

    fn cost(&self) -> CommandCost {
        CommandCost { work: cost::STATUS, write: WriteCost::default() }
    }
}

impl<'a> BrokerMethod<'a> for Hello {
    fn run<'s>(&'s self, broker: &dyn Broker) -> Result<Outcome<'s>, Refusal> {
        Ok(Reply::Encoded(broker.hello(self.client.as_deref())).into())
    }
}
