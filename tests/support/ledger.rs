//! What one client wrote, in its order, and what its keys hold after each of its writes: the book
//! that is kept outside of the broker.

use rmpv::Value;
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::RangeInclusive;
use std::sync::Arc;
use vatn::protocol::Level;

/// A value as bytes.
pub type Bytes = Arc<[u8]>;
/// What a crash may leave of a client's keys: each with its value and its level.
pub type State = BTreeMap<String, (Bytes, Level)>;

/// One write of a client, whatever became of it.
#[derive(Debug, Clone)]
pub struct Write {
    /// The level that a crash must have covered for its loss to be a broken promise.
    pub promised: Level,
    /// What it added to the counter that all share.
    pub shared: u64,
    /// Whether it also wrote the pair of keys that all share.
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
    /// What is persisted after each write; the first is what the round began with.
    pub states: Vec<State>,
    /// How many of the writes subscribers were told of.
    pub told: usize,
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
    /// After a restart that left `start`.
    pub fn after(start: State) -> Self {
        let persisted = |(key, (value, level)): (&String, &(Bytes, Level))| {
            let cell = Cell { value: Arc::clone(value), level: *level, is_persisted: true };
            (key.clone(), cell)
        };
        let live = start.iter().map(persisted).collect();
        let seen = HashSet::from([fingerprint(&start)]);
        Self { writes: Vec::new(), states: vec![start], told: 0, live, seen }
    }

    /// The value that the client last gave a key.
    pub fn live(&self, key: &str) -> Option<&Bytes> {
        self.live.get(key).map(|cell| &cell.value)
    }

    /// Whether the value of a key is one that a restart may find.
    pub fn is_persisted(&self, key: &str) -> bool {
        self.live.get(key).is_some_and(|cell| cell.is_persisted)
    }

    /// The keys that are there, and begin with `prefix`.
    pub fn live_keys(&self, prefix: &str) -> Vec<String> {
        self.live.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// Notes a write that is about to be sent. Returns its place; `None`, and nothing is noted, for
    /// one that would leave what an earlier, different moment left: its place could not be told.
    pub fn note(&mut self, level: Level, changes: &[Change]) -> Option<usize> {
        let (mut live, mut next) = (self.live.clone(), self.states.last()?.clone());
        let mut promised = level;
        for (key, value) in changes {
            let below = live.get(key).cloned();
            let covered = below.filter(|below| below.is_persisted);
            match (level, value) {
                (Level::Memory, _) => {
                    // It hides what is persisted, and that must not come back.
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

    /// After how many of the writes the keys held `found`; more than one number where writes left
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

    /// How many of the writes can be there at the most.
    pub fn possible(&self) -> usize {
        let refused = self.writes.iter().position(|write| write.is_refused);
        refused.unwrap_or(self.writes.len())
    }
}

fn fingerprint(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (key, (value, level)) in state {
        // Values begin with who wrote them when; what fills them does not matter.
        (key, &value[..value.len().min(24)], *level as u8).hash(&mut hasher);
    }
    hasher.finish()
}
