//! What every command has.

use super::access::{Access, Visited};
use super::apply::Outcome;
use super::cost::CommandCost;
use super::hello::Hello;
use crate::protocol::params::Params;
use crate::protocol::{Level, Refusal, Reply};
use crate::state::read_set::ReadSet;
use crate::state::write::Write;
use crate::state::{Context, Store};

/// A command: its name, its arguments, and what is known of it before it runs.
pub(crate) trait Method<'a>: Sized {
    /// Its name on the wire.
    const NAME: &'static str;
    /// What it may do.
    const EFFECTS: Effects;
    /// Whether it may be part of a batch.
    const IN_BATCH: bool = true;
    /// Its own limits by their names, as `hello` shows them.
    const LIMITS: &'static [(&'static str, usize)] = &[];

    /// Decodes and checks the params, all of them: none may be left, so most read the options last.
    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal>;

    /// Names everything that it touches, in the order in which it does.
    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited;

    /// What it costs, as far as that is known without the state, and before anything is copied.
    fn cost(&self) -> CommandCost;

    /// What it costs on this state; only asked where its effects say that it is measured. `hash` is
    /// that of the only key that it names, where it is known.
    #[inline]
    fn cost_on(&self, _: &Store, _hash: Option<u64>) -> CommandCost {
        self.cost()
    }

    /// What this one may do.
    #[inline]
    fn effects(&self) -> Effects {
        Self::EFFECTS
    }

    /// The durability that it asks for; `None` where it leaves that to the broker.
    #[inline]
    fn durability(&self) -> Option<Level> {
        None
    }
}

/// A command that only reads the map.
pub(crate) trait ReadMethod<'a>: Method<'a> {
    /// Reads; notes in `seen` what the reply waits for and what it cost.
    fn run<'s>(
        &self,
        store: &'s Store,
        context: &Context,
        seen: &mut ReadSet,
    ) -> Result<Reply<'s>, Refusal>;
}

/// A command that may change the map.
pub(crate) trait WriteMethod<'a>: Method<'a> {
    /// Changes the map, within an open write. Refused, it must have changed nothing.
    fn run(&self, store: &mut Store, write: &mut Write<'_>) -> Result<Outcome<'static>, Refusal>;

    /// The level of the write, where `asked` is what the client wants.
    #[inline]
    fn level(&self, asked: Level, _: &Store, _hash: Option<u64>) -> Level {
        asked
    }
}

/// A command to the broker, not to the map.
pub(crate) trait BrokerMethod<'a>: Method<'a> {
    /// Asks the broker, or tells what is to be waited for.
    fn run<'s>(&'s self, broker: &dyn Broker) -> Result<Outcome<'s>, Refusal>;
}

/// The broker, as commands see it.
pub trait Broker {
    /// Who it is: one MessagePack value.
    fn hello(&self, hello: &Hello) -> Vec<u8>;

    /// How it is doing: one MessagePack value.
    fn stats(&self) -> Vec<u8>;

    /// Asks for a compaction; returns its number.
    fn compact(&self) -> u64;
}

/// What a command may do besides looking at the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effects {
    /// It may change the map.
    pub writes: bool,
    /// It may add something to the map.
    pub adds: bool,
    /// It passes over entries in their order, those that have expired unseen included.
    pub walks: bool,
    /// It may be deferred.
    pub defers: bool,
    /// Its deferred answer is made by itself, one at a time for a connection.
    pub pages: bool,
    /// It does something also where nobody sees the answer.
    pub acts: bool,
    /// What it costs depends on what is there.
    pub measured: bool,
}

impl Effects {
    /// Of a command that looks at entries by their keys, or at the broker.
    pub const READS: Self = Self {
        writes: false,
        adds: false,
        walks: false,
        defers: false,
        pages: false,
        acts: false,
        measured: false,
    };
    /// Of one that looks at entries in their order.
    pub const WALKS: Self = Self { walks: true, ..Self::READS };
    /// Of one that takes out what is in the map.
    pub const REMOVES: Self = Self { writes: true, acts: true, ..Self::READS };
    /// Of one that may put something into the map.
    pub const ADDS: Self = Self { adds: true, ..Self::REMOVES };
    /// Of one that waits.
    pub const WAITS: Self = Self { defers: true, ..Self::READS };
    /// Of one that waits, and then has a page made.
    pub const PAGES: Self = Self { pages: true, ..Self::WAITS };
    /// Of one that waits for what it has begun.
    pub const FLUSHES: Self = Self { acts: true, ..Self::WAITS };

    /// What two commands may do together.
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

    /// Whether it leaves everything as it is: with others of its kind it may run while the lock is
    /// shared.
    #[inline]
    pub fn is_shared(self) -> bool {
        !self.writes && !self.defers
    }
}
