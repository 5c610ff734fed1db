//! The disk behind a small trait: ordered spaces of keys and values, atomic batches, fsync.
//!
//! One implementation keeps the log in its own files and everything else in fjall. Another is a
//! test's disk, which fails at the Nth write or loses unsynced data. Any error of `commit` or
//! `sync` is fatal for the handle: nothing is retried on it.

mod file_fault;
pub mod files;
pub mod fjall;
mod fjall_format;
mod guard;
mod log;
pub mod memory;
mod place;
mod reserve;
mod usage;
mod view;

pub use self::file_fault::{Depth, FileFault};
pub use self::fjall::FjallStorage;
pub use self::fjall_format::sorted::Gap;
pub use memory::MemoryStorage;
pub use reserve::Room;
pub use usage::StorageUsage;
pub use view::StoreView;

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

/// A space of keys, ordered by their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Facts about the store: format version, id, watermarks.
    Meta,
    /// The latest value of every key.
    Table,
    /// The log: records by the first seq in each, eight bytes, most significant first.
    Log,
}

/// One row to write, or to delete if it has no value.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// The space of the row.
    pub space: Space,
    /// 1 to 65,535 bytes.
    pub key: Vec<u8>,
    /// The value, borrowed where it is large.
    pub value: Option<std::borrow::Cow<'a, [u8]>>,
}

/// Returns the next rows; empty at the end.
pub type NextRows<'a> = dyn FnMut() -> Result<Vec<Row<'static>>, StorageError> + 'a;

/// A key with its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// The durability of a batch when `commit` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The operating system has it: it survives the end of this process.
    Buffered,
    /// The disk has it: it survives a power failure.
    Fsynced,
}

/// A storage operation that failed: the operation, and the error below as its source.
///
/// Cheap to clone, since one failure is reported to every waiting write.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation}: {source}")]
pub struct StorageError {
    operation: Arc<str>,
    source: Arc<dyn Error + Send + Sync>,
}

/// The source of a storage error: a text or another error.
type Source = Box<dyn Error + Send + Sync>;

impl StorageError {
    /// An error in `operation`. A text as `source` is vatn's own error.
    pub fn new(operation: &str, source: impl Into<Source>) -> Self {
        Self { operation: operation.into(), source: source.into().into() }
    }
}

/// The operations that a store needs from a disk.
pub trait Storage: Send + Sync + fmt::Debug {
    /// Writes all rows or none; of several records of the log, perhaps only the first ones.
    ///
    /// The log, and all other rows, each become durable in the order of their commits. Between the
    /// two, only this holds: a row of the tables never becomes durable before the records that the
    /// log held when the row was committed.
    fn commit(&self, rows: Vec<Row<'_>>, sync: Durability) -> Result<(), StorageError>;

    /// The same; `written` is called when all is with the system, and only the medium is waited
    /// for, where the disk knows that.
    fn commit_in_steps(
        &self,
        rows: Vec<Row<'_>>,
        sync: Durability,
        _written: &mut dyn FnMut(),
    ) -> Result<(), StorageError> {
        self.commit(rows, sync)
    }

    /// Whether an unsynced commit of a log record would return now without waiting for the disk.
    fn appends_at_once(&self) -> bool {
        false
    }

    /// Writes many rows of the tables, all or none; they are on the disk when this returns. `next`
    /// returns them in key order, each key once, until it returns none.
    fn load(&self, next: &mut NextRows<'_>) -> Result<(), StorageError> {
        let mut rows = Vec::new();
        loop {
            match next()? {
                some if some.is_empty() => return self.commit(rows, Durability::Fsynced),
                some => rows.extend(some),
            }
        }
    }

    /// Makes everything committed so far survive a power failure.
    fn sync(&self) -> Result<(), StorageError>;

    /// Does part of the work of later commits ahead of time; called at intervals. Returns whether
    /// there was something to do. Where the disk has little free space, preallocated files are
    /// removed.
    fn preallocate(&self, _free_bytes: u64) -> bool {
        false
    }

    /// Reads one row.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

    /// Reads the rows of a space from `from` on, in order, until `each` returns false.
    fn scan(
        &self,
        space: Space,
        from: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError>;

    /// Reads the last row of a space whose key is at or below `key`.
    fn floor(&self, space: Space, key: &[u8]) -> Result<Option<KeyValue>, StorageError>;

    /// Frees the space of log records with keys below `before`; some of them may stay. The caller
    /// has made their replacement durable, and all other rows committed so far become durable
    /// before a record is removed.
    fn trim_log(&self, before: u64) -> Result<(), StorageError>;

    /// Sorts the committed rows, so that the store opens quickly the next time.
    fn settle(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// About how many bytes the store takes on the disk.
    fn usage(&self) -> StorageUsage;

    /// The free space of the disk, if it is known. Where the space is low, the reserve is released
    /// first; called at intervals.
    fn room(&self) -> Option<Room> {
        None
    }

    /// Rewrites the live rows of the tables, and frees the space of all others. Other threads may
    /// commit meanwhile. A failure loses nothing.
    fn compact(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Housekeeping: makes the disk begin to free what it holds only until rows are sorted, if that
    /// is much, and keeps a reserve for a full disk. Called at intervals.
    fn keep_house(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// A copy of the error, with the system's error number where it has one.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// The number in the first bytes of a key: missing bytes count as zeros.
fn first_key(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    for (byte, given) in bytes.iter_mut().zip(key) {
        *byte = *given;
    }
    u64::from_be_bytes(bytes)
}
