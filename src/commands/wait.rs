//! `wait`.

use super::access::{Access, Right, Visited};
use super::cost::CommandCost;
use super::deferred::{Deferred, LevelWait};
use super::method::{Broker, BrokerMethod, Effects, Method};
use super::outcome::Outcome;
use crate::clock::Millis;
use crate::protocol::params::Params;
use crate::protocol::{Level, Reader, Refusal, Seq};

/// `wait [seq, level, {timeout_ms}]`: true when that seq has reached that level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// The seq.
    pub seq: Seq,
    /// The level it must reach.
    pub level: Level,
    /// How long to wait before the answer is false. `None` waits without a limit.
    pub timeout_ms: Option<Millis>,
}

impl<'a> Method<'a> for Wait {
    const NAME: &'static str = "wait";
    const EFFECTS: Effects = Effects::WAITS;
    const IN_BATCH: bool = false;

    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let seq = params.required("seq", Reader::uint)?;
        let level = params.with("level", |reader, _| {
            let name = reader.bytes().map_err(|fault| fault.at("level"))?;
            let wanted = "must be one of memory, queued, stored, synced";
            Level::from_name(name).ok_or_else(|| Refusal::argument("level", wanted))
        })?;
        let mut timeout_ms = None;
        params.options(&["timeout_ms"], |name, reader| {
            timeout_ms = Some(reader.uint().map_err(|fault| fault.at(name))?);
            Ok(())
        })?;
        Ok(Self { seq, level, timeout_ms })
    }

    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        visit(Access::broker(Right::Observe))
    }

    fn cost(&self) -> CommandCost {
        CommandCost::read(1, 0)
    }
}

impl<'a> BrokerMethod<'a> for Wait {
    fn run<'s>(&'s self, _: &dyn Broker) -> Result<Outcome<'s>, Refusal> {
        let Self { seq, level, timeout_ms } = *self;
        Ok(Outcome::Deferred(Deferred::Wait(LevelWait { seq, level, timeout_ms })))
    }
}
