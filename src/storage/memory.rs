//! A disk in memory, for tests: it can fail at the Nth operation, and lose unsynced data.
//!
//! It guarantees no more than the real disk: the log and all other rows lose their unsynced data
//! independently, and trimmed records are removed at once.

use super::{Durability, KeyValue, Row, Space, Storage, StorageError, StorageUsage};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
type Spaces = BTreeMap<Space, Rows>;
/// A committed change to one row.
type Written = (Space, Vec<u8>, Option<Vec<u8>>);

/// A disk that stores its rows in a map.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone)]
struct State {
    spaces: Spaces,
    /// Batches since the last sync, oldest first: a power failure may lose them.
    unsynced: Unsynced,
    /// The durable rows.
    synced: Spaces,
    fault: Option<Fault>,
    has_failed: bool,
}

/// The batches of the log, and all others, each in order.
#[derive(Debug, Default, Clone)]
struct Unsynced {
    log: Vec<Vec<Written>>,
    rows: Vec<Vec<Written>>,
}

/// A number of batches that are unsynced, or that a power failure leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batches {
    /// Batches of the log.
    pub log: usize,
    /// Batches of all other rows.
    pub rows: usize,
}

/// How a disk fails. After the failure, every write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// How many more operations succeed.
    pub after: u64,
    /// Only syncs count, and the first failure is a sync.
    pub only_syncs: bool,
    /// The failing commit still writes its rows.
    pub writes_all_the_same: bool,
}

/// An operation of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Write,
    Sync,
}

impl MemoryStorage {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `successes` more operations succeed; every later one fails.
    pub fn fail_after(&self, successes: u64) {
        self.fail(Fault { after: successes, only_syncs: false, writes_all_the_same: false });
    }

    /// Fails as `fault` says.
    pub fn fail(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// Whether the disk has failed.
    pub fn has_failed(&self) -> bool {
        self.state().has_failed
    }

    /// The disk after a power failure: all synced rows, and the first `kept` of the batches after
    /// them.
    pub fn after_power_loss(&self, kept: Batches) -> Self {
        let state = self.state();
        let mut spaces = state.synced.clone();
        let (log, rows) = (&state.unsynced.log, &state.unsynced.rows);
        for batch in log.iter().take(kept.log).chain(rows.iter().take(kept.rows)) {
            apply(&mut spaces, batch);
        }
        let synced = spaces.clone();
        Self { state: Mutex::new(State { spaces, synced, ..State::default() }) }
    }

    /// How many batches a power failure may lose.
    pub fn unsynced_batches(&self) -> Batches {
        let state = self.state();
        Batches { log: state.unsynced.log.len(), rows: state.unsynced.rows.len() }
    }

    /// The disk after `kill -9`: everything committed.
    pub fn after_kill(&self) -> Self {
        let unsynced = self.unsynced_batches();
        self.after_power_loss(unsynced)
    }
}

fn apply(spaces: &mut Spaces, batch: &[Written]) {
    for (space, key, value) in batch {
        let rows = spaces.entry(*space).or_default();
        match value {
            Some(value) => rows.insert(key.clone(), value.clone()),
            None => rows.remove(key),
        };
    }
}

impl State {
    /// Counts an operation; fails when the disk is to fail.
    fn spend(&mut self, what: &str, operation: Operation) -> Result<(), StorageError> {
        if let Some(fault) = &mut self.fault {
            let counts = operation == Operation::Sync || !fault.only_syncs;
            match fault.after {
                0 if counts => self.has_failed = true,
                left => fault.after = left - u64::from(counts),
            }
        }
        match self.has_failed {
            true => Err(StorageError::new(what, "the test's disk fails (injected)")),
            false => Ok(()),
        }
    }

    /// Writes the other rows before those of the log.
    fn write(&mut self, batch: Vec<Written>, sync: Durability) {
        let (log, rows): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|(space, ..)| *space == Space::Log);
        let is_data = sync == Durability::Fsynced;
        for (batch, is_log) in [(rows, false), (log, true)] {
            if batch.is_empty() {
                continue;
            }
            apply(&mut self.spaces, &batch);
            let unsynced = &mut self.unsynced;
            (if is_log { &mut unsynced.log } else { &mut unsynced.rows }).push(batch);
            if is_data {
                self.make_durable(is_log);
            }
        }
    }

    /// Makes the log durable, or all other rows.
    fn make_durable(&mut self, is_log: bool) {
        let unsynced = &mut self.unsynced;
        let batches = if is_log { &mut unsynced.log } else { &mut unsynced.rows };
        for batch in std::mem::take(batches) {
            apply(&mut self.synced, &batch);
        }
    }
}

fn batch_of(rows: Vec<Row<'_>>) -> Vec<Written> {
    let written = |row: Row<'_>| (row.space, row.key, row.value.map(|value| value.into_owned()));
    rows.into_iter().map(written).collect()
}

impl Storage for MemoryStorage {
    fn commit(&self, rows: Vec<Row<'_>>, sync: Durability) -> Result<(), StorageError> {
        let mut state = self.state();
        let batch = batch_of(rows);
        let is_table = batch.iter().any(|(space, ..)| *space == Space::Table);
        if is_table && !state.unsynced.log.is_empty() {
            state.spend("syncing the log", Operation::Sync)?;
            state.make_durable(true);
        }
        let operation =
            if sync == Durability::Fsynced { Operation::Sync } else { Operation::Write };
        let is_first = !state.has_failed;
        if let Err(error) = state.spend("writing", operation) {
            if is_first && state.fault.is_some_and(|fault| fault.writes_all_the_same) {
                state.write(batch, Durability::Buffered);
            }
            return Err(error);
        }
        state.write(batch, sync);
        Ok(())
    }

    fn appends_at_once(&self) -> bool {
        true
    }

    fn sync(&self) -> Result<(), StorageError> {
        let mut state = self.state();
        state.spend("syncing", Operation::Sync)?;
        state.make_durable(true);
        state.make_durable(false);
        Ok(())
    }

    fn trim_log(&self, before: u64) -> Result<(), StorageError> {
        let mut state = self.state();
        let is_kept = |key: &[u8]| key >= before.to_be_bytes().as_slice();
        let log = state.spaces.get(&Space::Log);
        if log.is_none_or(|rows| rows.keys().all(|key| is_kept(key))) {
            return Ok(());
        }
        state.spend("trimming the log", Operation::Sync)?;
        state.make_durable(false);
        let State { spaces, synced, unsynced, .. } = &mut *state;
        for spaces in [spaces, synced] {
            spaces.entry(Space::Log).or_default().retain(|key, _| is_kept(key));
        }
        for batch in &mut unsynced.log {
            batch.retain(|(_, key, _)| is_kept(key));
        }
        Ok(())
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.state().spaces.get(&space).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        let rows = self.state().spaces.get(&space).cloned().unwrap_or_default();
        for (key, value) in rows.range(from.to_vec()..) {
            if !each(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn floor(&self, space: Space, key: &[u8]) -> Result<Option<KeyValue>, StorageError> {
        let state = self.state();
        let rows = state.spaces.get(&space);
        let last = rows.and_then(|rows| rows.range(..=key.to_vec()).next_back());
        Ok(last.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn usage(&self) -> StorageUsage {
        let state = self.state();
        let mut usage = StorageUsage::default();
        for (space, rows) in &state.spaces {
            let bytes: u64 = rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
            match space {
                Space::Table => usage.tables += bytes,
                Space::Log => usage.log += bytes,
                Space::Meta => usage.other += bytes,
            }
        }
        usage
    }
}
