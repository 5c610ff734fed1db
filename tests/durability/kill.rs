//! A real broker killed with -9 at random moments under many clients. A ledger outside the broker
//! records every request and reply, and after each restart the store is compared with it, exactly
//! (promises 2 and 3).
//!
//! `VATN_KILL_ROUNDS` sets how many kills, `VATN_SEED` repeats a run.

use crate::support::broker::Broker;
use crate::support::dealer::{Connection, key_bytes};
use crate::support::ledger::{Ledger, State, encode};
use crate::support::watcher::{Sightings, entry, follow, read};
use crate::support::writer::{Fleeting, Round, Writer, author_of};
use rmpv::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use vatn::client::Request;
use vatn::protocol::Level;

const CLIENTS: usize = 8;
const READERS: usize = 2;
/// A round that takes longer counts as hung.
const ROUND_MAX: Duration = Duration::from_secs(120);
/// The greatest delay of a visible expiry.
const EXPIRY_SLACK: Duration = Duration::from_millis(50);

/// The totals of all rounds.
#[derive(Debug, Default)]
struct Totals {
    kills: u64,
    kills_while_starting: u64,
    stops: u64,
    requests: u64,
    replies: u64,
    writes: u64,
    acknowledged: BTreeMap<&'static str, u64>,
    unanswered_and_there: u64,
    unanswered_and_gone: u64,
    acknowledged_below_stored_and_gone: u64,
    reads: u64,
    changes: u64,
    highest_seq: u64,
}

/// The state after a restart.
struct Found {
    clients: Vec<State>,
    total: u64,
    /// The client that wrote the pair last.
    pair: Value,
    values: HashMap<String, Value>,
    /// The seq from which the store continues.
    seq: u64,
    highest_entry: u64,
    asked_at: Instant,
}

/// The store at the start of a round, the operations of the clients, and their observations.
struct Played {
    total_before: u64,
    writers: Vec<Writer>,
    seen: Sightings,
    ended_at: Instant,
    covered: Level,
}

struct Trial {
    random: fastrand::Rng,
    totals: Totals,
    runtime: Runtime,
    folder: tempfile::TempDir,
    has_small_queue: bool,
    /// Every seq that was ever shown, and its write.
    seqs: HashMap<u64, (usize, usize, usize)>,
}

#[test]
fn a_kill_at_any_moment_leaves_a_prefix_with_every_guaranteed_write() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("VATN_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds = number("VATN_KILL_ROUNDS").unwrap_or(20);
    println!("seed {seed} (VATN_SEED repeats it), {rounds} rounds");
    let mut trial = Trial {
        random: fastrand::Rng::with_seed(seed),
        totals: Totals::default(),
        runtime: tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap(),
        folder: tempfile::tempdir().unwrap(),
        has_small_queue: false,
        seqs: HashMap::new(),
    };
    let mut played: Option<Played> = None;
    for round in 0..=rounds as usize {
        println!("round {round}");
        let mut broker = trial.open();
        let mut found = trial.inspect(&broker);
        if let Some(played) = &played {
            trial.check(round - 1, played, &found);
        }
        // A restart without further writes undoes nothing either.
        if trial.random.u8(..4) == 0 {
            broker.kill();
            broker = trial.open();
            let again = trial.inspect(&broker);
            assert_eq!(again.clients, found.clients, "changed by a restart");
            assert_eq!((again.total, &again.pair), (found.total, &found.pair));
            found = again;
        }
        if round < rounds as usize {
            played = Some(trial.play(round, broker, found));
        }
    }
    println!("{:#?}", trial.totals);
}

impl Trial {
    /// Starts a broker, sometimes after others that are killed during their start.
    fn open(&mut self) -> Broker {
        while self.random.u8(..4) == 0 {
            let moment = Duration::from_micros(self.random.u64(..120_000));
            kill_while_starting(self.folder.path(), moment);
            self.totals.kills_while_starting += 1;
        }
        // A small queue blocks its writers; a large one is still full at the kill.
        self.has_small_queue = self.random.bool();
        let items = if self.has_small_queue { "400" } else { "4000000" };
        let arguments = ["--write-queue-items", items, "--write-queue-wait-ms", "120000"];
        let retain = if self.random.bool() { "0" } else { "1000000" };
        // With short segments the whole log is sometimes trimmed, and its file reused.
        let segment = if self.random.bool() { "4096" } else { "4000000" };
        let retain = ["--retain-bytes", retain, "--segment-bytes", segment];
        Broker::open(self.folder.path(), &[&arguments[..], &retain].concat())
    }

    /// Lets the clients write until the broker is killed, or stopped.
    fn play(&mut self, number: usize, broker: Broker, found: Found) -> Played {
        // A stopping broker refuses writes that wait for room, and may accept later ones.
        let stops = !self.has_small_queue && self.random.u8(..4) == 0;
        let target_max = if self.random.u8(..4) == 0 { 200 } else { 6_000 };
        let target = self.random.u64(1..=target_max);
        let round = Arc::new(Round { number, target, ..Round::default() });
        let (router, publisher) = (broker.router.clone(), broker.publisher.clone());
        let total_before = found.total;
        let writers = found.clients.into_iter().enumerate().map(|(id, state)| {
            let writer = Writer::new(id, number, Ledger::after(state), self.random.u64(..));
            self.runtime.spawn(writer.work(router.clone(), Arc::clone(&round)))
        });
        let writers: Vec<_> = writers.collect();
        let mut watchers = vec![self.runtime.spawn(follow(publisher, Arc::clone(&round), CLIENTS))];
        watchers.extend((0..READERS).map(|_| {
            let seed = self.random.u64(..);
            self.runtime.spawn(read(router.clone(), Arc::clone(&round), CLIENTS, seed))
        }));
        let moment = Duration::from_micros(self.random.u64(..4_000));
        let ended = async {
            round.due.notified().await;
            tokio::time::sleep(moment).await;
            let ended = tokio::task::spawn_blocking(move || match stops {
                true => assert!(broker.stop().success(), "the stop failed"),
                false => broker.kill(),
            });
            ended.await.unwrap();
            let ended_at = Instant::now();
            round.is_over.store(true, Ordering::Relaxed);
            let mut writers_done = Vec::new();
            for writer in writers {
                writers_done.push(writer.await.unwrap());
            }
            let mut seen = Sightings::new(number, CLIENTS);
            for watcher in watchers {
                seen.join(watcher.await.unwrap());
            }
            (writers_done, seen, ended_at)
        };
        let ended = self.runtime.block_on(async { tokio::time::timeout(ROUND_MAX, ended).await });
        let (writers, seen, ended_at) = ended.expect("nothing hangs");
        let covered = if stops { Level::Queued } else { Level::Stored };
        *(if stops { &mut self.totals.stops } else { &mut self.totals.kills }) += 1;
        let played = Played { total_before, writers, seen, ended_at, covered };
        self.count(&played);
        played
    }

    fn count(&mut self, played: &Played) {
        let totals = &mut self.totals;
        for writer in &played.writers {
            totals.requests += writer.requests;
            totals.replies += writer.replies;
            totals.writes += writer.ledger.writes.len() as u64;
            for write in writer.ledger.writes.iter().filter(|write| write.is_acknowledged) {
                *totals.acknowledged.entry(write.promised.name()).or_default() += 1;
            }
        }
        totals.reads += played.seen.reads;
        totals.changes += played.seen.changes;
    }

    /// Reads everything, like a client.
    fn inspect(&self, broker: &Broker) -> Found {
        self.runtime.block_on(async {
            let mut connection = Connection::connect(&broker.router).await.unwrap();
            let asked_at = Instant::now();
            let hello = connection.result(Request::new("hello")).await;
            let hello: HashMap<String, Value> = rmpv::ext::from_value(hello).unwrap();
            let mut found = Found {
                clients: vec![State::new(); CLIENTS],
                total: 0,
                pair: Value::Nil,
                values: HashMap::new(),
                seq: hello["seq"].as_u64().unwrap(),
                highest_entry: 0,
                asked_at,
            };
            let page = connection.result(Request::new("range").option("keys_only", true)).await;
            assert!(page[1].is_nil(), "one page holds all");
            let keys = page[0].as_array().unwrap().iter().map(key_bytes);
            let keys: Vec<String> = keys.map(|key| String::from_utf8(key).unwrap()).collect();
            if keys.is_empty() {
                return found;
            }
            let meta = |key: &String| Request::new("get").key(key.as_bytes()).option("meta", true);
            let requests: Vec<Request> = keys.iter().map(meta).collect();
            let entries = connection.call(&requests).await.unwrap();
            for (key, result) in keys.into_iter().zip(entries) {
                // An entry that expired meanwhile is nil.
                if let Some((value, seq, level)) = entry(&result.unwrap()) {
                    found.add(key, value, seq, level);
                }
            }
            found
        })
    }
}

impl Found {
    fn add(&mut self, key: String, value: Value, seq: u64, level: Level) {
        assert_ne!(level, Level::Memory, "{key}: a `memory` value after a restart");
        self.highest_entry = self.highest_entry.max(seq);
        match key.as_str() {
            "total" => self.total = value.as_u64().unwrap(),
            "pair/a" => self.pair = value.clone(),
            key if key.starts_with('c') => {
                let client: usize = key[1..key.find('/').unwrap()].parse().unwrap();
                self.clients[client].insert(key.to_owned(), (encode(&value), level));
            }
            _ => {}
        }
        self.values.insert(key, value);
    }
}

fn kill_while_starting(folder: &Path, moment: Duration) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vatn"))
        .args(["serve", "--port", "0", "--router", "tcp://127.0.0.1:0"])
        .args(["--publisher", "tcp://127.0.0.1:0", "--database"])
        .arg(folder.join("store"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The random moment is the injected fault; nothing is waited for.
    std::thread::sleep(moment);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The end of the remaining prefix, for one client.
struct Kept {
    /// The number of the client's writes after which its keys had the found values.
    at_least: usize,
    at_most: usize,
}

impl Trial {
    /// Compares the state after a restart with the ledger.
    fn check(&mut self, round: usize, played: &Played, found: &Found) {
        let kept: Vec<Kept> =
            played.writers.iter().map(|writer| played.kept(writer, found)).collect();
        let seqs: HashMap<(usize, usize), u64> =
            played.seen.seqs.iter().map(|(client, place, seq)| ((*client, *place), *seq)).collect();
        // The prefix ends at the same seq for all clients.
        let (mut last_kept, mut first_gone) = (played.seen.required_seq, u64::MAX);
        for (writer, kept) in played.writers.iter().zip(&kept) {
            for (place, write) in writer.ledger.writes.iter().enumerate() {
                let seen = seqs.get(&(writer.id, place)).copied();
                assert!(
                    write.seq.is_none() || seen.is_none() || write.seq == seen,
                    "client {}, write {place}: its seq is {:?}, and {seen:?} was published",
                    writer.id,
                    write.seq
                );
                let Some(seq) = write.seq.or(seen) else { continue };
                let owner = (round, writer.id, place);
                let other = self.seqs.insert(seq, owner);
                assert!(other.is_none(), "seq {seq} is that of {other:?} and {owner:?}");
                assert!(seq > self.totals.highest_seq, "seq {seq} was given out before");
                if place < kept.at_least {
                    last_kept = last_kept.max(seq);
                } else if place >= kept.at_most {
                    first_gone = first_gone.min(seq);
                }
            }
        }
        assert!(
            last_kept < first_gone,
            "seq {last_kept} is there or was shown, {first_gone} is not"
        );
        played.check_shared(&kept, found);
        played.check_fleeting(found);
        let highest = self.seqs.keys().copied().max().unwrap_or(0);
        self.totals.highest_seq = highest.max(played.seen.highest_seq).max(found.highest_entry);
        assert!(found.seq >= self.totals.highest_seq, "the store continues from {}", found.seq);
        self.count_fates(played, &kept);
    }

    fn count_fates(&mut self, played: &Played, kept: &[Kept]) {
        let totals = &mut self.totals;
        for (writer, kept) in played.writers.iter().zip(kept) {
            for (place, write) in writer.ledger.writes.iter().enumerate() {
                match (write.is_acknowledged, place < kept.at_most) {
                    (true, true) => {}
                    (true, false) => totals.acknowledged_below_stored_and_gone += 1,
                    (false, true) => totals.unanswered_and_there += 1,
                    (false, false) => totals.unanswered_and_gone += 1,
                }
            }
        }
    }
}

impl Played {
    /// The number of a client's writes after which its keys had the found values; fails when that
    /// breaks a guarantee to the client.
    fn kept(&self, writer: &Writer, found: &Found) -> Kept {
        let (id, ledger) = (writer.id, &writer.ledger);
        let state = &found.clients[id];
        let owed = ledger.owed(self.covered).max(self.seen.owed[id]);
        let Some(places) = ledger.find(state) else {
            panic!(
                "client {id}: no moment of its {} writes ({owed} owed) left {}; what was owed: {}",
                ledger.writes.len(),
                show(state),
                show(&ledger.states[owed])
            )
        };
        let possible = ledger.possible();
        assert!(
            *places.end() >= owed,
            "client {id}: {} of its writes are left, {owed} were promised or shown",
            places.end()
        );
        assert!(*places.start() <= possible, "client {id}: a refused write is there");
        assert!(
            self.seen.attempted[id] <= ledger.writes.len(),
            "client {id}: a write that it never made was shown"
        );
        Kept { at_least: *places.start(), at_most: (*places.end()).min(possible) }
    }

    /// The shared counter and pair add up.
    fn check_shared(&self, kept: &[Kept], found: &Found) {
        let sums = self.writers.iter().zip(kept).map(|(writer, kept)| {
            let writes = &writer.ledger.writes[..kept.at_least];
            writes.iter().map(|write| write.shared).sum::<u64>()
        });
        assert_eq!(found.total, self.total_before + sums.sum::<u64>(), "the counter adds up");
        assert_eq!(found.values.get("pair/a"), found.values.get("pair/b"), "half a pair");
        let lasts = self.writers.iter().zip(kept).filter_map(|(writer, kept)| {
            let writes = &writer.ledger.writes[..kept.at_least];
            let place = writes.iter().rposition(|write| write.wrote_pair)?;
            Some((writer.id, place, writes[place].seq))
        });
        let lasts: Vec<(usize, usize, Option<u64>)> = lasts.collect();
        if lasts.is_empty() {
            return;
        }
        let (id, _, place) = author_of(&found.pair).expect("the pair's author");
        let winner = lasts.iter().find(|last| (last.0, last.1) == (id, place));
        let (_, _, seq) = winner.expect("the pair is the last one of some client");
        let later = lasts.iter().find(|last| seq.is_some() && last.2 > *seq);
        assert_eq!(later, None, "a later write of the pair was overwritten by {winner:?}");
    }

    /// No expired value is shown, and every shown value was written.
    fn check_fleeting(&self, found: &Found) {
        for Fleeting { key, value, ttl, applied_by } in
            self.writers.iter().flat_map(|writer| &writer.fleeting)
        {
            let Some(shown) = found.values.get(key) else { continue };
            assert_eq!(&encode(shown), value, "{key}: a value from nowhere");
            let gone_by = applied_by.unwrap_or(self.ended_at) + *ttl + EXPIRY_SLACK;
            assert!(found.asked_at <= gone_by, "{key} is shown after its time");
        }
    }
}

/// A state as text.
fn show(state: &State) -> String {
    let items = state.iter().map(|(key, (value, level))| {
        let value = crate::support::ledger::decode(value);
        let by = author_of(&value).map_or_else(|| value.to_string(), |by| format!("{by:?}"));
        format!("{key}={by} {level}")
    });
    items.collect::<Vec<_>>().join(", ")
}
