//! The disk behind a small trait: ordered spaces of keys and values, atomic batches, fsync.
//!
//! One implementation keeps the log in files of its own and everything else in fjall; a test's
//! disk, which fails at the Nth write or forgets what was not synced, is another. Any error of
//! `commit` or `sync` is fatal for the handle: nothing is retried on it.

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

/// A place in which keys are ordered by their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Facts about the store: format version, id, watermarks.
    Meta,
    /// The latest value of every key.
    Table,
    /// The log: records by the first seq in each, eight bytes, most significant first.
    Log,
}

/// One row to write; without a value, one to delete.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// Where.
    pub space: Space,
    /// 1 to 65,535 bytes.
    pub key: Vec<u8>,
    /// The value, borrowed where it is large.
    pub value: Option<std::borrow::Cow<'a, [u8]>>,
}

/// Gives the next rows; none at the end.
pub type NextRows<'a> = dyn FnMut() -> Result<Vec<Row<'static>>, StorageError> + 'a;

/// A key with its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// How far a batch must have come when `commit` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// With the operating system: survives the end of this process.
    Buffered,
    /// On the medium: survives a loss of power.
    Fsynced,
}

/// A storage operation that failed: the operation, and the error below as its source.
///
/// Cheap to clone, since one failure is told to every write that waits.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation}: {source}")]
pub struct StorageError {
    operation: Arc<str>,
    source: Arc<dyn Error + Send + Sync>,
}

/// What a storage error can be made of: a text or another error.
type Source = Box<dyn Error + Send + Sync>;

impl StorageError {
    /// An error in `operation`. A text as `source` is an error of vatn's own.
    pub fn new(operation: &str, source: impl Into<Source>) -> Self {
        Self { operation: operation.into(), source: source.into().into() }
    }
}

/// What a store needs of a disk.
pub trait Storage: Send + Sync + fmt::Debug {
    /// Writes all rows or none; of several records of the log, perhaps the first ones.
    ///
    /// The log, and all other rows, each become durable in the order in which they were committed.
    /// Between the two only this holds: a row of the tables never becomes durable before what the
    /// log held when it was committed.
    fn commit(&self, rows: Vec<Row<'_>>, sync: Durability) -> Result<(), StorageError>;

    /// Whether a record of the log that is committed now, unsynced, is with the system without a
    /// wait for the medium.
    fn appends_at_once(&self) -> bool {
        false
    }

    /// Writes many rows of the tables, all or none, and has them on the medium when it returns.
    /// `next` gives them in the order of their keys, each key once, until it gives none.
    fn load(&self, next: &mut NextRows<'_>) -> Result<(), StorageError> {
        let mut rows = Vec::new();
        loop {
            match next()? {
                some if some.is_empty() => return self.commit(rows, Durability::Fsynced),
                some => rows.extend(some),
            }
        }
    }

    /// Makes everything committed so far survive a loss of power.
    fn sync(&self) -> Result<(), StorageError>;

    /// Does ahead of time a piece of what the next commits would wait for; called now and then.
    /// Returns whether there was something to do. Where little is free of the medium, what was made
    /// ahead is given back.
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

    /// Gives back the room of records of the log whose keys are below `before`; some of them may
    /// stay. The caller has made durable what replaces them, and all other rows committed so far
    /// are durable before a record goes.
    fn trim_log(&self, before: u64) -> Result<(), StorageError>;

    /// Puts in order what is committed, so that opening the store again is quick.
    fn settle(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// The bytes that the store takes on the medium, about.
    fn usage(&self) -> StorageUsage;

    /// The room on the medium, as far as it is known. Where there is little, what is held back for
    /// that is given up first; called now and then.
    fn room(&self) -> Option<Room> {
        None
    }

    /// Writes the live rows of the tables anew, and gives back the room of all others. Others may
    /// commit meanwhile. Nothing is lost when it fails.
    fn compact(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Keeps house: has the disk begin to give back what it holds only until rows are sorted, if
    /// that is much, and holds some room back for a full medium. Called now and then.
    fn keep_house(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// The same error again, with the system's number where it has one.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// The number that a key begins with: what is missing of it is taken for zeros.
fn first_key(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    for (byte, given) in bytes.iter_mut().zip(key) {
        *byte = *given;
    }
    u64::from_be_bytes(bytes)
}
