//! Room that fjall would never give back by itself.
//!
//! It moves sorted files without overlap to its last level unread, and never looks at that level
//! again; so rows that were deleted stay. And it removes a journal only when every keyspace has
//! flushed what is in it, which one that is seldom written to never does.

use super::{FjallStorage, Spaces, guarded, reserve};
use crate::storage::{Room, StorageError};
use fjall::{AbstractTree, Keyspace, PersistMode, SeqNo};
use std::time::{Duration, Instant};

/// How long it may take to sort what is in memory.
const SETTLE_TIME: Duration = Duration::from_secs(20);
const SETTLE_LOOK: Duration = Duration::from_millis(2);
/// Sorted files are about so long: fjall's own measure.
const FILE_BYTES: u64 = 64_000_000;

/// Versions of rows, and of the list of files, that are older than this are of no use but for the
/// newest. Nobody here reads a snapshot.
const NO_SNAPSHOT: SeqNo = SeqNo::MAX;

impl Spaces {
    fn all(&self) -> impl Iterator<Item = &Keyspace> {
        [&self.table, &self.meta].into_iter()
    }
}

impl FjallStorage {
    /// Has everything in memory sorted, and waits for it.
    pub(super) fn flush_memtables(&self, what: &str) -> Result<bool, StorageError> {
        let spaces = self.spaces()?;
        for space in spaces.all() {
            space.rotate_memtable().map_err(|error| self.failed(what, &error))?;
        }
        // fjall's own way of waiting has no end where the disk fails.
        let deadline = Instant::now() + SETTLE_TIME;
        while spaces.all().any(|space| space.sealed_memtable_count() > 0) {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            // The thread that writes them ends with an error, and tells it in this way alone.
            let written = spaces.database.persist(PersistMode::Buffer);
            written.map_err(|error| self.failed(what, &error))?;
            std::thread::sleep(SETTLE_LOOK);
        }
        Ok(true)
    }

    /// Merges all sorted files into new ones, without the rows that are dead. The old ones go when
    /// the new ones are on the medium.
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

    /// The room on the medium. Where there is little, recycled log files go too.
    pub(super) fn measure_room(&self) -> std::io::Result<Room> {
        let room = reserve::measure(&self.path)?;
        if room.free < room.low {
            self.log.release_spares()?;
        }
        Ok(room)
    }

    /// Holds some room back for deletes. That fails where there is none, and is no failure.
    pub(super) fn hold_reserve(&self) {
        if let Err(error) = reserve::hold(&self.path) {
            tracing::debug!("no room is held back: {error}");
        }
    }

    /// Where a journal is full, has fjall begin to sort what is in it, so that it can go.
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
