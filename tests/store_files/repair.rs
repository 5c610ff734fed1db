//! Random stores with random damage. A check changes nothing and agrees with a start about every
//! store. A repaired store starts, accepts writes, is killed and starts again. No value appears
//! that was never written, and none is missing without being listed.
//!
//! `VATN_ROUNDS` sets how many stores are damaged, `VATN_SEED` repeats a run.

use crate::support::broker::Broker;
use crate::support::dealer::Connection;
use crate::support::harm::{Whole, build, harm, snapshot};
use crate::support::offline::{State, copy, serve, state};
use fastrand::Rng;
use rmpv::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use vatn::client::{RawValue, Request};

/// How often one store is damaged.
const DAMAGES: usize = 6;

fn check(store: &Path, arguments: &[&str]) -> (i32, serde_json::Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vatn"));
    let output = command.args(["check", "--json"]).arg(store).args(arguments).output().unwrap();
    let (text, said) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
    let json = serde_json::from_str(&text.unwrap()).unwrap_or(serde_json::Value::Null);
    (output.status.code().unwrap(), json, said.unwrap())
}

/// The file named by a refusal to start.
fn named(refusal: &str) -> Option<&str> {
    let (_, rest) = refusal.split_once("is damaged: ")?;
    rest.split_once(": ").map(|(file, _)| file)
}

/// Every served value was written at some time; all values are served where no loss is listed.
fn assert_known(found: &State, whole: &Whole, is_all: bool, about: &str) {
    for (key, (value, ..)) in found {
        let known = whole.written.get(key).is_some_and(|values| values.contains(value));
        assert!(known, "{about}: {} was never so", String::from_utf8_lossy(key));
    }
    let values = |state: &State| -> BTreeMap<Vec<u8>, (Vec<u8>, u64)> {
        state.iter().map(|(key, row)| (key.clone(), (row.0.clone(), row.3))).collect()
    };
    assert!(!is_all || values(found) == values(&whole.state), "{about}: something is missing");
}

/// Reads the whole history; returns how many changes it has.
async fn history(connection: &mut Connection, about: &str) -> usize {
    let (mut after, mut count) = (0, 0);
    for _ in 0..10_000 {
        let request = Request::new("changes").argument(&RawValue::integer(after.into()));
        match connection.call(&[request]).await.unwrap().remove(0) {
            Ok(page) => {
                let changes = page[0].as_array().unwrap().len();
                let next = page[1].as_u64().unwrap();
                count += changes;
                if changes == 0 && next <= after {
                    return count;
                }
                after = next;
            }
            Err((code, words)) => {
                assert_eq!(code, "COMPACTED", "{about}: {words}");
                let first = words.split_once("before seq ").unwrap().1.split(' ').next().unwrap();
                let first: u64 = first.parse().unwrap();
                assert!(first > after + 1, "{about}: {words}");
                after = first - 1;
            }
        }
    }
    panic!("{about}: the history has no end");
}

/// Serves the store from `folder`, writes, kills it, and checks it; twice.
fn assert_serves(folder: &Path, about: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for round in 0..2_u64 {
        let broker = Broker::open(folder, &["--durability", "synced"]);
        runtime.block_on(async {
            let mut connection = Connection::connect(&broker.router).await.unwrap();
            history(&mut connection, about).await;
            for number in 0..3_u64 {
                let key = format!("after {number}");
                if round > 0 {
                    let found = connection.result(Request::new("get").key(key.as_bytes())).await;
                    assert_eq!(found, Value::from(round - 1), "{about}: {key}");
                }
                let value = RawValue::integer(round.into());
                let set = Request::new("set").key(key.as_bytes()).argument(&value);
                connection.result(set).await;
            }
        });
        broker.kill();
        let (code, json, said) = check(&folder.join("store"), &[]);
        assert_eq!(code, 0, "{about}: after kill {round}: {json}{said}");
    }
}

/// Damages a copy of the store in `whole_store`; returns the kind of the damage, and its result.
fn damage_once(folder: &Path, whole: &Whole, rng: &mut Rng) -> (&'static str, &'static str) {
    let (store, copied) = (folder.join("store"), folder.join("copied"));
    copy(&folder.join("whole"), &store);
    let (kind, what) = harm(&store, rng);
    let about = format!("{} store, {kind}: {what}", whole.end);
    let before = snapshot(&store);
    let (code, json, said) = check(&store, &[]);
    assert!(snapshot(&store) == before, "{about}: a check changed it");
    assert!(code <= 1, "{about}: {code}: {json}{said}");
    copy(&store, &copied);
    let served = state(&copied);
    std::fs::remove_dir_all(&copied).unwrap();
    let is_stopped = whole.end == "stopped";
    let outcome = match (code, served) {
        (0, Ok(found)) => {
            // Such damage is indistinguishable from the effect of a crash.
            assert_known(&found, whole, is_stopped, &about);
            "sound"
        }
        (0, Err(refusal)) => panic!("{about}: called sound, and refused: {refusal}"),
        (_, served) => {
            if let Err(refusal) = &served {
                let (words, faults) = (refusal.to_string(), json["faults"].to_string());
                let is_named = named(&words).is_none_or(|file| faults.contains(file));
                assert!(is_named, "{about}: {words}, and {faults}");
            }
            let (code, json, said) = check(&store, &["--repair"]);
            assert!([0, 3].contains(&code), "{about}: {code}: {json}{said}");
            let lost = json["lost"].as_array().unwrap();
            assert_eq!(lost.is_empty(), code == 0, "{about}: {json}");
            copy(&store, &copied);
            let found = state(&copied).unwrap_or_else(|error| panic!("{about}: {error}"));
            assert_known(&found, whole, code == 0 && is_stopped, &format!("{about}: {json}"));
            std::fs::remove_dir_all(&copied).unwrap();
            if code == 0 { "repaired" } else { "repaired, losses listed" }
        }
    };
    let (code, json, said) = check(&store, &[]);
    assert_eq!(code, 0, "{about}: {json}{said}");
    assert_serves(folder, &about);
    std::fs::remove_dir_all(&store).unwrap();
    (kind, outcome)
}

#[test]
fn damaged_stores_are_detected_and_serve_again_after_a_repair() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seed = number("VATN_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds = number("VATN_ROUNDS").unwrap_or(12);
    eprintln!("VATN_SEED={seed} VATN_ROUNDS={rounds}");
    let mut totals = BTreeMap::<(&str, &str), u64>::new();
    let mut rng = Rng::with_seed(seed);
    for _ in 0..rounds.div_ceil(DAMAGES as u64) {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("whole");
        std::fs::create_dir(&store).unwrap();
        let whole = build(&store, &mut rng);
        for _ in 0..DAMAGES {
            *totals.entry(damage_once(folder.path(), &whole, &mut rng)).or_default() += 1;
        }
    }
    for ((kind, outcome), count) in totals {
        eprintln!("{kind}: {outcome}: {count}");
    }
}

#[test]
fn a_start_names_an_unreadable_table_like_a_check() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let whole = build(&store.with_extension("built"), &mut Rng::with_seed(7));
    assert!(!whole.state.is_empty());
    copy(&store.with_extension("built"), &store);
    serve(&store, |_| ()).unwrap();
    let tables = store.join("keyspaces/2/tables");
    let table = std::fs::read_dir(tables).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&table).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&table, bytes).unwrap();
    let (code, json, _) = check(&store, &[]);
    assert_eq!(code, 1);
    let fault = json["faults"][0].as_str().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vatn"));
    let command = command.args(["serve", "--port", "0", "--router", "tcp://127.0.0.1:0"]);
    let command = command.args(["--publisher", "tcp://127.0.0.1:0", "--database"]).arg(&store);
    let said = String::from_utf8(command.output().unwrap().stderr).unwrap();
    let cure = "`vatn check` says more, --repair keeps what can be read";
    assert!(said.contains(&format!("is damaged: {fault}; {cure}")), "{said}");
}

/// 1,500 writes, one flipped bit: all records of the history but one are kept, and the store keeps
/// working.
#[test]
fn a_repair_keeps_the_history_around_a_hole() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let broker = Broker::open(folder.path(), &["--durability", "stored"]);
    runtime.block_on(async {
        let mut connection = Connection::connect(&broker.router).await.unwrap();
        for number in 0..1_500_u64 {
            let value = RawValue::bin(&[number as u8; 2_000]);
            let key = format!("k{number:04}");
            connection.result(Request::new("set").key(key.as_bytes()).argument(&value)).await;
        }
        connection.result(Request::new("flush")).await;
    });
    broker.kill();
    let log = store.join("log/00000000000000000001.log");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[1_200_000] ^= 4;
    std::fs::write(&log, bytes).unwrap();
    let (code, json, _) = check(&store, &["--repair"]);
    assert_eq!((code, json["lost"].as_array().unwrap().len()), (3, 1), "{json}");
    let broker = Broker::open(folder.path(), &[]);
    runtime.block_on(async {
        let mut connection = Connection::connect(&broker.router).await.unwrap();
        assert_eq!(history(&mut connection, "a flipped bit").await, 1_499);
    });
    assert!(broker.stop().success());
    assert_eq!(check(&store, &[]).0, 0);
    assert_serves(folder.path(), "a flipped bit");
    serve(&store, |engine| assert_eq!(engine.len(), 1_503)).unwrap();
}
