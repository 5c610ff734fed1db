//! The disk that fjall 3 makes: spaces are keyspaces, a batch is a fjall batch, fsync is its
//! journal's.
//!
//! All writes go through batches, because `Keyspace::insert` journals before it asserts the key's
//! length.

use super::{Disk, DiskError, KeyValue, Row, Space, Sync};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

/// Rows that fjall keeps in memory before it writes a sorted file, in bytes, for the tables.
const TABLE_MEMTABLE_BYTES: u64 = 64 << 20;
/// The same for a log segment: more than a segment holds, so that one is dropped before it is
/// sorted.
const LOG_MEMTABLE_BYTES: u64 = 256 << 20;

/// A fjall database.
pub struct FjallDisk {
    database: Database,
    meta: Keyspace,
    table: Keyspace,
    segments: RwLock<BTreeMap<u64, Keyspace>>,
    path: PathBuf,
}

impl std::fmt::Debug for FjallDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FjallDisk").field("path", &self.path).finish_non_exhaustive()
    }
}

impl FjallDisk {
    /// Opens the database at `path`, or makes it.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        std::fs::create_dir_all(path).map_err(|error| at(path, "cannot be made", &error))?;
        let opened = Database::builder(path).worker_threads(2).open();
        let database = opened.map_err(|error| explain(path, &error))?;
        let open = |name: &str, bytes: u64| {
            let options = || KeyspaceCreateOptions::default().max_memtable_size(bytes);
            database.keyspace(name, options).map_err(|error| explain(path, &error))
        };
        let meta = open("meta", 1 << 20)?;
        let table = open("table", TABLE_MEMTABLE_BYTES)?;
        let mut segments = BTreeMap::new();
        for name in database.list_keyspace_names() {
            if let Some(id) = segment_id(&name) {
                segments.insert(id, open(&name, LOG_MEMTABLE_BYTES)?);
            }
        }
        Ok(Self { database, meta, table, segments: RwLock::new(segments), path: path.to_owned() })
    }

    fn keyspace(&self, space: Space) -> Result<Keyspace, DiskError> {
        match space {
            Space::Meta => Ok(self.meta.clone()),
            Space::Table => Ok(self.table.clone()),
            Space::Log(id) => {
                let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
                let found = segments.get(&id).cloned();
                found.ok_or_else(|| {
                    DiskError::new("log", format!("no segment {}", segment_name(id)))
                })
            }
        }
    }
}

fn segment_name(id: u64) -> String {
    format!("log-{id:016x}")
}

fn segment_id(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("log-")?, 16).ok()
}

fn at(path: &Path, what: &str, cause: &dyn std::fmt::Display) -> DiskError {
    DiskError::new(&format!("the database {} {what}", path.display()), cause)
}

/// fjall's error in words: its own `Display` prints the `Debug` form.
fn explain(path: &Path, error: &fjall::Error) -> DiskError {
    match error {
        fjall::Error::Locked => at(
            path,
            "is in use",
            &"another broker has it open; stop that one, or choose another with -b",
        ),
        fjall::Error::Io(cause) => at(path, "cannot be used", cause),
        fjall::Error::InvalidVersion(version) => {
            at(path, "has a format this vatn cannot read", &format!("version {version:?}"))
        }
        other => at(path, "cannot be used", other),
    }
}

/// What went wrong while a batch was written or read.
fn failed(what: &str, error: &fjall::Error) -> DiskError {
    match error {
        fjall::Error::Io(cause) => DiskError::new(what, cause),
        fjall::Error::Poisoned => {
            DiskError::new(what, "an earlier write failed; restart the broker")
        }
        other => DiskError::new(what, other),
    }
}

impl Disk for FjallDisk {
    fn commit(&self, rows: Vec<Row<'_>>, sync: Sync) -> Result<(), DiskError> {
        let mode = match sync {
            Sync::Buffer => PersistMode::Buffer,
            Sync::Data => PersistMode::SyncData,
        };
        let mut batch = self.database.batch().durability(Some(mode));
        for row in rows {
            let keyspace = self.keyspace(row.space)?;
            match row.value {
                Some(value) => batch.insert(&keyspace, row.key, value.as_ref()),
                None => batch.remove(&keyspace, row.key),
            }
        }
        batch.commit().map_err(|error| failed("writing", &error))
    }

    fn sync(&self) -> Result<(), DiskError> {
        self.database.persist(PersistMode::SyncAll).map_err(|error| failed("syncing", &error))
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        let found = self.keyspace(space)?.get(key).map_err(|error| failed("reading", &error))?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), DiskError> {
        for guard in self.keyspace(space)?.range(from..) {
            let (key, value) = guard.into_inner().map_err(|error| failed("reading", &error))?;
            if !each(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn floor(&self, space: Space, key: &[u8]) -> Result<Option<KeyValue>, DiskError> {
        let Some(guard) = self.keyspace(space)?.range(..=key).next_back() else { return Ok(None) };
        let (key, value) = guard.into_inner().map_err(|error| failed("reading", &error))?;
        Ok(Some((key.to_vec(), value.to_vec())))
    }

    fn segments(&self) -> Result<Vec<u64>, DiskError> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        Ok(segments.keys().copied().collect())
    }

    fn create_segment(&self, id: u64) -> Result<(), DiskError> {
        let options = || KeyspaceCreateOptions::default().max_memtable_size(LOG_MEMTABLE_BYTES);
        let made = self.database.keyspace(&segment_name(id), options);
        let keyspace = made.map_err(|error| failed("making a log segment", &error))?;
        self.segments.write().unwrap_or_else(PoisonError::into_inner).insert(id, keyspace);
        Ok(())
    }

    fn seal_segment(&self, id: u64) -> Result<(), DiskError> {
        let rotated = self.keyspace(Space::Log(id))?.rotate_memtable();
        rotated.map(|_| ()).map_err(|error| failed("sealing a log segment", &error))
    }

    fn drop_segment(&self, id: u64) -> Result<(), DiskError> {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let Some(keyspace) = segments.remove(&id) else {
            return Ok(());
        };
        drop(segments);
        self.database
            .delete_keyspace(keyspace)
            .map_err(|error| failed("dropping a log segment", &error))
    }

    fn bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
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
        disk.create_segment(7).unwrap();
        let rows = vec![row(Space::Table, b"k", Some(b"v")), row(Space::Log(7), b"r", Some(b"w"))];
        disk.commit(rows, Sync::Data).unwrap();
        let second = FjallDisk::open(folder.path()).unwrap_err();
        assert!(second.text().contains("is in use"), "{second}");
        drop(disk);
        let disk = FjallDisk::open(folder.path()).unwrap();
        assert_eq!(disk.get(Space::Table, b"k").unwrap(), Some(b"v".to_vec()));
        assert_eq!(disk.segments().unwrap(), [7]);
        disk.drop_segment(7).unwrap();
        drop(disk);
        assert_eq!(FjallDisk::open(folder.path()).unwrap().segments().unwrap(), [0_u64; 0]);
    }
}
