//! A backup of a running broker is the state at one seq, and a restore has the same values, seqs,
//! levels and times to live.

use crate::support::broker::Broker;
use crate::support::offline::{files, state_on};
use crate::support::stub::{Stub, hello, list};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vatn::client::{
    Change, Client, ClientOptions, Entry, Event, HistoryOptions, Op, Range, RawValue, Request,
    Subscriber, WriteOptions,
};
use vatn::clock::Clock;
use vatn::protocol::Level;
use vatn::storage::MemoryStorage;
use vatn::wal::archive_reader::ArchiveReader;
use vatn::wal::restore::restore;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Each key with its entry.
type State = BTreeMap<Vec<u8>, Entry>;

/// The tolerance between times to live read at two moments, besides the time between them.
const SLACK: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(60);

fn vatn(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vatn")).args(arguments).output().unwrap()
}

/// Runs a command that must succeed; returns its output as JSON.
fn json(arguments: &[&str]) -> serde_json::Value {
    let output = vatn(&[arguments, &["--json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs a command that must fail with exit code 1; returns its message.
fn failure(arguments: &[&str]) -> String {
    let output = vatn(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

async fn connect(broker: &Broker) -> Result<Client> {
    Ok(Client::connect(&broker.router, &ClientOptions::default()).await?)
}

async fn state(broker: &Broker) -> Result<State> {
    let (mut client, mut range, mut state) =
        (connect(broker).await?, Range::default(), State::new());
    loop {
        let page = client.range_entries(&range).await?;
        state.extend(page.items.into_iter().map(|(key, entry)| (key.to_vec(), entry)));
        let Some(next) = page.next else { return Ok(state) };
        range.after = Some(next.to_vec());
    }
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

/// Writes in every way, until `stop` is set.
async fn write(endpoint: String, writer: u64, stop: Arc<AtomicBool>) -> Result {
    let mut client = Client::connect(&endpoint, &ClientOptions::default()).await?;
    let mut random = fastrand::Rng::with_seed(writer);
    let mut round = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let key = |random: &mut fastrand::Rng| format!("shared {:03}", random.u64(..300));
        let level = random.choice([Level::Memory, Level::Queued, Level::Stored]);
        let mut options = WriteOptions { durability: level, ..WriteOptions::default() };
        options.ttl_ms = (random.u8(..4) == 0).then(|| random.u64(3_600_000..7_200_000));
        let value = RawValue::from(round);
        match random.u8(..6) {
            0 => {
                options.ttl_ms = None;
                client.delete(key(&mut random).as_bytes(), &options).await?;
            }
            1 => {
                let pairs: Vec<_> = (0..5).map(|_| (key(&mut random), value.clone())).collect();
                client.set_multi(&pairs, &options).await?;
            }
            2 => {
                let key = format!("preloaded {:05}", random.u64(..25_000));
                client.set(key.as_bytes(), &value, &options).await?;
            }
            3 => {
                let (key, ttl) =
                    (key(&mut random), RawValue::from(random.u64(3_600_000..7_200_000)));
                let touch = Request::new("touch").key(key.as_bytes()).argument(&ttl);
                client.call(&touch).await?;
            }
            4 => {
                // These expire during the backup.
                let options = WriteOptions { ttl_ms: Some(random.u64(1..40)), ..options };
                client.set(key(&mut random).as_bytes(), &value, &options).await?;
            }
            _ => {
                client.set(key(&mut random).as_bytes(), &value, &options).await?;
            }
        }
    }
    Ok(())
}

/// A change, and the time when it was received.
type Received = (Change, Instant);

/// Receives every change, until that of the key `end`.
async fn follow(mut subscriber: Subscriber) -> Result<Vec<Received>> {
    let mut received = Vec::new();
    loop {
        match subscriber.next().await? {
            Event::Change(change) if change.key.as_ref() == b"end" => return Ok(received),
            Event::Change(change) => received.push((change, Instant::now())),
            Event::Gap { after, through } => panic!("missed {after} to {through}"),
            Event::Beat { .. } | Event::Disconnected | Event::Reconnected => {}
        }
    }
}

/// A key according to the changes: its value, seq, level, and time of expiry.
type EncodedRecord = (RawValue, u64, Level, Option<Instant>);

/// The state right after the write `seq`, according to a subscriber. Values of level `memory` are
/// not in a backup.
fn state_at(received: &[Received], seq: u64) -> BTreeMap<Vec<u8>, EncodedRecord> {
    let mut state = BTreeMap::<Vec<u8>, EncodedRecord>::new();
    for (change, at) in received.iter().filter(|(change, _)| change.seq <= seq) {
        let expires = change.ttl_ms.map(|ttl| *at + Duration::from_millis(ttl));
        let (level, key) = (change.durability, change.key.to_vec());
        match (change.op, &change.value) {
            (Op::Set, Some(value)) => {
                state.insert(key, (value.clone(), change.seq, level, expires));
            }
            (Op::Touch, _) => {
                let (value, ..) = state.get(&key).unwrap().clone();
                state.insert(key, (value, change.seq, level, expires));
            }
            _ => drop(state.remove(&key)),
        }
    }
    state.retain(|_, (_, _, level, _)| *level != Level::Memory);
    state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_during_writes_is_the_state_at_its_seq() -> Result {
    let folder = tempfile::tempdir()?;
    let broker = Broker::start(&["--durability", "queued"]);
    let options = ClientOptions::default();
    let mut subscriber = Subscriber::connect(&broker.publisher, b"", &options).await?;
    // From the first beat on, nothing is missed.
    while !matches!(subscriber.next().await?, Event::Beat { .. }) {}
    let mut follower = tokio::spawn(follow(subscriber));
    let mut client = connect(&broker).await?;
    for block in 0..25_u64 {
        let pairs: Vec<_> = (block * 1_000..(block + 1) * 1_000)
            .map(|number| (format!("preloaded {number:05}"), RawValue::from(number)))
            .collect();
        client.set_multi(&pairs, &WriteOptions::default()).await?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (1..=3)
        .map(|writer| tokio::spawn(write(broker.router.clone(), writer, Arc::clone(&stop))))
        .collect();
    let file = path(folder.path(), "backup");
    let connected = ["--connect", &broker.router];
    let back_up = || json(&[&["backup", &file][..], &connected].concat());
    let mut made = tokio::task::block_in_place(back_up);
    for _ in 0..20 {
        if made["changes"].as_u64() >= Some(50) {
            break;
        }
        made = tokio::task::block_in_place(back_up);
    }
    assert!(made["changes"].as_u64() >= Some(50), "nothing was written meanwhile: {made}");
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await??;
    }
    client.set(b"end", &RawValue::from(0), &WriteOptions::default()).await?;
    let received = tokio::time::timeout(PATIENCE, &mut follower).await???;
    let seq = made["seq"].as_u64().unwrap();
    let restored = path(folder.path(), "store");
    json(&["restore", &file, "-b", &restored]);
    let copy = Broker::open(folder.path(), &[]);
    let sent = Instant::now();
    let (mut found, now) = (state(&copy).await?, Instant::now());
    let slack = SLACK + sent.elapsed();
    let backed_up = state_at(&received, seq);
    // A value that expires about now may be there or not.
    let is_clear = |expires: Option<Instant>| {
        expires.is_none_or(|expires| expires > now + slack || expires + slack < now)
    };
    found.retain(|key, _| backed_up.get(key).is_none_or(|known| is_clear(known.3)));
    let mut expected = backed_up.clone();
    expected.retain(|_, (.., expires)| expires.is_none_or(|expires| expires > now + slack));
    let values = |state: &State| -> Vec<_> {
        let entries = state.iter();
        entries.map(|(key, e)| (key.clone(), e.value.clone(), e.seq, e.durability)).collect()
    };
    let expected_values: Vec<_> = expected
        .iter()
        .map(|(key, (value, seq, level, _))| (key.clone(), value.clone(), *seq, *level))
        .collect();
    assert!(values(&found) == expected_values, "{}", difference(&found, &expected));
    for (key, entry) in &found {
        let expires = expected[key].3;
        assert_eq!(entry.ttl_ms.is_some(), expires.is_some(), "{key:?}");
        let Some(left) = expires.map(|expires| expires - now) else { continue };
        let restored = Duration::from_millis(entry.ttl_ms.unwrap());
        assert!(left.abs_diff(restored) < slack, "{key:?}: {restored:?} left, not {left:?}");
    }
    goes_on_after(&copy, seq, &backed_up).await
}

/// The next write gets the next seq. A value with milliseconds to live may have expired only in the
/// copy, and each such expiry takes a seq.
async fn goes_on_after(
    copy: &Broker,
    seq: u64,
    backed_up: &BTreeMap<Vec<u8>, EncodedRecord>,
) -> Result {
    let mut client = connect(copy).await?;
    let next = client.set(b"next", &RawValue::from(1), &WriteOptions::default()).await?;
    let changes = client.changes(seq, &HistoryOptions::default()).await?.changes;
    let seqs: Vec<_> = changes.iter().map(|change| change.seq).collect();
    assert_eq!(seqs, Vec::from_iter(seq + 1..=next), "the copy continues where the backup ends");
    for change in changes.iter().filter(|change| change.seq != next) {
        let expires = backed_up.get(&change.key.to_vec()).and_then(|known| known.3);
        assert!(change.op == Op::Expire && expires.is_some(), "{change:?}, which was {expires:?}");
    }
    Ok(())
}

fn difference(found: &State, expected: &BTreeMap<Vec<u8>, EncodedRecord>) -> String {
    let mut lines = Vec::new();
    let keys: std::collections::BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    for key in keys {
        let (left, right) = (found.get(key), expected.get(key));
        let is_equal = left.zip(right).is_some_and(|(left, right)| {
            (&left.value, left.seq, left.durability) == (&right.0, right.1, right.2)
        });
        if !is_equal && lines.len() < 5 {
            let key = String::from_utf8_lossy(key);
            lines.push(format!("{key}: found {left:?}, expected {right:?}"));
        }
    }
    lines.join("\n")
}

/// A small store with every kind of entry, and its backup in `folder`.
async fn small(folder: &Path) -> Result<(Broker, State, String)> {
    let broker = Broker::start(&[]);
    let mut client = connect(&broker).await?;
    for (number, level) in Level::ALL.into_iter().enumerate() {
        let options = WriteOptions::durability(level);
        let value = RawValue::from(number as u64);
        client.set(format!("{level}").as_bytes(), &value, &options).await?;
        client.set(b"covered", &value, &options).await?;
        client.set(b"hidden", &value, &WriteOptions::durability(Level::Synced)).await?;
    }
    client.set(b"", &RawValue::of("the empty key")?, &WriteOptions::default()).await?;
    client.set(b"\xfe bytes", &RawValue::bin(&[0; 300]), &WriteOptions::default()).await?;
    client.set(b"hidden", &RawValue::from(9), &WriteOptions::durability(Level::Memory)).await?;
    let mortal = WriteOptions { ttl_ms: Some(600_000), ..WriteOptions::default() };
    client.set(b"mortal", &RawValue::from(1), &mortal).await?;
    client.set(b"gone", &RawValue::from(1), &WriteOptions::default()).await?;
    client.delete(b"gone", &WriteOptions::default()).await?;
    let file = path(folder, "backup");
    let made = json(&["backup", &file, "--connect", &broker.router]);
    let mut state = state(&broker).await?;
    state.retain(|_, entry| entry.durability != Level::Memory);
    assert_eq!(made["items"], state.len());
    assert_eq!(made["changes"], 0);
    Ok((broker, state, file))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_equals_the_backed_up_state() -> Result {
    let folder = tempfile::tempdir()?;
    let (broker, whole, file) = small(folder.path()).await?;
    let checked = json(&["check", &file]);
    assert_eq!((&checked["ok"], &checked["seq"]), (&true.into(), &18.into()));
    let restored = json(&["restore", &file, "-b", &path(folder.path(), "store")]);
    assert_eq!((&restored["items"], &restored["seq"]), (&whole.len().into(), &18.into()));
    assert_eq!(restored["expired"], 0);
    assert_ne!(restored["store_id"], restored["backup_of"], "another history begins");
    let checked = json(&["check", &path(folder.path(), "store")]);
    assert_eq!((&checked["items"], &checked["checkpointed"]), (&whole.len().into(), &18.into()));
    let copy = Broker::open(folder.path(), &[]);
    let mut found = state(&copy).await?;
    let (left, was) =
        (found[&b"mortal"[..]].ttl_ms.unwrap(), whole[&b"mortal"[..]].ttl_ms.unwrap());
    assert!(left <= was && left > was - 30_000, "{left} of {was}");
    found.get_mut(&b"mortal"[..]).unwrap().ttl_ms = Some(was);
    assert_eq!(found, whole);
    assert!(!found.contains_key(&b"hidden"[..]), "a memory value does not uncover an older one");
    let mut client = connect(&copy).await?;
    assert_eq!(client.set(b"k", &RawValue::from(1), &WriteOptions::default()).await?, 19);
    assert_eq!(client.changes(18, &HistoryOptions::default()).await?.next, 19);
    let error = client.changes(17, &HistoryOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), Some("COMPACTED"), "history begins after the backup");
    drop(broker);
    copy.kill();
    let copy = Broker::open(folder.path(), &[]);
    let mut found = self::state(&copy).await?;
    found.remove(&b"k"[..]).expect("it survives a kill");
    found.get_mut(&b"mortal"[..]).unwrap().ttl_ms = Some(was);
    assert_eq!(found, whole);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_command_reports_its_contents() -> Result {
    let folder = tempfile::tempdir()?;
    let (broker, _, file) = small(folder.path()).await?;
    let output = vatn(&["backup", &file, "--connect", &broker.router]);
    let line = String::from_utf8(output.stdout)?;
    let end = "; with 0 changes made meanwhile, the state at seq 18, ";
    assert!(line.starts_with("7 items, ") && line.contains(end), "{line}");
    assert!(line.ends_with(" bytes\n"), "{line}");
    let line = String::from_utf8(vatn(&["check", &file]).stdout)?;
    assert!(line.starts_with("a whole backup of store "), "{line}");
    assert!(line.contains(" at seq 18: 7 items and 0 changes made meanwhile, "), "{line}");
    // Through a pipe the backup is the same, and the sentence goes to stderr.
    let piped = vatn(&["backup", "-", "--connect", &broker.router]);
    assert!(piped.stdout.starts_with(b"VATNBAK\x01") && piped.status.success());
    assert!(String::from_utf8(piped.stderr)?.contains(end));
    let names: Vec<_> = files(folder.path()).into_iter().collect();
    assert_eq!(names, [Path::new("backup")], "nothing is left beside it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_is_refused_and_nothing_is_left_behind() -> Result {
    let folder = tempfile::tempdir()?;
    let (_broker, _, file) = small(folder.path()).await?;
    let whole = std::fs::read(&file)?;
    let store = path(folder.path(), "store");
    for position in (0..whole.len()).step_by(23) {
        let mut bytes = whole.clone();
        bytes[position] ^= 0x08;
        std::fs::write(&file, &bytes)?;
        let said = failure(&["restore", &file, "-b", &store]);
        assert!(said.starts_with(&format!("vatn: error: {file}: ")), "{said}");
        assert!(!Path::new(&store).exists(), "byte {position}");
        assert_eq!(failure(&["check", &file]), said);
    }
    std::fs::write(&file, &whole[..whole.len() - 9])?;
    std::fs::create_dir(&store)?;
    let said = failure(&["restore", &file, "-b", &store]);
    assert!(said.contains("it is cut short"), "{said}");
    assert_eq!(std::fs::read_dir(&store)?.count(), 0, "the empty directory stays empty");
    let faults = vatn(&["check", &file, "--json"]);
    let faults: serde_json::Value = serde_json::from_slice(&faults.stdout)?;
    assert_eq!(faults["ok"], false);
    assert_eq!(vatn(&["check", &file, "--repair"]).status.code(), Some(2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_refuses_a_directory_that_is_not_empty() -> Result {
    let folder = tempfile::tempdir()?;
    let (_broker, _, file) = small(folder.path()).await?;
    let store = path(folder.path(), "store");
    json(&["restore", &file, "-b", &store]);
    let said = failure(&["restore", &file, "-b", &store]);
    let words = "store holds a store already: choose an empty or a new one with -b\n";
    assert!(said.ends_with(words), "{said}");
    let said = failure(&["restore", &file, "-b", &path(folder.path(), "")]);
    assert!(said.ends_with("is not empty: choose an empty or a new one with -b\n"), "{said}");
    let said = failure(&["restore", &file, "-b", &file]);
    assert!(said.contains("cannot be used: Not a directory"), "{said}");
    let said = failure(&["restore", &store, "-b", &path(folder.path(), "new")]);
    assert!(said.contains("is a directory, not a backup"), "{said}");
    let said = failure(&["restore", &path(folder.path(), "x"), "-b", &path(folder.path(), "new")]);
    assert!(said.contains("cannot read") && said.contains("No such file"), "{said}");
    assert!(!folder.path().join("new").exists());
    assert_eq!(vatn(&["restore", &file]).status.code(), Some(2), "-b is needed");
    Ok(())
}

fn back_up(broker: &Stub, file: &str) -> Output {
    tokio::task::block_in_place(|| vatn(&["backup", file, "--connect", &broker.endpoint]))
}

/// The change that sets the key `mortal` for a minute.
fn mortal(seq: u64) -> rmpv::Value {
    let (ttl, level) = (60_000.into(), "stored".into());
    let numbers = [0, 1, seq - 1].map(rmpv::Value::from);
    let header = [&[seq.into(), "set".into()][..], &numbers, &[ttl, level]].concat();
    list(vec!["mortal".into(), list(header), 7.into()])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_overtaken_by_trimming_names_the_cure() -> Result {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let broker = Stub::start(|method, _| match method {
        "hello" => Ok(hello(ASKED.fetch_add(10, Ordering::Relaxed))),
        "range" => Ok(list(vec![list(vec![]), rmpv::Value::Nil])),
        "changes" => {
            let words = "the history before seq 17 is no longer held".into();
            Err(list(vec!["COMPACTED".into(), words, rmpv::Value::Map(vec![])]))
        }
        _ => Ok(0.into()),
    })
    .await?;
    let folder = tempfile::tempdir()?;
    let output = back_up(&broker, &path(folder.path(), "backup"));
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr)?;
    assert!(said.starts_with("vatn: error: COMPACTED: the history before seq 17"), "{said}");
    assert!(said.contains("serve with a larger --retain-bytes"), "{said}");
    assert_eq!(files(folder.path()), Vec::<std::path::PathBuf>::new(), "no half file");
    Ok(())
}

/// A change states the time to live of its value from the time of the write; the entry states the
/// remaining time.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_requests_the_exact_expiry_of_values_written_meanwhile() -> Result {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let broker = Stub::start(|method, params| match method {
        "hello" => Ok(hello(ASKED.fetch_add(1, Ordering::Relaxed).min(1))),
        "range" => Ok(list(vec![list(vec![]), rmpv::Value::Nil])),
        "changes" => Ok(list(vec![list(vec![mortal(1)]), 1.into()])),
        "get" => {
            assert_eq!(params[0], "mortal".into());
            Ok(list(vec![7.into(), 1.into(), 20_000.into(), "stored".into()]))
        }
        _ => Ok(0.into()),
    })
    .await?;
    let folder = tempfile::tempdir()?;
    let file = path(folder.path(), "backup");
    let began = Clock::system().now();
    assert!(back_up(&broker, &file).status.success());
    let mut archive = ArchiveReader::open(std::fs::File::open(&file)?)?;
    let disk = MemoryStorage::default();
    restore(&mut archive, &disk, began, &mut |_, _| {})?;
    let entry = state_on(&disk)?.remove(&b"mortal"[..]).unwrap();
    assert_eq!((entry.0, entry.1, entry.2), (vec![7], 1, Level::Stored));
    let lives = entry.3 - began;
    assert!((20_000..50_000).contains(&lives), "{lives}");
    Ok(())
}

/// A key of the first page gets a time to live meanwhile, and no write follows: its entry comes a
/// second time, right after the last page.
#[tokio::test(flavor = "multi_thread")]
async fn times_of_expiry_may_follow_the_last_page() -> Result {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    fn page(key: &str, next: rmpv::Value) -> rmpv::Value {
        let entry = list(vec![7.into(), 1.into(), rmpv::Value::Nil, "stored".into()]);
        list(vec![list(vec![list(vec![key.into(), entry])]), next])
    }
    let broker = Stub::start(|method, params| match method {
        "hello" => Ok(hello(1 + ASKED.fetch_add(1, Ordering::Relaxed).min(1))),
        "range" if params.to_string().contains("after") => Ok(page("z", rmpv::Value::Nil)),
        "range" => Ok(page("mortal", "mortal".into())),
        "changes" => Ok(list(vec![list(vec![mortal(2)]), 2.into()])),
        "get" => Ok(list(vec![7.into(), 2.into(), 20_000.into(), "stored".into()])),
        _ => Ok(2.into()),
    })
    .await?;
    let folder = tempfile::tempdir()?;
    let file = path(folder.path(), "backup");
    assert!(back_up(&broker, &file).status.success());
    let checked = json(&["check", &file]);
    assert_eq!((&checked["ok"], &checked["seq"]), (&true.into(), &2.into()));
    let restored = json(&["restore", &file, "-b", &path(folder.path(), "store")]);
    assert_eq!(restored["items"], 2);
    Ok(())
}

/// The disk fails during a restore: the partial store is removed again.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_restore_leaves_nothing_behind() -> Result {
    let folder = tempfile::tempdir()?;
    let (_broker, _, file) = small(folder.path()).await?;
    let store = path(folder.path(), "store");
    for is_there in [false, true] {
        if is_there {
            std::fs::create_dir(&store)?;
        }
        // No file may be longer than a block, and the process survives the signal.
        let output = Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" restore \"$1\" -b \"$2\""])
            .args([env!("CARGO_BIN_EXE_vatn"), &file, &store])
            .output()?;
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr)?;
        assert!(said.contains("File too large"), "{said}");
        assert_eq!(Path::new(&store).exists(), is_there);
        assert_eq!(files(folder.path()), [Path::new("backup")]);
    }
    Ok(())
}
