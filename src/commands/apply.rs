//! Applies commands to the map: a pure function of state, command and time.
//!
//! No I/O, no clock, no randomness: the reply is returned, the change is appended to the caller's
//! buffer, and the same commands at the same times make the same state anywhere. So it can be
//! checked against a plain `BTreeMap` (`tests/state/model.rs`), and later be driven by a replicated
//! log.

use super::Command;
use super::deferred::Deferred;
use super::method::{ReadMethod, WriteMethod};
use super::outcome::Outcome;
use crate::budget::Cost;
use crate::protocol::{ChangeBuffer, DurabilityBarrier, Refusal, ReplyBuffer, response};
use crate::state::read_set::ReadSet;
use crate::state::{Context, Store};

/// A command, and the hash of its only key, where that is known already.
#[derive(Debug, Clone, Copy)]
pub struct Task<'c> {
    /// The command to run.
    pub command: &'c Command<'c>,
    /// The hash of the only key that the command names, where it names one.
    pub hash: Option<u64>,
}

impl<'c> From<&'c Command<'c>> for Task<'c> {
    fn from(command: &'c Command<'c>) -> Self {
        Self { command, hash: None }
    }
}

/// A command that ran.
#[derive(Debug)]
pub struct Ran<T> {
    /// Its result, or the reason why nothing changed.
    pub outcome: T,
    /// The barrier that the reply waits for.
    pub barrier: DurabilityBarrier,
    /// Its cost, refused or not, without the encoding of the reply.
    pub cost: Cost,
}

/// A command whose reply is still to be encoded.
pub type Applied<'s> = Ran<Result<Outcome<'s>, Refusal>>;

/// A command whose reply is encoded: `None`, or the condition that the reply waits for.
pub type Answered = Ran<Result<Option<Box<Deferred>>, Refusal>>;

impl Store {
    /// Applies one command. Its changes are appended to `changes` as one write; a refused command
    /// changes nothing.
    #[inline]
    pub fn apply<'s, 'c>(
        &'s mut self,
        task: impl Into<Task<'c>>,
        context: &Context,
        changes: &mut ChangeBuffer,
    ) -> Applied<'s> {
        let Task { command, hash } = task.into();
        command.apply(self, hash, context, changes, |outcome| outcome)
    }

    /// Runs a command that only reads.
    #[inline]
    pub fn query<'s, 'c>(&'s self, task: impl Into<Task<'c>>, context: &Context) -> Applied<'s> {
        let Task { command, hash } = task.into();
        command.query(self, hash, context, |outcome| outcome)
    }
}

/// The place of an encoded reply: after the earlier ones, as the response to a request.
#[derive(Debug)]
pub struct Answer<'o> {
    /// The id of the request.
    pub id: Option<u64>,
    /// The encoded replies.
    pub out: &'o mut ReplyBuffer,
}

impl Answer<'_> {
    /// Encodes a reply that is there.
    #[inline]
    pub fn give(
        self,
        outcome: Result<Outcome<'_>, Refusal>,
    ) -> Result<Option<Box<Deferred>>, Refusal> {
        match outcome? {
            Outcome::Reply(reply) => {
                response::success(self.out, self.id, &reply);
                Ok(None)
            }
            Outcome::Deferred(deferred) => Ok(Some(Box::new(deferred))),
        }
    }
}

/// Runs a command as a write of its own. `finish` is given its outcome.
pub(super) fn write<'s, 'c, M: WriteMethod<'c>, T>(
    method: &M,
    store: &mut Store,
    hash: Option<u64>,
    context: &Context,
    changes: &mut ChangeBuffer,
    finish: impl FnOnce(Result<Outcome<'s>, Refusal>) -> T,
) -> Ran<T> {
    let requested = method.durability().unwrap_or(context.durability);
    let level = method.level(requested, store, hash);
    let mut write = store.begin(level, context, changes);
    write.hash = hash;
    let outcome = finish(method.run(store, &mut write));
    let (barrier, cost) = (write.barrier, write.cost);
    store.end(write);
    Ran { outcome, barrier, cost }
}

/// Runs a command that only reads. `finish` is given its outcome.
pub(super) fn read<'s, 'c, M: ReadMethod<'c>, T>(
    method: &M,
    store: &'s Store,
    hash: Option<u64>,
    context: &Context,
    finish: impl FnOnce(Result<Outcome<'s>, Refusal>) -> T,
) -> Ran<T> {
    let mut seen = ReadSet { hash, ..ReadSet::default() };
    let outcome = finish(method.run(store, context, &mut seen).map(Outcome::Reply));
    Ran { outcome, barrier: seen.barrier, cost: seen.cost }
}

/// A command that cannot run here.
#[cold]
pub(super) fn misplaced<'s, T>(
    refusal: Refusal,
    finish: impl FnOnce(Result<Outcome<'s>, Refusal>) -> T,
) -> Ran<T> {
    let (barrier, cost) = (DurabilityBarrier::OPEN, Cost::default());
    Ran { outcome: finish(Err(refusal)), barrier, cost }
}
