//! What the HTTP edge needs of a store.

use crate::engine::Counters;
use crate::wire::{Command, Refusal};
use bytes::Bytes;

/// Has the broker's counters.
pub trait Counted: Send + Sync + 'static {
    /// The counters.
    fn counters(&self) -> &Counters;
}

/// Runs commands, and knows how it is.
pub trait Store: Counted {
    /// Runs one command; its result, as MessagePack, is there when it may be told.
    fn run(&self, command: Command<'_>) -> impl Future<Output = Result<Bytes, Refusal>> + Send;

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
