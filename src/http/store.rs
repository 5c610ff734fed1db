//! The store as the HTTP edge needs it.

use super::refuse::Refused;
use crate::commands::Command;
use crate::engine::{Awaited, ChangesQuery, Counters};
use crate::net::{Caller, MemoryQuota};
use crate::protocol::{Refusal, Seq};
use bytes::Bytes;
use std::sync::Arc;

/// The parts of a broker that the edge needs besides commands.
pub trait Counted: Send + Sync + 'static {
    /// The counters.
    fn counters(&self) -> &Counters;

    /// The memory of all edges.
    fn quota(&self) -> &Arc<MemoryQuota>;

    /// The store's id, in hexadecimal digits.
    fn id(&self) -> &Arc<str>;
}

/// Runs commands, and reports its health.
pub trait Store: Counted {
    /// Runs one command of a caller; returns its MessagePack result once it may be seen. Before
    /// that wait, `hold` is called with the result's length, and may refuse it.
    fn run(
        &self,
        caller: &Arc<Caller>,
        command: Command<'_>,
        hold: impl FnOnce(usize) -> Result<(), Refused> + Send,
    ) -> impl Future<Output = Result<Bytes, Refused>> + Send;

    /// Waits for the history that `query` requests: until there is some, its time is up or the
    /// store stops.
    fn await_changes(
        &self,
        caller: &Arc<Caller>,
        query: &ChangesQuery,
    ) -> impl Future<Output = Awaited> + Send;

    /// Returns the current part of the history, as MessagePack.
    fn changes(
        self: Arc<Self>,
        query: ChangesQuery,
    ) -> impl Future<Output = Result<Bytes, Refusal>> + Send;

    /// The seq of the last write that may be seen.
    fn last_seq(&self) -> Seq;

    /// The seq of the last write that was applied: no position of this history is above it.
    fn seq(&self) -> Seq;

    /// Whether the store is stopping.
    fn is_stopping(&self) -> bool;

    /// The store's health.
    fn health(&self) -> Health;
}

/// The health of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It reads and writes.
    Ok,
    /// Its disk failed, for this reason: it reads and does not write.
    Failed(String),
    /// It is stopping.
    Stopping,
}
