//! A read-only view of a store: its rows and records as found in its files; nothing is changed.
//!
//! fjall changes a database when it opens it: it removes files that it considers leftovers, and may
//! panic where something is damaged. So read-only commands read the files here. A damaged store is
//! read as far as possible; the gaps between keys are reported afterwards.

use super::file_fault::{Depth, FileFault};
use super::files::{self, Inspection};
use super::fjall::{LOG_BEGINS, LOG_ENDS, in_use};
use super::fjall_format::rows::{FoundRow, Tree, Trees};
use super::fjall_format::sorted::Gap;
use super::log::{Known, LogView};
use super::{Durability, KeyValue, Row, Space, Storage, StorageError, StorageUsage, first_key};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

/// The store in a directory, read only.
#[derive(Debug)]
pub struct StoreView {
    facts: BTreeMap<Vec<u8>, Vec<u8>>,
    table: Tree,
    log: LogView,
    /// The gaps in which facts may be missing.
    lost_facts: Vec<Gap>,
    _lock: Option<File>,
}

impl StoreView {
    /// Opens a view of the store at `path`, and returns its damaged files. `report` receives how
    /// many bytes have been read so far. No other process can open the store until the view is
    /// dropped.
    pub fn open(
        path: &Path,
        report: &mut dyn FnMut(u64),
    ) -> Result<(Self, Vec<FileFault>), StorageError> {
        let unreadable = |error: io::Error| {
            StorageError::new(&format!("the database {} cannot be read", path.display()), error)
        };
        let (lock, fault) = match files::lock(path) {
            Ok(Some(lock)) => (Some(lock), None),
            Ok(None) => return Err(in_use(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, Some(files::no_lock())),
            Err(error) => return Err(unreadable(error)),
        };
        let mut inspection = files::inspect(path, Depth::Whole, report)?;
        inspection.faults.splice(0..0, fault);
        let view = Self::read(path, &mut inspection, lock).map_err(unreadable)?;
        Ok((view, inspection.faults))
    }

    fn read(path: &Path, inspection: &mut Inspection, lock: Option<File>) -> io::Result<Self> {
        let faults = &mut inspection.faults;
        let mut trees = Trees::find(path, files::damage(path, faults))?;
        let is_user_key = |key: &[u8]| key.first() == Some(&1);
        let is_fact = |key: &[u8]| key.first().is_some_and(u8::is_ascii_lowercase);
        let meta = trees.take("meta", &is_fact)?.unwrap_or_default();
        let table = trees.take("table", &is_user_key)?.unwrap_or_default();
        let mut facts = BTreeMap::new();
        let lost_facts = meta.scan(&[], &mut |row| {
            facts.insert(row.key.to_vec(), row.value.to_vec());
            true
        })?;
        let fact = |name| facts.get(name).map(Vec::as_slice);
        let known = Known::decode(fact(LOG_BEGINS), fact(LOG_ENDS));
        let log = LogView::find(path, std::mem::take(&mut inspection.log), known, faults)?;
        Ok(Self { facts, table, log, lost_facts, _lock: lock })
    }

    /// Passes the rows of the tables to `each`, in key order, until `each` returns false. Returns
    /// the gaps in which rows may be missing.
    pub fn rows(
        &self,
        each: &mut dyn FnMut(FoundRow<'_>) -> bool,
    ) -> Result<Vec<Gap>, StorageError> {
        self.table.scan(&[], each).map_err(reading)
    }

    /// Whether facts may be missing.
    pub fn lacks_facts(&self) -> bool {
        !self.lost_facts.is_empty() || self.facts.is_empty()
    }

    /// Whether the log was never trimmed.
    pub fn has_log_from_start(&self) -> bool {
        self.log.is_from_start
    }
}

fn reading(error: io::Error) -> StorageError {
    StorageError::new("reading the store", error)
}

impl Storage for StoreView {
    fn commit(&self, _rows: Vec<Row<'_>>, _sync: Durability) -> Result<(), StorageError> {
        Err(StorageError::new("writing", "the store is only looked at"))
    }

    fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        match space {
            Space::Meta => Ok(self.facts.get(key).cloned()),
            _ => Ok(self.floor(space, key)?.filter(|found| found.0 == key).map(|found| found.1)),
        }
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        let rows = |tree: &Tree, each: &mut dyn FnMut(&[u8], &[u8]) -> bool| {
            tree.scan(from, &mut |row| each(row.key, row.value)).map(drop).map_err(reading)
        };
        match space {
            Space::Meta => {
                self.facts.range(from.to_vec()..).all(|(key, value)| each(key, value));
                Ok(())
            }
            Space::Table => rows(&self.table, each),
            Space::Log => self.log.scan(first_key(from), each).map_err(reading),
        }
    }

    fn floor(&self, space: Space, key: &[u8]) -> Result<Option<KeyValue>, StorageError> {
        if space == Space::Log {
            let found = self.log.floor(first_key(key)).map_err(reading)?;
            return Ok(found.map(|(key, record)| (key.to_be_bytes().to_vec(), record)));
        }
        let mut last = None;
        self.scan(space, &[], &mut |found, value| {
            let is_before = found <= key;
            if is_before {
                last = Some((found.to_vec(), value.to_vec()));
            }
            is_before
        })?;
        Ok(last)
    }

    fn trim_log(&self, _before: u64) -> Result<(), StorageError> {
        Ok(())
    }

    fn usage(&self) -> StorageUsage {
        StorageUsage::default()
    }
}
