//! The disk, implemented with fjall 3: spaces are keyspaces, a batch is a fjall batch, fsync is its
//! journal's. Only the log is in files of vatn's own.
//!
//! All writes go through batches, because `Keyspace::insert` journals before it asserts the key's
//! length.
//!
//! Two facts describe the log. `log_begins` is the first key of the oldest kept file, and is on the
//! disk before older files are removed. `log_ends` is how much of the log was on the disk; it is
//! committed with the rows of the tables, which never reach the disk before that part of the log.
//! So a restart knows which files and records must exist.

mod compact;

use super::file_fault::{Depth, FileFault};
use super::files::{self, Inspection};
use super::guard::guarded;
use super::log::{Durable, Found, Known, LogFiles};
use super::place::Place;
use super::reserve;
use super::{
    Durability, KeyValue, NextRows, Room, Row, Space, Storage, StorageError, StorageUsage,
    first_key,
};
use fjall::config::{BlockSizePolicy, FilterPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

/// Bytes of rows that fjall keeps in memory for each space before it writes a sorted file.
const MEMTABLE_BYTES: u64 = 32 << 20;

/// Bytes of file blocks that fjall caches: all values are in the map, so few blocks are read again.
const CACHE_BYTES: u64 = 8 << 20;

/// The size of a block, in bytes.
const TABLE_BLOCK_BYTES: u32 = 16 << 10;

/// Threads that sort and compact. With several, the first puts every compaction that it takes from
/// their queue back, and takes it again at once (fjall 3.1.13).
const SORTERS: usize = 1;

pub(super) const LOG_BEGINS: &[u8] = b"log_begins";
pub(super) const LOG_ENDS: &[u8] = b"log_ends";

/// A fjall database with a log beside it.
pub struct FjallStorage {
    spaces: Option<Spaces>,
    log: LogFiles,
    /// Whether a power failure may lose rows of fjall. Initially true: a killed process may have
    /// left unsynced rows.
    has_unsynced: AtomicBool,
    /// Whether all rows are in sorted files, and none has come since.
    is_settled: AtomicBool,
    /// Held while fjall syncs: a thread that finds nothing left to sync must find the sync
    /// finished.
    syncing: Mutex<()>,
    /// The last noted durable end of the log.
    log_ends: Mutex<Option<Durable>>,
    path: PathBuf,
    place: Place,
    /// The channel for the result of closing.
    closed: Option<Sender<Result<(), StorageError>>>,
}

/// fjall's handles, dropped together: the database's lock lives as long as any keyspace.
struct Spaces {
    database: Database,
    meta: Keyspace,
    table: Keyspace,
}

impl std::fmt::Debug for FjallStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FjallStorage").field("path", &self.path).finish_non_exhaustive()
    }
}

impl FjallStorage {
    /// Opens or creates the database at `path`. The error names a damaged file; then nothing is
    /// changed.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let is_restoring = || match files::is_restoring(path) {
            true => Err(at(path, "cannot be used", files::IS_RESTORING)),
            false => Ok(()),
        };
        is_restoring()?;
        let disk = Self::open_any(path)?;
        // A restore may have begun before its first file was visible.
        is_restoring().map(|()| disk)
    }

    /// Creates the database at `path` for a restore, which has marked the directory.
    pub fn restoring(path: &Path) -> Result<Self, StorageError> {
        Self::open_any(path)
    }

    fn open_any(path: &Path) -> Result<Self, StorageError> {
        if path.exists() && !path.is_dir() {
            return Err(at(path, "is a file", "name a directory with -b"));
        }
        files::make_folder(path).map_err(|error| at(path, "cannot be made", error))?;
        Self::finish_repair(path)?;
        files::clear_unmade(path).map_err(|error| at(path, "cannot be used", error))?;
        let is_store = files::is_store(path);
        reserve::measure(path).map_err(|error| at(path, "cannot be used", error))?;
        let mut found = Found::default();
        if is_store {
            let inspection = Self::inspect(path, Depth::Start, &mut |_| {})?;
            if let Some(fault) = inspection.faults.first() {
                return Err(damaged(path, fault));
            }
            files::reopen(path, &inspection).map_err(|error| at(path, "cannot be used", error))?;
            found = inspection.log;
        }
        match guarded("opening the database", || Spaces::open(path)) {
            Ok(spaces) => Self::with_log(path, spaces, found),
            // A store that could not be created is not a damaged one.
            Err(error) if !is_store => Err(error),
            Err(error) => Err(Self::name_damage(path).unwrap_or(error)),
        }
    }

    /// Returns a channel that receives the result of closing, once the database is dropped.
    pub fn tell_closed(&mut self) -> Receiver<Result<(), StorageError>> {
        let (sender, receiver) = channel();
        self.closed = Some(sender);
        receiver
    }

    /// Completes an interrupted repair.
    fn finish_repair(path: &Path) -> Result<(), StorageError> {
        let unusable = |error: std::io::Error| at(path, "cannot be used", error);
        if files::unfinished_repair(path).map_err(unusable)?.is_none() {
            return Ok(());
        }
        let Some(_lock) = files::lock(path).map_err(unusable)? else {
            return Err(in_use(path));
        };
        files::finish_repair(path).map_err(unusable)
    }

    fn with_log(path: &Path, spaces: Spaces, found: Found) -> Result<Self, StorageError> {
        let unusable = |error: std::io::Error| at(path, "cannot be used", error);
        // Before anything is written: data synced in a directory is lost with the directory's name.
        files::sync_folders(path).map_err(unusable)?;
        let known = guarded("opening the database", || spaces.known_of_log())?;
        let log = LogFiles::open(path, found, known).map_err(unusable)?;
        let log = log.map_err(|fault| damaged(path, &fault))?;
        let (has_unsynced, log_ends) = (AtomicBool::new(true), Mutex::new(known.ends));
        let (place, path, syncing) = (Place::of(path)?, path.to_owned(), Mutex::default());
        let is_settled = AtomicBool::new(false);
        let (spaces, closed) = (Some(spaces), None);
        Ok(Self { spaces, log, has_unsynced, is_settled, syncing, log_ends, path, place, closed })
    }

    /// Inspects the files of the database at `path` without opening it, and returns the damaged
    /// ones. `report` receives how many bytes have been read so far.
    pub fn inspect(
        path: &Path,
        depth: Depth,
        report: &mut dyn FnMut(u64),
    ) -> Result<Inspection, StorageError> {
        let _lock = match files::lock(path) {
            Ok(Some(lock)) => Some(lock),
            Ok(None) => return Err(in_use(path)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Inspection::without_lock());
            }
            Err(error) => return Err(at(path, "cannot be used", error)),
        };
        files::inspect(path, depth, report)
    }

    /// The error for a database that cannot be opened or read, if one of its files is damaged.
    pub fn name_damage(path: &Path) -> Option<StorageError> {
        let faults = Self::inspect(path, Depth::Whole, &mut |_| {}).ok()?.faults;
        faults.first().map(|fault| damaged(path, fault))
    }

    /// The error of a failed write, in the system's words.
    fn failed(&self, what: &str, error: &fjall::Error) -> StorageError {
        match error {
            fjall::Error::Io(cause) | fjall::Error::Storage(LsmError::Io(cause)) => {
                self.place.note(cause);
                failed(what, error)
            }
            fjall::Error::Poisoned => match self.place.cause() {
                Some(cause) => StorageError::new(what, format!("{}: {cause}", words(error))),
                None => failed(what, error),
            },
            _ => failed(what, error),
        }
    }

    /// Commits rows to fjall.
    fn commit_rows(&self, rows: Vec<Row<'_>>, sync: Durability) -> Result<(), StorageError> {
        let mode = match sync {
            Durability::Buffered => PersistMode::Buffer,
            Durability::Fsynced => PersistMode::SyncData,
        };
        let spaces = self.spaces()?;
        self.is_settled.store(false, Ordering::Release);
        guarded("writing", || {
            let mut batch = spaces.database.batch().durability(Some(mode));
            for row in rows {
                let keyspace = spaces.keyspace(row.space)?;
                match row.value {
                    Some(value) => batch.insert(keyspace, row.key, value.as_ref()),
                    None => batch.remove(keyspace, row.key),
                }
            }
            batch.commit().map_err(|error| self.failed("writing", &error))
        })?;
        if sync == Durability::Buffered {
            // Set after the commit: a sync before it did not cover the commit.
            self.has_unsynced.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Commits records to the log.
    fn commit_records(
        &self,
        rows: Vec<Row<'_>>,
        sync: Durability,
        written: &mut dyn FnMut(),
    ) -> Result<(), StorageError> {
        let mut changes = BTreeMap::new();
        for row in rows {
            let key = <[u8; 8]>::try_from(row.key.as_slice()).map(u64::from_be_bytes);
            let key =
                key.map_err(|_| StorageError::new("writing the log", "a key is no number"))?;
            match row.value {
                Some(record) if self.log.is_next(key) => {
                    self.logged(self.log.append(key, &record))?;
                }
                // A repair: only a repair changes records.
                value => drop(changes.insert(key, value.map(|value| value.into_owned()))),
            }
        }
        if !changes.is_empty() {
            self.logged(self.log.edit(changes))?;
        }
        if sync == Durability::Buffered {
            return Ok(());
        }
        written();
        self.logged(self.log.sync_for_writers())
    }

    /// The result of an operation on the log. The cause of a failure is noted, so that a later
    /// failure of fjall reports it too.
    fn logged<T>(&self, done: Result<T, StorageError>) -> Result<T, StorageError> {
        done.inspect_err(|error| self.place.note(error))
    }

    /// Makes the whole log durable before rows of the tables, and commits those rows together with
    /// the row of the log's durable end, if that has moved.
    fn commit_after_log(
        &self,
        mut rows: Vec<Row<'_>>,
        sync: Durability,
    ) -> Result<(), StorageError> {
        self.logged(self.log.sync())?;
        // Held until the commit: a thread that finds the end noted must find the note committed.
        let mut noted = self.log_ends.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = self.log.durable().filter(|ends| *noted != Some(*ends));
        rows.extend(ends.map(|ends| {
            let value: Vec<u8> =
                [ends.first, ends.salt, ends.at].iter().flat_map(|n| n.to_le_bytes()).collect();
            Row { space: Space::Meta, key: LOG_ENDS.to_vec(), value: Some(value.into()) }
        }));
        if !rows.is_empty() {
            self.commit_rows(rows, sync)?;
        }
        *noted = ends.or(*noted);
        Ok(())
    }

    fn spaces(&self) -> Result<&Spaces, StorageError> {
        self.spaces.as_ref().ok_or_else(|| StorageError::new("the database", "is closed"))
    }
}

impl Drop for FjallStorage {
    fn drop(&mut self) {
        let spaces = self.spaces.take();
        let closed = guarded("closing the database", || {
            let log = self.log.close();
            // Where fjall has failed, the files may be inconsistent.
            let written = spaces.as_ref().map(|all| all.database.persist(PersistMode::Buffer));
            written.transpose().map_err(|error| self.failed("closing the database", &error))?;
            drop(spaces);
            self.place.is_kept()?;
            log?;
            if self.is_settled.load(Ordering::Acquire) {
                files::empty_journal(&self.path)
                    .map_err(|error| at(&self.path, "cannot be closed", error))?;
            }
            files::close(&self.path).map_err(|error| at(&self.path, "cannot be closed", error))
        });
        match (&self.closed, closed) {
            (Some(sender), closed) => drop(sender.send(closed)),
            (None, Err(error)) => tracing::warn!("{error}"),
            (None, Ok(())) => {}
        }
    }
}

impl Spaces {
    fn open(path: &Path) -> Result<Self, StorageError> {
        let open =
            || Database::builder(path).worker_threads(SORTERS).cache_size(CACHE_BYTES).open();
        let mut opened = open();
        // A child process that has not executed its program yet may hold a copy of the inspection's
        // lock.
        for _ in 1..files::LOCK_TRIES {
            if !matches!(opened, Err(fjall::Error::Locked)) {
                break;
            }
            std::thread::sleep(files::LOCK_PAUSE);
            opened = open();
        }
        let database = opened.map_err(|error| explain(path, &error))?;
        let found = database.list_keyspace_names();
        let is_there = |name: &str| found.iter().any(|found| **found == *name);
        let is_gone =
            |what: &str| Err(at(path, "is damaged", format!("the files of {what} are gone")));
        let open = |name: &str, options: KeyspaceCreateOptions| {
            let options = options.max_memtable_size(MEMTABLE_BYTES);
            database.keyspace(name, || options).map_err(|error| explain(path, &error))
        };
        // They are made in this order, and all before anything is written.
        if !found.is_empty() && !is_there("meta") {
            return is_gone("the store's facts");
        }
        let meta = open("meta", KeyspaceCreateOptions::default())?;
        let is_written = !meta.is_empty().map_err(|error| explain(path, &error))?;
        if is_written && !is_there("table") {
            return is_gone("the tables");
        }
        // The tables are read sequentially, at start, and never by key.
        let scanned = KeyspaceCreateOptions::default()
            .filter_policy(FilterPolicy::disabled())
            .data_block_size_policy(BlockSizePolicy::all(TABLE_BLOCK_BYTES));
        let table = open("table", scanned)?;
        Ok(Self { database, meta, table })
    }

    fn keyspace(&self, space: Space) -> Result<&Keyspace, StorageError> {
        match space {
            Space::Meta => Ok(&self.meta),
            Space::Table => Ok(&self.table),
            Space::Log => {
                Err(StorageError::new(reading(space), "the database has no such keyspace"))
            }
        }
    }

    fn known_of_log(&self) -> Result<Known, StorageError> {
        let read = |key| self.meta.get(key).map_err(|error| failed("opening the log", &error));
        let (begins, ends) = (read(LOG_BEGINS)?, read(LOG_ENDS)?);
        Ok(Known::decode(begins.as_deref(), ends.as_deref()))
    }
}

/// The error for a damaged store.
fn damaged(path: &Path, fault: &FileFault) -> StorageError {
    let text = format!("{fault}; `vatn check` says more, --repair keeps what can be read");
    at(path, "is damaged", text)
}

fn at(path: &Path, what: &str, source: impl Into<super::Source>) -> StorageError {
    StorageError::new(&format!("the database {} {what}", path.display()), source)
}

/// The error for a store that another process has open.
pub(super) fn in_use(path: &Path) -> StorageError {
    explain(path, &fjall::Error::Locked)
}

/// Describes fjall's error for a database that is being opened.
fn explain(path: &Path, error: &fjall::Error) -> StorageError {
    match error {
        fjall::Error::Locked => at(
            path,
            "is in use",
            "another broker has it open; stop that one, or choose another with -b",
        ),
        other => at(path, "cannot be used", words(other)),
    }
}

/// The error of a batch that could not be written or read.
fn failed(what: &str, error: &fjall::Error) -> StorageError {
    match error {
        fjall::Error::Io(cause) | fjall::Error::Storage(LsmError::Io(cause)) => {
            StorageError::new(what, super::copy(cause))
        }
        other => StorageError::new(what, words(other)),
    }
}

/// fjall's own `Display` prints the `Debug` form.
fn words(error: &fjall::Error) -> String {
    const DAMAGED: &str = "the bytes on disk have changed; `vatn check` names the file";
    match error {
        fjall::Error::Io(cause) | fjall::Error::Storage(LsmError::Io(cause)) => cause.to_string(),
        fjall::Error::Poisoned => "an earlier write failed; restart the broker".to_owned(),
        fjall::Error::InvalidVersion(version) => {
            format!("it has a format this vatn cannot read: version {version:?}")
        }
        fjall::Error::Storage(LsmError::ChecksumMismatch { .. }) => {
            format!("a checksum does not match: {DAMAGED}")
        }
        other => format!("{other:?}: {DAMAGED}"),
    }
}

/// The description of a read of a space.
fn reading(space: Space) -> &'static str {
    match space {
        Space::Meta => "reading the store's facts",
        Space::Table => "reading the tables",
        Space::Log => "reading the log",
    }
}

impl Storage for FjallStorage {
    fn commit(&self, rows: Vec<Row<'_>>, sync: Durability) -> Result<(), StorageError> {
        self.commit_in_steps(rows, sync, &mut || {})
    }

    fn commit_in_steps(
        &self,
        rows: Vec<Row<'_>>,
        sync: Durability,
        written: &mut dyn FnMut(),
    ) -> Result<(), StorageError> {
        self.log.is_well()?;
        let (records, rows): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| row.space == Space::Log);
        // The log checks its own file, and the next sync checks the directory.
        let is_looked_after =
            rows.is_empty() && !records.is_empty() && sync == Durability::Buffered;
        if rows.iter().any(|row| row.space == Space::Table) {
            self.commit_after_log(rows, sync)?;
            self.place.has_rows()?;
        } else if !rows.is_empty() {
            self.commit_rows(rows, sync)?;
        }
        if !records.is_empty() {
            self.commit_records(records, sync, written)?;
        }
        if is_looked_after { Ok(()) } else { self.place.is_kept() }
    }

    fn appends_at_once(&self) -> bool {
        self.log.appends_at_once()
    }

    fn preallocate(&self, free_bytes: u64) -> bool {
        self.log.preallocate(free_bytes)
    }

    fn load(&self, next: &mut NextRows<'_>) -> Result<(), StorageError> {
        let spaces = self.spaces()?;
        let ended = guarded("writing the tables", || {
            let failed = |error| self.failed("writing the tables", &error);
            let mut sorted = spaces.table.start_ingestion().map_err(failed)?;
            loop {
                let rows = next()?;
                if rows.is_empty() {
                    break;
                }
                for row in rows {
                    match row.value {
                        Some(value) => sorted.write(row.key, value.as_ref()),
                        None => sorted.write_tombstone(row.key),
                    }
                    .map_err(failed)?;
                }
            }
            // The rows must not survive where their log does not.
            self.commit_after_log(Vec::new(), Durability::Buffered)?;
            self.sync()?;
            sorted.finish().map_err(failed)
        });
        ended?;
        self.place.is_kept()?;
        self.place.has_rows()
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.logged(self.log.sync())?;
        let alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_unsynced.swap(false, Ordering::AcqRel) {
            let spaces = self.spaces()?;
            guarded("syncing", || {
                let synced = spaces.database.persist(PersistMode::SyncAll);
                synced.map_err(|error| self.failed("syncing", &error))
            })
            // A caller after a failure must not find the log synced either.
            .inspect_err(|_| self.has_unsynced.store(true, Ordering::Release))?;
        }
        drop(alone);
        self.place.is_kept()
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        if space == Space::Log {
            return Ok(self.floor(space, key)?.filter(|found| found.0 == key).map(|found| found.1));
        }
        let (keyspace, what) = (self.spaces()?.keyspace(space)?, reading(space));
        guarded(what, || {
            let found = keyspace.get(key).map_err(|error| failed(what, &error))?;
            Ok(found.map(|value| value.to_vec()))
        })
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        let (spaces, what) = (self.spaces()?, reading(space));
        if space == Space::Log {
            return self.log.scan(first_key(from), each);
        }
        let keyspace = spaces.keyspace(space)?;
        guarded(what, || {
            for guard in keyspace.range(from..) {
                let (key, value) = guard.into_inner().map_err(|error| failed(what, &error))?;
                if !each(&key, &value) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn floor(&self, space: Space, key: &[u8]) -> Result<Option<KeyValue>, StorageError> {
        if space == Space::Log {
            let found = self.log.floor(first_key(key))?;
            return Ok(found.map(|(key, record)| (key.to_be_bytes().to_vec(), record)));
        }
        let (keyspace, what) = (self.spaces()?.keyspace(space)?, reading(space));
        guarded(what, || {
            let Some(guard) = keyspace.range(..=key).next_back() else { return Ok(None) };
            let (key, value) = guard.into_inner().map_err(|error| failed(what, &error))?;
            Ok(Some((key.to_vec(), value.to_vec())))
        })
    }

    fn trim_log(&self, before: u64) -> Result<(), StorageError> {
        let Some(begins) = self.logged(self.log.kept_from(before))? else { return Ok(()) };
        let value = Some(begins.to_le_bytes().to_vec().into());
        let noted = Row { space: Space::Meta, key: LOG_BEGINS.to_vec(), value };
        self.commit_rows(vec![noted], Durability::Fsynced)?;
        self.place.is_kept()?;
        self.log.remove_before(begins)
    }

    fn settle(&self) -> Result<(), StorageError> {
        if self.room().is_some_and(|room| room.free < room.low) {
            tracing::warn!("the disk is full, so the next start takes longer");
            return self.place.has_rows();
        }
        match guarded("settling", || self.flush_memtables("settling"))? {
            true => self.is_settled.store(true, Ordering::Release),
            false => tracing::warn!("the next start takes longer: rows are not in tables yet"),
        }
        self.place.has_rows()
    }

    fn room(&self) -> Option<Room> {
        let measured = self.measure_room();
        measured.inspect_err(|error| tracing::debug!("the room is not known: {error}")).ok()
    }

    fn usage(&self) -> StorageUsage {
        StorageUsage::of(&self.path)
    }

    fn compact(&self) -> Result<(), StorageError> {
        self.merge_tables()
    }

    fn keep_house(&self) -> Result<(), StorageError> {
        self.hold_reserve();
        self.release_journals()
    }
}

#[cfg(test)]
mod tests;
