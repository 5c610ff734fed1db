//! The writes of one client in order, and the state of its keys after each: a record kept outside
//! of the broker.

use rmpv::Value;
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::RangeInclusive;
use std::sync::Arc;
use vatn::protocol::Level;

/// A value as bytes.
pub type Bytes = Arc<[u8]>;
/// The possible state of a client's keys after a crash: each with its value and its level.
pub type State = BTreeMap<String, (Bytes, Level)>;

/// One write of a client, whatever its outcome.
#[derive(Debug, Clone)]
pub struct Write {
    /// The level that a crash must have covered for its loss to be a broken promise.
    pub promised: Level,
    /// Its addition to the counter that all clients share.
    pub shared: u64,
    /// Whether it also wrote the pair of keys that all clients share.
    pub wrote_pair: bool,
    pub seq: Option<u64>,
    pub is_acknowledged: bool,
    pub is_refused: bool,
}

#[derive(Debug, Clone)]
struct Cell {
    value: Bytes,
    level: Level,
    is_persisted: bool,
}

/// A change that a write makes to one of the client's keys.
pub type Change = (String, Option<Bytes>);

/// The ledger of one client: it alone writes its keys, over one connection.
#[derive(Debug)]
pub struct Ledger {
    pub writes: Vec<Write>,
    /// The persisted state after each write; the first is the state at the start of the round.
    pub states: Vec<State>,
    /// How many of the writes were published to subscribers.
    pub published: usize,
    live: BTreeMap<String, Cell>,
    seen: HashSet<u64>,
}

pub fn encode(value: &Value) -> Bytes {
    super::commands::encode_value(value).into()
}

pub fn decode(bytes: &[u8]) -> Value {
    rmpv::decode::read_value(&mut &bytes[..]).unwrap()
}

impl Ledger {
    /// A ledger after a restart that found `start`.
    pub fn after(start: State) -> Self {
        let persisted = |(key, (value, level)): (&String, &(Bytes, Level))| {
            let cell = Cell { value: Arc::clone(value), level: *level, is_persisted: true };
            (key.clone(), cell)
        };
        let live = start.iter().map(persisted).collect();
        let seen = HashSet::from([fingerprint(&start)]);
        Self { writes: Vec::new(), states: vec![start], published: 0, live, seen }
    }

    /// The value that the client last gave a key.
    pub fn live(&self, key: &str) -> Option<&Bytes> {
        self.live.get(key).map(|cell| &cell.value)
    }

    /// Whether the value of a key is one that a restart may find.
    pub fn is_persisted(&self, key: &str) -> bool {
        self.live.get(key).is_some_and(|cell| cell.is_persisted)
    }

    /// The existing keys that begin with `prefix`.
    pub fn live_keys(&self, prefix: &str) -> Vec<String> {
        self.live.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// Records a write that is about to be sent. Returns its place; `None`, and nothing is
    /// recorded, for a write that would restore an earlier state: its place could not be
    /// determined.
    pub fn note(&mut self, level: Level, changes: &[Change]) -> Option<usize> {
        let (mut live, mut next) = (self.live.clone(), self.states.last()?.clone());
        let mut promised = level;
        for (key, value) in changes {
            let below = live.get(key).cloned();
            let covered = below.filter(|below| below.is_persisted);
            match (level, value) {
                (Level::Memory, _) => {
                    // It hides a persisted value, and that must not come back.
                    if let Some(covered) = covered {
                        promised = promised.max(covered.level);
                        next.remove(key);
                    }
                }
                (_, Some(value)) => drop(next.insert(key.clone(), (Arc::clone(value), level))),
                (_, None) => drop(next.remove(key)),
            }
            let is_persisted = level != Level::Memory;
            match value {
                Some(value) => {
                    let cell = Cell { value: Arc::clone(value), level, is_persisted };
                    live.insert(key.clone(), cell)
                }
                None => live.remove(key),
            };
        }
        let is_same = self.states.last() == Some(&next);
        if !is_same && !self.seen.insert(fingerprint(&next)) {
            return None;
        }
        self.live = live;
        self.states.push(next);
        self.writes.push(Write {
            promised,
            shared: 0,
            wrote_pair: false,
            seq: None,
            is_acknowledged: false,
            is_refused: false,
        });
        Some(self.writes.len() - 1)
    }

    /// The number of writes after which the keys had the state `found`; a range where writes left
    /// no trace.
    pub fn find(&self, found: &State) -> Option<RangeInclusive<usize>> {
        let first = self.states.iter().position(|state| state == found)?;
        let last = self.states.iter().rposition(|state| state == found)?;
        Some(first..=last)
    }

    /// How many of the writes must be there after a crash that `covered` survives.
    pub fn owed(&self, covered: Level) -> usize {
        let is_owed = |write: &Write| write.is_acknowledged && write.promised >= covered;
        self.writes.iter().rposition(is_owed).map_or(0, |place| place + 1)
    }

    /// The most writes that can be there.
    pub fn possible(&self) -> usize {
        let refused = self.writes.iter().position(|write| write.is_refused);
        refused.unwrap_or(self.writes.len())
    }
}

fn fingerprint(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (key, (value, level)) in state {
        // Values begin with their writer and place; the filler does not matter.
        (key, &value[..value.len().min(24)], *level as u8).hash(&mut hasher);
    }
    hasher.finish()
}
