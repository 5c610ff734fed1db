//! A disk in memory, for tests: it can fail at the Nth operation, and forget what was not synced.

use super::{Disk, DiskError, KeyValue, Row, Space, Sync};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
type Spaces = BTreeMap<Space, Rows>;
/// A committed change to one row.
type Written = (Space, Vec<u8>, Option<Vec<u8>>);

/// A disk whose medium is a map.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone)]
struct State {
    spaces: Spaces,
    /// Batches since the last sync, oldest first: what a loss of power may take.
    unsynced: Vec<Vec<Written>>,
    /// What has reached the medium for good.
    synced: Spaces,
    fault: Option<Fault>,
    has_failed: bool,
}

/// How a disk fails. Once it has, everything that writes fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// So many operations more succeed.
    pub after: u64,
    /// Only syncs count, and only a sync fails first.
    pub only_syncs: bool,
    /// What the failing commit was to write is written all the same.
    pub writes_all_the_same: bool,
}

/// What is asked of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Write,
    Sync,
}

impl MemoryDisk {
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

    /// Whether it has failed.
    pub fn has_failed(&self) -> bool {
        self.state().has_failed
    }

    /// What a loss of power leaves: all that was synced, and the first `kept` of the batches after
    /// it.
    pub fn after_power_loss(&self, kept: usize) -> Self {
        let state = self.state();
        let mut spaces = state.synced.clone();
        for batch in state.unsynced.iter().take(kept) {
            apply(&mut spaces, batch);
        }
        let synced = spaces.clone();
        Self { state: Mutex::new(State { spaces, synced, ..State::default() }) }
    }

    /// How many batches a loss of power may take.
    pub fn unsynced_batches(&self) -> usize {
        self.state().unsynced.len()
    }

    /// What `kill -9` leaves: everything committed.
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
    /// Whether an operation may be done; counts it.
    fn spend(&mut self, what: &str, operation: Operation) -> Result<(), DiskError> {
        if let Some(fault) = &mut self.fault {
            let counts = operation == Operation::Sync || !fault.only_syncs;
            match fault.after {
                0 if counts => self.has_failed = true,
                left => fault.after = left - u64::from(counts),
            }
        }
        match self.has_failed {
            true => Err(DiskError::new(what, "the test's disk fails (injected)")),
            false => Ok(()),
        }
    }

    fn write(&mut self, batch: Vec<Written>) {
        apply(&mut self.spaces, &batch);
        self.unsynced.push(batch);
    }

    fn make_durable(&mut self) {
        for batch in std::mem::take(&mut self.unsynced) {
            apply(&mut self.synced, &batch);
        }
    }
}

impl Disk for MemoryDisk {
    fn commit(&self, rows: Vec<Row<'_>>, sync: Sync) -> Result<(), DiskError> {
        let mut state = self.state();
        let batch: Vec<Written> = rows
            .into_iter()
            .map(|row| (row.space, row.key, row.value.map(|v| v.into_owned())))
            .collect();
        let operation = if sync == Sync::Data { Operation::Sync } else { Operation::Write };
        let is_first = !state.has_failed;
        if let Err(error) = state.spend("writing", operation) {
            if is_first && state.fault.is_some_and(|fault| fault.writes_all_the_same) {
                state.write(batch);
            }
            return Err(error);
        }
        state.write(batch);
        if sync == Sync::Data {
            state.make_durable();
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), DiskError> {
        let mut state = self.state();
        state.spend("syncing", Operation::Sync)?;
        state.make_durable();
        Ok(())
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(self.state().spaces.get(&space).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), DiskError> {
        let rows = self.state().spaces.get(&space).cloned().unwrap_or_default();
        for (key, value) in rows.range(from.to_vec()..) {
            if !each(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn floor(&self, space: Space, key: &[u8]) -> Result<Option<KeyValue>, DiskError> {
        let state = self.state();
        let rows = state.spaces.get(&space);
        let last = rows.and_then(|rows| rows.range(..=key.to_vec()).next_back());
        Ok(last.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn bytes(&self) -> u64 {
        let state = self.state();
        let rows = state.spaces.values().flatten();
        rows.map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }
}
