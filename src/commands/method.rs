//! The traits that commands implement.

use super::access::{Access, Visited};
use super::cost::CommandCost;
use super::outcome::Outcome;
use crate::protocol::params::Params;
use crate::protocol::{Level, Refusal, Reply};
use crate::state::read_set::ReadSet;
use crate::state::write::Write;
use crate::state::{Context, Store};

/// A command: its name, its arguments, and its properties before it runs.
pub(crate) trait Method<'a>: Sized {
    /// Its name on the wire.
    const NAME: &'static str;
    /// Its possible effects.
    const EFFECTS: Effects;
    /// Whether it may be part of a batch.
    const IN_BATCH: bool = true;
    /// Its own limits by their names, as `hello` shows them.
    const LIMITS: &'static [(&'static str, usize)] = &[];

    /// Decodes and checks all params: none may be left, so most commands read the options last.
    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal>;

    /// Visits all its accesses in order.
    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited;

    /// Its cost, as far as that is known without the state, before anything is copied.
    fn cost(&self) -> CommandCost;

    /// Its cost on this state; only called where its effects require a measure. `hash` is that of
    /// its only key, where known.
    #[inline]
    fn cost_on(&self, _: &Store, _hash: Option<u64>) -> CommandCost {
        self.cost()
    }

    /// Shows the values that it would put into the map. Large ones are copied before the lock.
    fn values<'s>(&'s self, _visit: &mut dyn FnMut(&'s [u8])) {}

    /// The possible effects of this one command.
    #[inline]
    fn effects(&self) -> Effects {
        Self::EFFECTS
    }

    /// The durability that it requests; `None` for the broker's default.
    #[inline]
    fn durability(&self) -> Option<Level> {
        None
    }
}

/// A command that only reads the map.
pub(crate) trait ReadMethod<'a>: Method<'a> {
    /// Reads; records the barrier of the reply and the cost in `seen`.
    fn run<'s>(
        &self,
        store: &'s Store,
        context: &Context,
        seen: &mut ReadSet,
    ) -> Result<Reply<'s>, Refusal>;
}

/// A command that may change the map.
pub(crate) trait WriteMethod<'a>: Method<'a> {
    /// Changes the map, within an open write. A refused command must have changed nothing.
    fn run(&self, store: &mut Store, write: &mut Write<'_>) -> Result<Outcome<'static>, Refusal>;

    /// The level of the write, where the client wants `requested`.
    #[inline]
    fn level(&self, requested: Level, _: &Store, _hash: Option<u64>) -> Level {
        requested
    }
}

/// A command to the broker, not to the map.
pub(crate) trait BrokerMethod<'a>: Method<'a> {
    /// Queries the broker, or returns the condition to wait for.
    fn run<'s>(&'s self, broker: &dyn Broker) -> Result<Outcome<'s>, Refusal>;
}

/// The broker's interface for commands.
pub trait Broker {
    /// The broker's identity: one MessagePack value.
    fn hello(&self, client: Option<&str>) -> Vec<u8>;

    /// The broker's state: one MessagePack value.
    fn stats(&self) -> Vec<u8>;

    /// Requests a compaction; returns its number.
    fn compact(&self) -> u64;
}

/// The possible effects of a command besides reading the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effects {
    /// It may change the map.
    pub writes: bool,
    /// It may add entries to the map.
    pub adds: bool,
    /// It passes entries in order, including those that have expired unseen.
    pub walks: bool,
    /// It may be deferred.
    pub defers: bool,
    /// Its deferred answer is made alone, one at a time for each connection.
    pub pages: bool,
    /// It has an effect even where its reply is not read.
    pub acts: bool,
    /// Its cost depends on the stored entries.
    pub measured: bool,
}

impl Effects {
    /// Effects of a command that reads entries by their keys, or the broker.
    pub const READS: Self = Self {
        writes: false,
        adds: false,
        walks: false,
        defers: false,
        pages: false,
        acts: false,
        measured: false,
    };
    /// Effects of a command that reads entries in order.
    pub const WALKS: Self = Self { walks: true, ..Self::READS };
    /// Effects of a command that removes entries.
    pub const REMOVES: Self = Self { writes: true, acts: true, ..Self::READS };
    /// Effects of a command that may add entries.
    pub const ADDS: Self = Self { adds: true, ..Self::REMOVES };
    /// Effects of a command that waits.
    pub const WAITS: Self = Self { defers: true, ..Self::READS };
    /// Effects of a command that waits, and then has a page made.
    pub const PAGES: Self = Self { pages: true, ..Self::WAITS };
    /// Effects of a command that waits for work that it has begun.
    pub const FLUSHES: Self = Self { acts: true, ..Self::WAITS };

    /// The effects of two commands together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            writes: self.writes | other.writes,
            adds: self.adds | other.adds,
            walks: self.walks | other.walks,
            defers: self.defers | other.defers,
            pages: self.pages | other.pages,
            acts: self.acts | other.acts,
            measured: self.measured | other.measured,
        }
    }

    /// Whether it changes nothing: such commands may run together under a shared lock.
    #[inline]
    pub fn is_shared(self) -> bool {
        !self.writes && !self.defers
    }
}
