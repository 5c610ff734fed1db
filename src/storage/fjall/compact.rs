//! Reclaims disk space that fjall never reclaims by itself.
//!
//! fjall moves sorted files without overlap to its last level unread, and never revisits that
//! level, so deleted rows stay. It also removes a journal only when every keyspace has flushed its
//! rows, and a keyspace with few writes never does.

use super::{FjallStorage, Spaces, guarded, reserve};
use crate::storage::{Room, StorageError};
use fjall::{AbstractTree, Keyspace, PersistMode, SeqNo};
use std::time::{Duration, Instant};

/// How long sorting the rows in memory may take.
const SETTLE_TIME: Duration = Duration::from_secs(20);
const SETTLE_LOOK: Duration = Duration::from_millis(2);
/// The target size of sorted files: fjall's default.
const FILE_BYTES: u64 = 64_000_000;

/// Row versions and file lists older than this are obsolete, except the newest. No code here reads
/// a snapshot.
const NO_SNAPSHOT: SeqNo = SeqNo::MAX;

impl Spaces {
    fn all(&self) -> impl Iterator<Item = &Keyspace> {
        [&self.table, &self.meta].into_iter()
    }
}

impl FjallStorage {
    /// Has fjall sort all rows in memory, and waits for that.
    pub(super) fn flush_memtables(&self, what: &str) -> Result<bool, StorageError> {
        let spaces = self.spaces()?;
        for space in spaces.all() {
            space.rotate_memtable().map_err(|error| self.failed(what, &error))?;
        }
        // fjall's own wait never ends where the disk fails.
        let deadline = Instant::now() + SETTLE_TIME;
        while spaces.all().any(|space| space.sealed_memtable_count() > 0) {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            // The thread that writes them ends with an error, and shows it only by ending.
            let written = spaces.database.persist(PersistMode::Buffer);
            written.map_err(|error| self.failed(what, &error))?;
            std::thread::sleep(SETTLE_LOOK);
        }
        Ok(true)
    }

    /// Merges all sorted files into new ones, without dead rows. The old files are removed when the
    /// new ones are on the disk.
    pub(super) fn merge_tables(&self) -> Result<(), StorageError> {
        guarded("compacting", || {
            if !self.flush_memtables("compacting")? {
                return Err(StorageError::new("compacting", "it takes too long"));
            }
            for space in self.spaces()?.all() {
                let done = space.tree.major_compact(FILE_BYTES, NO_SNAPSHOT);
                done.map_err(|error| self.failed("compacting", &error.into()))?;
            }
            Ok(())
        })
    }

    /// The free space of the disk. Where it is low, recycled log files are removed too.
    pub(super) fn measure_room(&self) -> std::io::Result<Room> {
        let room = reserve::measure(&self.path)?;
        if room.free < room.low {
            self.log.release_spares()?;
        }
        Ok(room)
    }

    /// Keeps a reserve for deletes. This fails where there is no space, and that is no error.
    pub(super) fn hold_reserve(&self) {
        if let Err(error) = reserve::hold(&self.path) {
            tracing::debug!("no room is held back: {error}");
        }
    }

    /// Where a journal is full, makes fjall begin to sort its rows, so that the journal can be
    /// removed.
    pub(super) fn release_journals(&self) -> Result<(), StorageError> {
        let spaces = self.spaces()?;
        if spaces.database.journal_count() < 2 {
            return Ok(());
        }
        guarded("sorting what is in the journals", || {
            let rotate = |space: &Keyspace| space.rotate_memtable().map(drop);
            let rotated = spaces.all().try_for_each(rotate);
            rotated.map_err(|error| self.failed("sorting what is in the journals", &error))
        })
    }
}
