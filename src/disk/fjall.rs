//! The disk that fjall 3 makes: spaces are keyspaces, a batch is a fjall batch, fsync is its
//! journal's.
//!
//! All writes go through batches, because `Keyspace::insert` journals before it asserts the key's
//! length.

use super::files::{self, Depth, Inspection};
use super::guard::guarded;
use super::place::Place;
use super::{Disk, DiskError, KeyValue, NextRows, Row, Space, Sync};
use fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Rows that fjall keeps in memory before it writes a sorted file, in bytes, for each space.
const MEMTABLE_BYTES: u64 = 32 << 20;

/// How long a stop may take to sort what is in memory.
const SETTLE_TIME: Duration = Duration::from_secs(20);
const SETTLE_LOOK: Duration = Duration::from_millis(2);
/// Blocks of files that fjall keeps in memory: all values are in the map, so few are read again.
const CACHE_BYTES: u64 = 8 << 20;

/// Bytes of rows that are written, and read, as one.
const TABLE_BLOCK_BYTES: u32 = 16 << 10;

/// Threads that sort and compact. With more than one, the first puts back every compaction it takes
/// from their queue, and takes it again at once (fjall 3.1.13).
const SORTERS: usize = 1;

/// A fjall database.
pub struct FjallDisk {
    spaces: Option<Spaces>,
    path: PathBuf,
    place: Place,
}

/// What is fjall's. It is dropped as one: the database's lock lives as long as any keyspace.
struct Spaces {
    database: Database,
    meta: Keyspace,
    table: Keyspace,
    log: Keyspace,
}

impl std::fmt::Debug for FjallDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FjallDisk").field("path", &self.path).finish_non_exhaustive()
    }
}

impl FjallDisk {
    /// Opens the database at `path`, or makes it. A file that is damaged is named, and nothing is
    /// changed.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        if path.exists() && !path.is_dir() {
            return Err(at(path, "is a file", &"name a directory with -b"));
        }
        std::fs::create_dir_all(path).map_err(|error| at(path, "cannot be made", &error))?;
        files::clear_unmade(path).map_err(|error| at(path, "cannot be used", &error))?;
        let is_store = files::is_store(path);
        if is_store {
            let inspection = Self::inspect(path, Depth::Start, &mut |_| {})?;
            if let Some(fault) = inspection.faults.first() {
                let text = format!("{fault}; `vatn check` says more, with --repair it mends");
                return Err(at(path, "is damaged", &text));
            }
            files::reopen(path, &inspection).map_err(|error| at(path, "cannot be used", &error))?;
        }
        match guarded("opening the database", || Spaces::open(path)) {
            Ok(spaces) => {
                let place = Place::of(path)?;
                Ok(Self { spaces: Some(spaces), path: path.to_owned(), place })
            }
            // A store that could not be made is not a damaged one.
            Err(error) if !is_store => Err(error),
            Err(error) => Err(Self::name_suspect(path).unwrap_or(error)),
        }
    }

    /// Looks at the files of the database at `path` without opening it, and says which are damaged.
    /// `report` hears how many bytes have been read.
    pub fn inspect(
        path: &Path,
        depth: Depth,
        report: &mut dyn FnMut(u64),
    ) -> Result<Inspection, DiskError> {
        let _lock = match files::lock(path) {
            Ok(Some(lock)) => Some(lock),
            Ok(None) => return Err(explain(path, &fjall::Error::Locked)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Inspection::without_lock());
            }
            Err(error) => return Err(at(path, "cannot be used", &error)),
        };
        files::inspect(path, depth, report)
    }

    /// What a database that cannot be opened suffers from, if a file of it is damaged.
    fn name_suspect(path: &Path) -> Option<DiskError> {
        let faults = Self::inspect(path, Depth::Whole, &mut |_| {}).ok()?.faults;
        faults.first().map(|fault| at(path, "is damaged", fault))
    }

    /// What went wrong while something was written, in the system's words.
    fn failed(&self, what: &str, error: &fjall::Error) -> DiskError {
        match error {
            fjall::Error::Io(cause) | fjall::Error::Storage(LsmError::Io(cause)) => {
                self.place.note(cause);
                failed(what, error)
            }
            fjall::Error::Poisoned => match self.place.cause() {
                Some(cause) => DiskError::new(what, format!("{}: {cause}", words(error))),
                None => failed(what, error),
            },
            _ => failed(what, error),
        }
    }

    fn spaces(&self) -> Result<&Spaces, DiskError> {
        self.spaces.as_ref().ok_or_else(|| DiskError::new("the database", "is closed"))
    }
}

impl Drop for FjallDisk {
    fn drop(&mut self) {
        let spaces = self.spaces.take();
        let closed = guarded("closing the database", || {
            drop(spaces);
            self.place.is_kept()?;
            files::close(&self.path).map_err(|error| at(&self.path, "cannot be closed", &error))
        });
        if let Err(error) = closed {
            tracing::warn!("{error}");
        }
    }
}

impl Spaces {
    fn open(path: &Path) -> Result<Self, DiskError> {
        let opened = Database::builder(path).worker_threads(SORTERS).cache_size(CACHE_BYTES).open();
        let database = opened.map_err(|error| explain(path, &error))?;
        let found = database.list_keyspace_names();
        let is_there = |name: &str| found.iter().any(|found| **found == *name);
        let is_gone =
            |what: &str| Err(at(path, "is damaged", &format!("the files of {what} are gone")));
        let open = |name: &str, options: KeyspaceCreateOptions| {
            let options = options.max_memtable_size(MEMTABLE_BYTES);
            database.keyspace(name, || options).map_err(|error| explain(path, &error))
        };
        // They are made in this order, all of them before anything is written.
        if !found.is_empty() && !is_there("meta") {
            return is_gone("the store's facts");
        }
        let meta = open("meta", KeyspaceCreateOptions::default())?;
        let is_written = !meta.is_empty().map_err(|error| explain(path, &error))?;
        if is_written && !is_there("table") {
            return is_gone("the tables");
        }
        if is_written && !is_there("log") {
            return is_gone("the log");
        }
        // The tables are read from end to end, at start, and never by the key.
        let scanned = KeyspaceCreateOptions::default()
            .filter_policy(FilterPolicy::disabled())
            .data_block_size_policy(BlockSizePolicy::all(TABLE_BLOCK_BYTES));
        let table = open("table", scanned)?;
        // Records are written once, read seldom and dropped soon.
        let plain = CompressionPolicy::all(CompressionType::None);
        let log = KeyspaceCreateOptions::default().data_block_compression_policy(plain);
        let log = open("log", log)?;
        Ok(Self { database, meta, table, log })
    }

    fn keyspace(&self, space: Space) -> &Keyspace {
        match space {
            Space::Meta => &self.meta,
            Space::Table => &self.table,
            Space::Log => &self.log,
        }
    }
}

fn at(path: &Path, what: &str, cause: &dyn std::fmt::Display) -> DiskError {
    DiskError::new(&format!("the database {} {what}", path.display()), cause)
}

/// fjall's error in words, for a database that is opened.
fn explain(path: &Path, error: &fjall::Error) -> DiskError {
    match error {
        fjall::Error::Locked => at(
            path,
            "is in use",
            &"another broker has it open; stop that one, or choose another with -b",
        ),
        other => at(path, "cannot be used", &words(other)),
    }
}

/// What went wrong while a batch was written or read.
fn failed(what: &str, error: &fjall::Error) -> DiskError {
    DiskError::new(what, words(error))
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

/// What is being done to a space when it is read.
fn reading(space: Space) -> &'static str {
    match space {
        Space::Meta => "reading the store's facts",
        Space::Table => "reading the tables",
        Space::Log => "reading the log",
    }
}

impl Disk for FjallDisk {
    fn commit(&self, rows: Vec<Row<'_>>, sync: Sync) -> Result<(), DiskError> {
        let mode = match sync {
            Sync::Buffer => PersistMode::Buffer,
            Sync::Data => PersistMode::SyncData,
        };
        let spaces = self.spaces()?;
        guarded("writing", || {
            let mut batch = spaces.database.batch().durability(Some(mode));
            for row in rows {
                let keyspace = spaces.keyspace(row.space);
                match row.value {
                    Some(value) => batch.insert(keyspace, row.key, value.as_ref()),
                    None => batch.remove(keyspace, row.key),
                }
            }
            batch.commit().map_err(|error| self.failed("writing", &error))
        })?;
        self.place.is_kept()
    }

    fn load(&self, next: &mut NextRows<'_>) -> Result<(), DiskError> {
        let spaces = self.spaces()?;
        let ended = guarded("writing the tables", || {
            let failed = |error| self.failed("writing the tables", &error);
            let mut sorted = spaces.table.start_ingestion().map_err(failed)?;
            loop {
                let rows = match next() {
                    Ok(rows) => rows,
                    Err(error) => return Err(error),
                };
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
            // What the rows show must not survive where the log of it does not.
            self.sync()?;
            sorted.finish().map_err(failed)
        });
        ended?;
        self.place.is_kept()
    }

    fn sync(&self) -> Result<(), DiskError> {
        let spaces = self.spaces()?;
        guarded("syncing", || {
            let synced = spaces.database.persist(PersistMode::SyncAll);
            synced.map_err(|error| self.failed("syncing", &error))
        })?;
        self.place.is_kept()
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        let (keyspace, what) = (self.spaces()?.keyspace(space), reading(space));
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
    ) -> Result<(), DiskError> {
        let (keyspace, what) = (self.spaces()?.keyspace(space), reading(space));
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

    fn floor(&self, space: Space, key: &[u8]) -> Result<Option<KeyValue>, DiskError> {
        let (keyspace, what) = (self.spaces()?.keyspace(space), reading(space));
        guarded(what, || {
            let Some(guard) = keyspace.range(..=key).next_back() else { return Ok(None) };
            let (key, value) = guard.into_inner().map_err(|error| failed(what, &error))?;
            Ok(Some((key.to_vec(), value.to_vec())))
        })
    }

    fn settle(&self) -> Result<(), DiskError> {
        guarded("settling", || {
            let spaces = self.spaces()?;
            let all = [&spaces.table, &spaces.log, &spaces.meta];
            for space in all {
                space.rotate_memtable().map_err(|error| failed("settling", &error))?;
            }
            // fjall's own way of waiting has no end where the disk fails.
            let deadline = Instant::now() + SETTLE_TIME;
            while all.iter().any(|space| space.sealed_memtable_count() > 0) {
                if Instant::now() >= deadline {
                    return Err(DiskError::new("settling", "it takes too long"));
                }
                std::thread::sleep(SETTLE_LOOK);
            }
            Ok(())
        })
    }

    fn bytes(&self) -> u64 {
        self.spaces.as_ref().and_then(|spaces| spaces.database.disk_space().ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<'a>(space: Space, key: &[u8], value: Option<&'a [u8]>) -> Row<'a> {
        Row { space, key: key.to_vec(), value: value.map(Into::into) }
    }

    #[test]
    fn what_is_committed_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FjallDisk::open(folder.path()).unwrap();
        let rows = vec![row(Space::Table, b"k", Some(b"v")), row(Space::Log, b"r", Some(b"w"))];
        disk.commit(rows, Sync::Data).unwrap();
        let second = FjallDisk::open(folder.path()).unwrap_err();
        assert!(second.text().contains("is in use"), "{second}");
        drop(disk);
        let disk = FjallDisk::open(folder.path()).unwrap();
        assert_eq!(disk.get(Space::Table, b"k").unwrap(), Some(b"v".to_vec()));
        assert_eq!(disk.floor(Space::Log, b"s").unwrap(), Some((b"r".to_vec(), b"w".to_vec())));
    }

    #[test]
    fn a_database_whose_making_was_cut_short_is_made_again() {
        // In the order in which fjall makes them.
        let steps = ["lock", "keyspaces", "0.jnl", "version"];
        for done in 1..=steps.len() {
            let folder = tempfile::tempdir().unwrap();
            for step in &steps[..done] {
                match *step {
                    "keyspaces" => std::fs::create_dir(folder.path().join(step)).unwrap(),
                    "0.jnl" => std::fs::write(folder.path().join(step), [0; 1 << 20]).unwrap(),
                    _ => std::fs::write(folder.path().join(step), []).unwrap(),
                }
            }
            let disk = FjallDisk::open(folder.path()).unwrap();
            disk.commit(vec![row(Space::Table, b"k", Some(b"v"))], Sync::Data).unwrap();
            drop(disk);
            let disk = FjallDisk::open(folder.path()).unwrap();
            assert_eq!(disk.get(Space::Table, b"k").unwrap(), Some(b"v".to_vec()), "{done}");
        }
    }
}
