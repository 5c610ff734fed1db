//! What the HTTP edge needs of a store.

use super::refuse::Refused;
use crate::commands::Command;
use crate::engine::{Awaited, ChangesQuery, Counters};
use crate::net::{Caller, MemoryQuota};
use crate::protocol::{Refusal, Seq};
use bytes::Bytes;
use std::sync::Arc;

/// What the edge needs of a broker besides its commands.
pub trait Counted: Send + Sync + 'static {
    /// The counters.
    fn counters(&self) -> &Counters;

    /// The memory of all edges.
    fn quota(&self) -> &Arc<MemoryQuota>;

    /// The store's id, in hexadecimal digits.
    fn id(&self) -> &Arc<str>;
}

/// Runs commands, and knows how it is.
pub trait Store: Counted {
    /// Runs one command of a caller; its result, as MessagePack, is there when it may be told.
    /// `hold` is told before that is waited for how long it is, and may refuse it.
    fn run(
        &self,
        caller: &Arc<Caller>,
        command: Command<'_>,
        hold: impl FnOnce(usize) -> Result<(), Refused> + Send,
    ) -> impl Future<Output = Result<Bytes, Refused>> + Send;

    /// Waits for what `query` asks for of the history: until there is some of it, its time is up or
    /// the store stops.
    fn await_changes(
        &self,
        caller: &Arc<Caller>,
        query: &ChangesQuery,
    ) -> impl Future<Output = Awaited> + Send;

    /// What there is of the history now, as MessagePack.
    fn changes(
        self: Arc<Self>,
        query: ChangesQuery,
    ) -> impl Future<Output = Result<Bytes, Refusal>> + Send;

    /// The seq of the last write that may be told.
    fn last_seq(&self) -> Seq;

    /// The seq of the last write that was applied: no position of this history is above it.
    fn seq(&self) -> Seq;

    /// Whether it is stopping.
    fn is_stopping(&self) -> bool;

    /// How the store is.
    fn health(&self) -> Health;
}

/// How a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It reads and writes.
    Ok,
    /// Its disk failed, with these words: it reads and does not write.
    Failed(String),
    /// It is stopping.
    Stopping,
}
