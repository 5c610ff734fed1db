//! One client of the kill test: it writes its own keys in all possible ways, keeps many requests in
//! flight, and enters each in its ledger before it is sent.

use super::dealer::{Connection, Outcome};
use super::ledger::{Bytes, Change, Ledger, decode, encode};
use rmpv::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use vatn::client::{RawValue, Request};
use vatn::protocol::Level;

/// Too long to pass in a test.
const LONG_TTL_MS: u64 = 3_600_000;
const KEYS: usize = 16;

/// The state that all clients of a round share.
#[derive(Debug, Default)]
pub struct Round {
    /// The number of the round, which is in every written value.
    pub number: usize,
    /// Replies so far.
    pub replies: AtomicU64,
    /// At this many replies, `due` is notified.
    pub target: u64,
    pub due: Notify,
    /// No more requests may be sent.
    pub is_over: AtomicBool,
}

/// A value that soon expires.
#[derive(Debug)]
pub struct Fleeting {
    pub key: String,
    pub value: Bytes,
    pub ttl: Duration,
    /// A time at which the broker had surely applied it; the kill, where it was not answered.
    pub applied_by: Option<Instant>,
}

/// The expected reply.
#[derive(Debug)]
enum Expected {
    /// The seq of the write.
    Seq,
    Exactly(Value),
    /// An array that has the write's seq at this place.
    SeqAt(usize),
    /// The fleeting value at this place was applied.
    Fleeting(usize),
}

#[derive(Debug)]
pub struct Writer {
    pub id: usize,
    round: usize,
    pub ledger: Ledger,
    pub fleeting: Vec<Fleeting>,
    random: fastrand::Rng,
    waiting: HashMap<u64, (usize, Expected)>,
    pub requests: u64,
    pub replies: u64,
}

/// A write that is ready to be sent.
struct Draft {
    request: Request,
    place: usize,
    expected: Expected,
}

impl Writer {
    pub fn new(id: usize, round: usize, ledger: Ledger, seed: u64) -> Self {
        Self {
            id,
            round,
            ledger,
            fleeting: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            waiting: HashMap::new(),
            requests: 0,
            replies: 0,
        }
    }

    /// Writes until the connection ends or the round is over.
    pub async fn work(mut self, router: String, round: Arc<Round>) -> Self {
        let Ok(mut connection) = Connection::connect(&router).await else { return self };
        let window = self.random.usize(1..24);
        loop {
            while self.waiting.len() < window && !round.is_over.load(Ordering::Relaxed) {
                self.push(&mut connection);
            }
            if self.waiting.is_empty() {
                return self;
            }
            let Ok(outcomes) = connection.outcomes().await else { return self };
            let count = outcomes.len() as u64;
            outcomes.into_iter().for_each(|(id, outcome)| self.take(id, outcome));
            let before = round.replies.fetch_add(count, Ordering::Relaxed);
            if before < round.target && before + count >= round.target {
                round.due.notify_one();
            }
        }
    }

    /// Sends one message of a few requests.
    fn push(&mut self, connection: &mut Connection) {
        let count = self.random.usize(1..5);
        let drafts: Vec<Draft> = (0..count).map(|_| self.draft()).collect();
        // The last one is not a notification, so that the message is answered.
        let is_silent: Vec<bool> = drafts
            .iter()
            .enumerate()
            .map(|(index, draft)| {
                let may_be = matches!(draft.expected, Expected::Seq) && index + 1 < count;
                may_be && self.random.u8(..8) == 0
            })
            .collect();
        let frames: Vec<_> =
            drafts.iter().map(|draft| draft.request.clone()).zip(is_silent.clone()).collect();
        let ids = connection.push(&frames);
        for ((draft, id), is_silent) in drafts.into_iter().zip(ids).zip(is_silent) {
            self.requests += 1;
            if !is_silent {
                self.waiting.insert(id, (draft.place, draft.expected));
            }
        }
    }

    fn take(&mut self, id: u64, outcome: Outcome) {
        self.replies += 1;
        let (place, expected) = self.waiting.remove(&id).expect("a reply to a sent request");
        let write = &mut self.ledger.writes[place];
        let result = match outcome {
            Ok(result) => result,
            Err((code, _)) if code == "STOPPING" => {
                write.is_refused = true;
                return;
            }
            Err(refusal) => panic!("client {}, write {place}: {refusal:?}", self.id),
        };
        write.is_acknowledged = true;
        match expected {
            Expected::Seq => write.seq = Some(result.as_u64().unwrap()),
            Expected::SeqAt(index) => write.seq = Some(result[index].as_u64().unwrap()),
            Expected::Exactly(value) => {
                assert_eq!(result, value, "client {}, write {place}", self.id)
            }
            Expected::Fleeting(index) => {
                write.seq = Some(result.as_u64().unwrap());
                self.fleeting[index].applied_by = Some(Instant::now());
            }
        }
    }

    fn level(&mut self) -> (Level, Option<Level>) {
        match self.random.u8(..8) {
            0 => (Level::Memory, Some(Level::Memory)),
            1 | 2 => (Level::Queued, Some(Level::Queued)),
            3 | 4 => (Level::Stored, Some(Level::Stored)),
            5 => (Level::Synced, None),
            _ => (Level::Synced, Some(Level::Synced)),
        }
    }

    fn key(&mut self) -> String {
        format!("c{}/{:02}", self.id, self.random.usize(..KEYS))
    }

    /// A value that is written only once: its writer, its place in the ledger, and a filler.
    fn value(&mut self) -> Value {
        let fill = match self.random.u16(..200) {
            0 => 40_000,
            1..20 => self.random.usize(100..2_000),
            _ => self.random.usize(..40),
        };
        let place = self.ledger.writes.len();
        let (salt, fill) = (self.random.u32(..), vec![self.id as u8; fill]);
        let mut value = author(self.id, self.round, place);
        value.extend([salt.into(), Value::Binary(fill)]);
        Value::Array(value)
    }

    fn draft(&mut self) -> Draft {
        loop {
            let draft = match self.random.u8(..14) {
                0..3 => self.set(),
                3 | 4 => self.set_multi(),
                5 => self.delete(),
                6 => self.delete_multi(),
                7 => self.incr(),
                8 => self.touch(),
                9 => self.batch(),
                10..13 => self.shared(),
                _ => self.fleet(),
            };
            // A write is skipped whose effect would equal an earlier state.
            if let Some(draft) = draft {
                return draft;
            }
        }
    }

    fn set(&mut self) -> Option<Draft> {
        let ((level, requested), key, value) = (self.level(), self.key(), self.value());
        let ttl_ms = (self.random.u8(..4) == 0).then_some(LONG_TTL_MS);
        let place = self.ledger.note(level, &[(key.clone(), Some(encode(&value)))])?;
        let request = Request::new("set").key(key.as_bytes()).argument(&RawValue::from(&value));
        let request = leveled(request, requested).option_if("ttl_ms", ttl_ms);
        Some(Draft { request, place, expected: Expected::Seq })
    }

    fn set_multi(&mut self) -> Option<Draft> {
        let (level, requested) = self.level();
        let count = self.random.usize(1..6);
        let pairs: Vec<(String, Value)> = (0..count).map(|_| (self.key(), self.value())).collect();
        let changes: Vec<Change> =
            pairs.iter().map(|(key, value)| (key.clone(), Some(encode(value)))).collect();
        let place = self.ledger.note(level, &changes)?;
        let pairs: Vec<_> =
            pairs.into_iter().map(|(key, value)| (key, RawValue::from(&value))).collect();
        let request = leveled(Request::new("set_multi").pairs(&pairs), requested);
        Some(Draft { request, place, expected: Expected::Seq })
    }

    fn present(&mut self) -> Option<String> {
        let keys = self.ledger.live_keys(&format!("c{}/0", self.id));
        (!keys.is_empty()).then(|| keys[self.random.usize(..keys.len())].clone())
    }

    fn delete(&mut self) -> Option<Draft> {
        let ((level, requested), key) = (self.level(), self.present()?);
        let place = self.ledger.note(level, &[(key.clone(), None)])?;
        let request = leveled(Request::new("delete").key(key.as_bytes()), requested);
        Some(Draft { request, place, expected: Expected::Exactly(true.into()) })
    }

    fn delete_multi(&mut self) -> Option<Draft> {
        let (level, requested) = self.level();
        let mut keys = self.ledger.live_keys(&format!("c{}/1", self.id));
        self.random.shuffle(&mut keys);
        keys.truncate(self.random.usize(1..4));
        if keys.is_empty() {
            return None;
        }
        let changes: Vec<Change> = keys.iter().map(|key| (key.clone(), None)).collect();
        let place = self.ledger.note(level, &changes)?;
        let request = leveled(Request::new("delete_multi").keys(&keys), requested);
        Some(Draft { request, place, expected: Expected::Exactly(keys.len().into()) })
    }

    /// The client's own counter, and its value after adding `delta`.
    fn count(&self, delta: u64) -> (String, u64) {
        let key = format!("c{}/hits", self.id);
        let before = self.ledger.live(&key).map(|value| decode(value).as_u64().unwrap());
        (key, before.map_or(delta, |before| before + delta))
    }

    fn incr(&mut self) -> Option<Draft> {
        let (level, requested) = self.level();
        let delta = self.random.u64(1..9);
        let (key, number) = self.count(delta);
        let place = self.ledger.note(level, &[(key.clone(), Some(encode(&number.into())))])?;
        let request = incr(&key, delta);
        let expected = Expected::Exactly(number.into());
        Some(Draft { request: leveled(request, requested), place, expected })
    }

    fn touch(&mut self) -> Option<Draft> {
        let ((level, requested), key) = (self.level(), self.present()?);
        let value = Arc::clone(self.ledger.live(&key)?);
        // A new time to live carries no value, so it is as durable as the value allows.
        let level = match self.ledger.is_persisted(&key) {
            true => level.max(Level::Queued),
            false => Level::Memory,
        };
        let place = self.ledger.note(level, &[(key.clone(), Some(value))])?;
        let request = Request::new("touch").key(key.as_bytes()).argument(&LONG_TTL_MS.into());
        let expected = Expected::Exactly(true.into());
        Some(Draft { request: leveled(request, requested), place, expected })
    }

    /// An atomic write of several of the client's keys.
    fn batch(&mut self) -> Option<Draft> {
        let ((level, requested), value) = (self.level(), self.value());
        let (key, gone, delta) = (self.key(), self.present()?, self.random.u64(1..9));
        let (hits, number) = self.count(delta);
        let changes = [
            (hits.clone(), Some(encode(&number.into()))),
            (gone.clone(), None),
            (key.clone(), Some(encode(&value))),
        ];
        let place = self.ledger.note(level, &changes)?;
        let inner = [
            incr(&hits, delta),
            Request::new("delete").key(gone.as_bytes()),
            Request::new("set").key(key.as_bytes()).argument(&RawValue::from(&value)),
            Request::new("get").key(key.as_bytes()),
        ];
        let request = leveled(Request::new("batch").requests(&inner), requested);
        Some(Draft { request, place, expected: Expected::SeqAt(2) })
    }

    /// An atomic write of a key of its own with the counter, the pair, or both, that all clients
    /// share.
    fn shared(&mut self) -> Option<Draft> {
        let (level, requested) = match self.level() {
            (Level::Memory, _) => (Level::Queued, Some(Level::Queued)),
            other => other,
        };
        let (key, value) = (self.key(), self.value());
        let mine = Request::new("set").key(key.as_bytes()).argument(&RawValue::from(&value));
        let mut inner = vec![mine];
        let place = self.ledger.note(level, &[(key, Some(encode(&value)))])?;
        let write = &mut self.ledger.writes[place];
        let which = self.random.u8(..3);
        if which != 0 {
            write.shared = self.random.u64(1..4);
            inner.push(incr("total", write.shared));
        }
        if which != 1 {
            write.wrote_pair = true;
            let by = RawValue::from(&Value::Array(author(self.id, self.round, place)));
            let pairs = [("pair/a", by.clone()), ("pair/b", by)];
            inner.insert(self.random.usize(..=1), Request::new("set_multi").pairs(&pairs));
        }
        let request = leveled(Request::new("batch").requests(&inner), requested);
        Some(Draft { request, place, expected: Expected::SeqAt(0) })
    }

    fn fleet(&mut self) -> Option<Draft> {
        let (level, requested) = self.level();
        let (ttl_ms, value) = (self.random.u64(20..300), self.value());
        let key = format!("t{}/{}", self.id, self.random.u64(..));
        let place = self.ledger.note(level, &[])?;
        let request = Request::new("set").key(key.as_bytes()).argument(&RawValue::from(&value));
        let request = leveled(request, requested).option("ttl_ms", ttl_ms);
        let (value, ttl) = (encode(&value), Duration::from_millis(ttl_ms));
        self.fleeting.push(Fleeting { key, value, ttl, applied_by: None });
        Some(Draft { request, place, expected: Expected::Fleeting(self.fleeting.len() - 1) })
    }
}

/// The part of a value that names its writer, round and place in the ledger.
fn author(id: usize, round: usize, place: usize) -> Vec<Value> {
    vec![id.into(), round.into(), place.into()]
}

/// The writer of a value; `None` for the numbers.
pub fn author_of(value: &Value) -> Option<(usize, usize, usize)> {
    let parts = value.as_array()?;
    let part = |index: usize| parts[index].as_u64().map(|number| number as usize);
    Some((part(0)?, part(1)?, part(2)?))
}

fn leveled(request: Request, level: Option<Level>) -> Request {
    request.option_if("durability", level.map(Level::name))
}

fn incr(key: &str, delta: u64) -> Request {
    let request = Request::new("incr").key(key.as_bytes());
    request.option("delta", delta).option("initial", delta)
}
