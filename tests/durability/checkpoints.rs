//! Checkpoints on a real disk, large enough for sorted files, while writes go on.

use crate::support::offline::{copy_in_use, run, serve, state};
use crate::support::storage_runtime::call;
use rmpv::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use vatn::client::Request;
use vatn::engine::Engine;
use vatn::storage::{FjallStorage, Space, Storage};
use vatn::wal::tables;

/// More keys than a checkpoint commits row by row.
const KEYS: u32 = 30_000;
const KEYS_A_WRITE: u32 = 1_000;

type Model = BTreeMap<Vec<u8>, u64>;

fn key(number: u32) -> Vec<u8> {
    format!("key {number:06}").into_bytes()
}

fn options(durability: &str) -> Value {
    Value::Map(vec![("durability".into(), durability.into())])
}

/// Sets or removes a range of keys, at one level.
fn disturb(engine: &Engine, random: &mut fastrand::Rng, model: &mut Model) {
    let from = random.u32(..KEYS - KEYS_A_WRITE);
    let keys = from..from + random.u32(1..KEYS_A_WRITE);
    let number = random.u64(..1 << 40);
    let bin = |number: u32| Value::Binary(key(number));
    match random.u8(..4) {
        0 => {
            run(engine, "delete_multi", vec![Value::Array(keys.clone().map(bin).collect())]);
            for one in keys {
                model.remove(&key(one));
            }
        }
        kind => {
            let level = if kind == 1 { "memory" } else { "queued" };
            let pair = |one| Value::Array(vec![bin(one), number.into()]);
            let pairs = Value::Array(keys.clone().map(pair).collect());
            run(engine, "set_multi", vec![pairs, options(level)]);
            for one in keys {
                match level {
                    "memory" => model.remove(&key(one)),
                    _ => model.insert(key(one), number),
                };
            }
        }
    }
}

fn flush(engine: &Engine) {
    assert!(call(engine, &Request::new("flush")).is_ok());
}

fn fill(engine: &Engine, model: &mut Model) {
    for from in (0..KEYS).step_by(KEYS_A_WRITE as usize) {
        let pair = |one| Value::Array(vec![Value::Binary(key(one)), 0.into()]);
        let pairs = Value::Array((from..from + KEYS_A_WRITE).map(pair).collect());
        run(engine, "set_multi", vec![pairs, options("queued")]);
        model.extend((from..from + KEYS_A_WRITE).map(|one| (key(one), 0)));
    }
}

fn number(bytes: &[u8]) -> u64 {
    rmpv::decode::read_value(&mut &bytes[..]).unwrap().as_u64().unwrap()
}

fn checkpointed(folder: &std::path::Path) -> Model {
    let disk = FjallStorage::open(folder).unwrap();
    let mut rows = Model::new();
    let mut each = |key: &[u8], value: &[u8]| {
        let row = tables::decode(key, value).unwrap();
        rows.insert(row.key.to_vec(), number(row.value));
        true
    };
    disk.scan(Space::Table, &[], &mut each).unwrap();
    rows
}

fn found(folder: &std::path::Path) -> Model {
    let state = state(folder).unwrap();
    state.into_iter().map(|(key, (value, ..))| (key, number(&value))).collect()
}

#[test]
fn after_a_flush_the_tables_equal_the_map() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::new();
    for turn in 0..4 {
        let killed = tempfile::tempdir().unwrap();
        serve(folder.path(), |engine| {
            fill(engine, &mut model);
            for _ in 0..random.u32(..60) {
                disturb(engine, &mut random, &mut model);
            }
            flush(engine);
            copy_in_use(folder.path(), killed.path());
        })
        .unwrap();
        assert!(checkpointed(killed.path()) == model, "turn {turn}: after kill -9");
        assert!(checkpointed(folder.path()) == model, "turn {turn}: after a stop");
    }
}

#[test]
fn checkpoints_during_writes_lose_nothing() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::new();
    serve(folder.path(), |engine| {
        fill(engine, &mut model);
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let flusher = scope.spawn(|| {
                let mut flushes = 0;
                while !is_done.load(Ordering::Relaxed) {
                    flush(engine);
                    flushes += 1;
                }
                flushes
            });
            let mut random = fastrand::Rng::with_seed(seed);
            for _ in 0..600 {
                disturb(engine, &mut random, &mut model);
            }
            is_done.store(true, Ordering::Relaxed);
            let flushes = flusher.join().unwrap();
            assert!(flushes > 3, "{flushes} checkpoints met the writer");
        });
    })
    .unwrap();
    assert!(found(folder.path()) == model, "after a stop");
    assert!(checkpointed(folder.path()) == model, "the tables after a stop");
}
