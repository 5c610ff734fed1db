//! The measured cases, from the ground up: the wire, the map, the log. Keys and values are those of
//! `vatn bench`: 18 and 100 bytes.

use crate::edge;
use std::hint::black_box;
use vatn::budget::Cost;
use vatn::client;
use vatn::commands::Request;
use vatn::protocol::change::ChangeReader;
use vatn::protocol::{ChangeBuffer, Level, Op, Reply, response};
use vatn::state::{Context, Store};
use vatn::wal::Record;

/// Keys in a full map; no power of two, so that hash tables have no special fill.
pub const KEYS: u64 = 100_000;
/// Changes in a record, about as many as a group commit has under load.
const RECORD_CHANGES: u64 = 1_000;

/// A function that executes a number of operations.
pub type Work = Box<dyn FnMut()>;

pub struct Case {
    pub name: &'static str,
    pub prepare: fn(u64) -> Work,
}

pub const CASES: &[Case] = &[
    Case { name: "wire: decode a GET", prepare: |operations| decode(gets(operations, KEYS)) },
    Case { name: "wire: decode a SET", prepare: |operations| decode(sets(operations)) },
    Case { name: "wire: encode the reply to a GET", prepare: encode_replies },
    Case { name: "wire: encode a change", prepare: encode_changes },
    Case { name: "wire: read a change", prepare: read_changes },
    Case { name: "store: GET of a key that is there", prepare: |operations| get(operations, 0) },
    Case { name: "store: GET of one that is not", prepare: |operations| get(operations, KEYS) },
    Case { name: "store: SET over a value", prepare: |operations| set(operations, full()) },
    Case { name: "store: SET of a new key", prepare: insert },
    Case { name: "log: seal a record, per change", prepare: seal },
    Case { name: "log: read a record back, per change", prepare: unseal },
    Case { name: "zmq: a message in and one out", prepare: edge::messages },
    Case { name: "zmq: a GET that comes alone, both ends", prepare: edge::one_by_one },
    Case { name: "engine: 16 GETs together, per GET", prepare: edge::execute_gets },
    Case { name: "engine: 16 SETs together, per SET", prepare: edge::execute_sets },
];

pub fn key(number: u64) -> String {
    format!("bench:v:{number:010}")
}

pub fn value() -> client::RawValue {
    client::RawValue::bin(&[b'x'; 100])
}

/// The same numbers each time.
fn numbers(count: u64) -> impl Iterator<Item = u64> {
    let mut random = fastrand::Rng::with_seed(1);
    (0..count).map(move |_| random.u64(0..KEYS))
}

/// Frames that live as long as the process, as requests borrow from them.
pub type Frames = Vec<&'static [u8]>;

fn frame(request: &client::Request) -> &'static [u8] {
    request.encode(70_000).to_vec().leak()
}

/// Reads of random keys, from the one with the number `first` on.
pub fn gets(count: u64, first: u64) -> Frames {
    let one = |number| client::Request::new("get").key(key(first + number).as_bytes());
    numbers(count).map(|number| frame(&one(number))).collect()
}

fn set_frame(number: u64) -> &'static [u8] {
    let request = client::Request::new("set").key(key(number).as_bytes()).argument(&value());
    frame(&request.option("durability", "queued"))
}

pub fn sets(count: u64) -> Frames {
    numbers(count).map(set_frame).collect()
}

/// Every key once.
pub fn all_sets() -> Frames {
    (0..KEYS).map(set_frame).collect()
}

pub fn decoded(frames: Frames) -> Vec<Request<'static>> {
    frames.into_iter().map(Request::decode).collect()
}

fn context() -> Context {
    Context {
        now: 1,
        durability: Level::Synced,
        page_items: 10_000,
        page_bytes: 4 << 20,
        reply_bytes: 16 << 20,
        command_items: 1 << 14,
        walk: Cost::MAX,
        write_bytes: 16 << 20,
    }
}

/// Applies writes, and takes the changes away in records, as the committer does.
fn apply(store: &mut Store, requests: &[Request<'_>]) {
    let (context, mut changes) = (context(), ChangeBuffer::default());
    for request in requests {
        let command = request.command.as_ref().expect("a request of ours");
        let applied = store.apply(command, &context, &mut changes);
        assert!(applied.outcome.is_ok());
        if changes.items() as u64 == RECORD_CHANGES {
            black_box(std::mem::take(&mut changes));
        }
    }
}

fn full() -> Store {
    let mut store = Store::default();
    apply(&mut store, &decoded(all_sets()));
    store
}

fn decode(frames: Frames) -> Work {
    Box::new(move || {
        for frame in &frames {
            assert!(black_box(Request::decode(frame)).command.is_ok());
        }
    })
}

fn encode_replies(operations: u64) -> Work {
    let (value, mut out) = (value(), Vec::new());
    Box::new(move || {
        for id in 0..operations {
            if id % 16 == 0 {
                out.clear();
            }
            let reply = Reply::Value(black_box(value.as_bytes()).into());
            response::success(&mut out, Some(70_000 + id), &reply);
        }
        black_box(&out);
    })
}

fn get(operations: u64, first: u64) -> Work {
    let (store, requests) = (full(), decoded(gets(operations, first)));
    Box::new(move || {
        let context = context();
        for request in &requests {
            let command = request.command.as_ref().expect("a request of ours");
            let is_there = store.query(command, &context).outcome != Ok(Reply::Nil.into());
            assert_eq!(is_there, first == 0);
        }
    })
}

fn set(operations: u64, mut store: Store) -> Work {
    let requests = decoded(sets(operations));
    Box::new(move || apply(&mut store, &requests))
}

/// New keys, at random places of the order.
fn insert(operations: u64) -> Work {
    let mut numbers: Vec<u64> = (KEYS..KEYS + operations).collect();
    fastrand::Rng::with_seed(2).shuffle(&mut numbers);
    let requests = decoded(numbers.into_iter().map(set_frame).collect());
    let mut store = full();
    Box::new(move || apply(&mut store, &requests))
}

fn change(changes: &mut ChangeBuffer, seq: u64, key: &[u8], value: &[u8]) {
    let mark = changes.begin(seq, Level::Queued, 1);
    changes.push(Op::Set, true, None, key, value);
    assert!(changes.end(mark));
}

fn encode_changes(operations: u64) -> Work {
    let (key, value) = (key(7), value());
    Box::new(move || {
        let mut changes = ChangeBuffer::default();
        for seq in 1..=operations {
            change(&mut changes, seq, black_box(key.as_bytes()), value.as_bytes());
            if seq % RECORD_CHANGES == 0 {
                black_box(std::mem::take(&mut changes));
            }
        }
    })
}

fn a_record() -> ChangeBuffer {
    let mut changes = ChangeBuffer::default();
    for (seq, number) in (1..).zip(numbers(RECORD_CHANGES)) {
        change(&mut changes, seq, key(number).as_bytes(), value().as_bytes());
    }
    changes
}

fn read_changes(operations: u64) -> Work {
    let record = a_record();
    Box::new(move || {
        for _ in 0..operations / RECORD_CHANGES {
            let read = ChangeReader::new(black_box(record.bytes()));
            assert_eq!(read.filter(Result::is_ok).count() as u64, RECORD_CHANGES);
        }
    })
}

fn seal(operations: u64) -> Work {
    let record = Record::new(a_record());
    Box::new(move || {
        for _ in 0..operations / RECORD_CHANGES {
            assert!(black_box(&record).encode().is_some());
        }
    })
}

fn unseal(operations: u64) -> Work {
    let sealed = Record::new(a_record()).encode().expect("changes that are kept");
    Box::new(move || {
        for _ in 0..operations / RECORD_CHANGES {
            assert!(Record::decode(black_box(&sealed)).is_ok());
        }
    })
}
