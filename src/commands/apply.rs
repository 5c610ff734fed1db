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

/// The outcome of a command.
#[derive(Debug)]
pub struct Applied<'s> {
    /// Its result, or the reason why nothing changed.
    pub outcome: Result<Outcome<'s>, Refusal>,
    /// The barrier that the reply waits for.
    pub barrier: DurabilityBarrier,
    /// Its cost, refused or not, without the encoding of the reply.
    pub cost: Cost,
}

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
        command.apply(self, hash, context, changes)
    }

    /// Runs a command that only reads.
    #[inline]
    pub fn query<'s, 'c>(&'s self, task: impl Into<Task<'c>>, context: &Context) -> Applied<'s> {
        let Task { command, hash } = task.into();
        command.query(self, hash, context)
    }
}

/// The outcome of a command whose reply is encoded.
#[derive(Debug)]
pub struct Answered {
    /// `None` where the reply is encoded; else the condition that it waits for, or why nothing
    /// changed.
    pub outcome: Result<Option<Box<Deferred>>, Refusal>,
    /// The barrier that the reply waits for.
    pub barrier: DurabilityBarrier,
    /// Its cost, refused or not, without the encoding of the reply.
    pub cost: Cost,
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
    #[inline]
    fn give(self, outcome: Result<Outcome<'_>, Refusal>) -> Result<Option<Box<Deferred>>, Refusal> {
        match outcome? {
            Outcome::Reply(reply) => {
                response::success(self.out, self.id, &reply);
                Ok(None)
            }
            Outcome::Deferred(deferred) => Ok(Some(Box::new(deferred))),
        }
    }
}

/// The same as [`write()`], with the reply encoded.
pub(super) fn write_into<'c, M: WriteMethod<'c>>(
    method: &M,
    store: &mut Store,
    hash: Option<u64>,
    context: &Context,
    changes: &mut ChangeBuffer,
    answer: Answer<'_>,
) -> Answered {
    let requested = method.durability().unwrap_or(context.durability);
    let level = method.level(requested, store, hash);
    let mut write = store.begin(level, context, changes);
    write.hash = hash;
    let outcome = answer.give(method.run(store, &mut write));
    let (barrier, cost) = (write.barrier, write.cost);
    store.end(write);
    Answered { outcome, barrier, cost }
}

/// The same as [`read()`], with the reply encoded.
pub(super) fn read_into<'c, M: ReadMethod<'c>>(
    method: &M,
    store: &Store,
    hash: Option<u64>,
    context: &Context,
    answer: Answer<'_>,
) -> Answered {
    let mut seen = ReadSet { hash, ..ReadSet::default() };
    let outcome = answer.give(method.run(store, context, &mut seen).map(Outcome::Reply));
    Answered { outcome, barrier: seen.barrier, cost: seen.cost }
}

/// Runs a command as a write of its own.
pub(super) fn write<'s, 'c, M: WriteMethod<'c>>(
    method: &M,
    store: &'s mut Store,
    hash: Option<u64>,
    context: &Context,
    changes: &mut ChangeBuffer,
) -> Applied<'s> {
    let requested = method.durability().unwrap_or(context.durability);
    let level = method.level(requested, store, hash);
    let mut write = store.begin(level, context, changes);
    write.hash = hash;
    let outcome = method.run(store, &mut write);
    let (barrier, cost) = (write.barrier, write.cost);
    store.end(write);
    Applied { outcome, barrier, cost }
}

/// Runs a command that only reads.
pub(super) fn read<'s, 'c, M: ReadMethod<'c>>(
    method: &M,
    store: &'s Store,
    hash: Option<u64>,
    context: &Context,
) -> Applied<'s> {
    let mut seen = ReadSet { hash, ..ReadSet::default() };
    let outcome = method.run(store, context, &mut seen).map(Outcome::Reply);
    Applied { outcome, barrier: seen.barrier, cost: seen.cost }
}

/// The refusal of a command that cannot run here, as an answer.
#[cold]
pub(super) fn misplaced_into(refusal: Refusal) -> Answered {
    Answered { outcome: Err(refusal), barrier: DurabilityBarrier::OPEN, cost: Cost::default() }
}

/// The refusal of a command that cannot run here.
pub(super) fn misplaced<'s>(refusal: Refusal) -> Applied<'s> {
    Applied { outcome: Err(refusal), barrier: DurabilityBarrier::OPEN, cost: Cost::default() }
}
