//! Observers: readers over connections of their own, and a subscriber. A crash must not undo what
//! they have seen.

use super::dealer::Connection;
use super::writer::{Round, author_of};
use rmpv::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vatn::client::{Change, ClientOptions, Event, Op, Request, Subscriber};
use vatn::protocol::Level;

/// The observations of one round.
#[derive(Debug, Default)]
pub struct Sightings {
    round: usize,
    /// Everything up to this seq must survive: a part of it was seen, and its writer had requested
    /// a level that survives.
    pub required_seq: u64,
    /// How many writes of each client must survive.
    pub owed: Vec<usize>,
    /// The least number of writes that each client must have attempted.
    pub attempted: Vec<usize>,
    /// The seqs of published changes: client, place, seq.
    pub seqs: Vec<(usize, usize, u64)>,
    pub highest_seq: u64,
    pub reads: u64,
    pub changes: u64,
}

impl Sightings {
    pub fn new(round: usize, clients: usize) -> Self {
        let (owed, attempted) = (vec![0; clients], vec![0; clients]);
        Self { round, owed, attempted, ..Self::default() }
    }

    /// Records that a value written at `level`, with this seq, was seen.
    fn see(&mut self, value: &Value, seq: u64, level: Level) {
        self.highest_seq = self.highest_seq.max(seq);
        let survives = level >= Level::Stored;
        if survives {
            self.required_seq = self.required_seq.max(seq);
        }
        self.see_author(value, survives);
    }

    fn see_author(&mut self, value: &Value, survives: bool) {
        let Some((client, round, place)) = author_of(value) else { return };
        if round == self.round {
            self.attempted[client] = self.attempted[client].max(place + 1);
            if survives {
                self.owed[client] = self.owed[client].max(place + 1);
            }
        }
    }

    pub fn join(&mut self, other: Self) {
        self.required_seq = self.required_seq.max(other.required_seq);
        self.highest_seq = self.highest_seq.max(other.highest_seq);
        self.seqs.extend(other.seqs);
        self.reads += other.reads;
        self.changes += other.changes;
        for client in 0..self.owed.len() {
            self.owed[client] = self.owed[client].max(other.owed[client]);
            self.attempted[client] = self.attempted[client].max(other.attempted[client]);
        }
    }

    /// Records a change; `last` is the one before it. Writes are published whole.
    fn change(&mut self, change: &Change, last: &mut Option<(u64, u64, u64)>) {
        self.changes += 1;
        match *last {
            Some((seq, index, count)) if index + 1 < count => {
                assert_eq!(
                    (change.seq, change.index),
                    (seq, index + 1),
                    "half a write was published"
                )
            }
            Some((seq, ..)) => {
                assert!(change.seq > seq && change.index == 0, "published out of order")
            }
            None => assert_eq!(change.index, 0, "half a write was published"),
        }
        *last = Some((change.seq, change.index, change.count));
        let value = change.value.as_ref().map_or(Value::Nil, |value| value.value());
        self.see(&value, change.seq, change.durability);
        if let (Op::Set, Some((client, round, place))) = (change.op, author_of(&value)) {
            assert_eq!(round, self.round, "a change of another round is published");
            self.seqs.push((client, place, change.seq));
        }
    }
}

/// The entry that `get` with `meta` returns: value, seq, level.
pub fn entry(result: &Value) -> Option<(Value, u64, Level)> {
    let parts = result.as_array()?;
    let level = parts[3].as_str()?.parse().ok()?;
    Some((parts[0].clone(), parts[1].as_u64()?, level))
}

fn meta(key: &str) -> Request {
    Request::new("get").key(key.as_bytes()).option("meta", true)
}

/// Reads until the connection ends or the round is over.
pub async fn read(router: String, round: Arc<Round>, clients: usize, seed: u64) -> Sightings {
    let mut seen = Sightings::new(round.number, clients);
    let mut random = fastrand::Rng::with_seed(seed);
    let Ok(mut connection) = Connection::connect(&router).await else { return seen };
    let mut total = 0;
    while !round.is_over.load(Ordering::Relaxed) {
        let client = random.usize(..clients);
        let requests = [
            meta(&format!("c{client}/{:02}", random.usize(..16))),
            meta(&format!("c{client}/hits")),
            meta("total"),
            Request::new("get_multi").keys(&["pair/a", "pair/b"]),
            Request::new("range").option("prefix", format!("c{client}/").as_str()),
        ];
        let Ok(outcomes) = connection.call(&requests).await else { break };
        let results: Vec<Value> = outcomes.into_iter().map(|outcome| outcome.unwrap()).collect();
        for result in &results[..3] {
            if let Some((value, seq, level)) = entry(result) {
                seen.see(&value, seq, level);
            }
        }
        if let Some((Value::Integer(number), ..)) = entry(&results[2]) {
            assert!(number.as_u64().unwrap() >= total, "the counter went back");
            total = number.as_u64().unwrap();
        }
        let pair = results[3].as_array().unwrap();
        let values: Vec<&Value> = pair.iter().map(|item| &item[1]).collect();
        assert!(
            matches!(&values[..], []) || values.len() == 2 && values[0] == values[1],
            "{pair:?}"
        );
        values.iter().for_each(|value| seen.see_author(value, false));
        for item in results[4][0].as_array().unwrap() {
            seen.see_author(&item[1], false);
        }
        seen.reads += requests.len() as u64;
    }
    seen
}

/// Follows the changes until the connection ends or the round is over.
pub async fn follow(publisher: String, round: Arc<Round>, clients: usize) -> Sightings {
    let mut seen = Sightings::new(round.number, clients);
    let connected = Subscriber::connect(&publisher, b"", &ClientOptions::default()).await;
    let Ok(mut subscriber) = connected else { return seen };
    let mut last = None;
    while !round.is_over.load(Ordering::Relaxed) {
        match subscriber.next().await {
            Ok(Event::Change(change)) => seen.change(&change, &mut last),
            Ok(Event::Beat { .. }) => {}
            Ok(Event::Gap { after, through }) => panic!("a gap from {after} to {through}"),
            Ok(Event::Disconnected | Event::Reconnected) | Err(_) => break,
        }
    }
    seen
}
