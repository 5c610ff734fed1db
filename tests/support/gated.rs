//! A slow disk: its writers, and the compactor that reads its usage, wait while the test holds it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use vatn::storage::{
    Durability, KeyValue, MemoryStorage, Row, Space, Storage, StorageError, StorageUsage,
};

/// A disk in memory that can be held.
#[derive(Debug, Default)]
pub struct GatedDisk {
    pub disk: MemoryStorage,
    gate: Mutex<()>,
    measures: Mutex<()>,
    waiting: AtomicUsize,
}

impl GatedDisk {
    /// All writes wait until the returned guard is dropped.
    pub fn hold(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap()
    }

    /// The compactor waits for the usage until the returned guard is dropped.
    pub fn hold_compactor(&self) -> MutexGuard<'_, ()> {
        self.measures.lock().unwrap()
    }

    /// How many threads wait to write.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        drop(self.gate.lock().unwrap());
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Storage for GatedDisk {
    fn commit(&self, rows: Vec<Row<'_>>, sync: Durability) -> Result<(), StorageError> {
        self.pass();
        self.disk.commit(rows, sync)
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.pass();
        self.disk.sync()
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.disk.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        self.disk.scan(space, from, each)
    }

    fn floor(&self, space: Space, key: &[u8]) -> Result<Option<KeyValue>, StorageError> {
        self.disk.floor(space, key)
    }

    fn trim_log(&self, before: u64) -> Result<(), StorageError> {
        self.disk.trim_log(before)
    }

    fn usage(&self) -> StorageUsage {
        if std::thread::current().name() == Some("vatn-compact") {
            drop(self.measures.lock().unwrap());
        }
        self.disk.usage()
    }
}
