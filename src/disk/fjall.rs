//! The disk that fjall 3 makes: spaces are keyspaces, a batch is a fjall batch, fsync is its
//! journal's.
//!
//! All writes go through batches, because `Keyspace::insert` journals before it asserts the key's
//! length.

use super::{Disk, DiskError, KeyValue, Row, Space, Sync};
use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::path::{Path, PathBuf};

/// Rows that fjall keeps in memory before it writes a sorted file, in bytes, for each space.
const MEMTABLE_BYTES: u64 = 32 << 20;

/// A fjall database.
pub struct FjallDisk {
    database: Database,
    meta: Keyspace,
    table: Keyspace,
    log: Keyspace,
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
        let open = |name: &str, options: KeyspaceCreateOptions| {
            let options = options.max_memtable_size(MEMTABLE_BYTES);
            database.keyspace(name, || options).map_err(|error| explain(path, &error))
        };
        let meta = open("meta", KeyspaceCreateOptions::default())?;
        let table = open("table", KeyspaceCreateOptions::default())?;
        // Records are written once, read seldom and dropped soon.
        let plain = CompressionPolicy::all(CompressionType::None);
        let log = KeyspaceCreateOptions::default().data_block_compression_policy(plain);
        let log = open("log", log)?;
        Ok(Self { database, meta, table, log, path: path.to_owned() })
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
            let keyspace = self.keyspace(row.space);
            match row.value {
                Some(value) => batch.insert(keyspace, row.key, value.as_ref()),
                None => batch.remove(keyspace, row.key),
            }
        }
        batch.commit().map_err(|error| failed("writing", &error))
    }

    fn sync(&self) -> Result<(), DiskError> {
        self.database.persist(PersistMode::SyncAll).map_err(|error| failed("syncing", &error))
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        let found = self.keyspace(space).get(key).map_err(|error| failed("reading", &error))?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), DiskError> {
        for guard in self.keyspace(space).range(from..) {
            let (key, value) = guard.into_inner().map_err(|error| failed("reading", &error))?;
            if !each(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn floor(&self, space: Space, key: &[u8]) -> Result<Option<KeyValue>, DiskError> {
        let Some(guard) = self.keyspace(space).range(..=key).next_back() else { return Ok(None) };
        let (key, value) = guard.into_inner().map_err(|error| failed("reading", &error))?;
        Ok(Some((key.to_vec(), value.to_vec())))
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
        let rows = vec![row(Space::Table, b"k", Some(b"v")), row(Space::Log, b"r", Some(b"w"))];
        disk.commit(rows, Sync::Data).unwrap();
        let second = FjallDisk::open(folder.path()).unwrap_err();
        assert!(second.text().contains("is in use"), "{second}");
        drop(disk);
        let disk = FjallDisk::open(folder.path()).unwrap();
        assert_eq!(disk.get(Space::Table, b"k").unwrap(), Some(b"v".to_vec()));
        assert_eq!(disk.floor(Space::Log, b"s").unwrap(), Some((b"r".to_vec(), b"w".to_vec())));
    }
}
