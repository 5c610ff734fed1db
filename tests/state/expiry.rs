//! Times to live on a real broker: a value is never read after its time, and its expiry is
//! published as a change, also after a restart.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::broker::Broker;
use vatn::client::{
    Change, Client, ClientOptions, Event, HistoryOptions, Op, RawValue, Subscriber, WriteOptions,
};

/// The longest wait of any test here.
const PATIENCE: Duration = Duration::from_secs(60);

async fn connect(broker: &Broker) -> Client {
    Client::connect(&broker.router, &ClientOptions::default()).await.unwrap()
}

async fn subscribe(broker: &Broker) -> Subscriber {
    let options = ClientOptions::default();
    let mut subscriber = Subscriber::connect(&broker.publisher, b"", &options).await.unwrap();
    while !matches!(subscriber.next().await.unwrap(), Event::Beat { .. }) {}
    subscriber
}

/// The next change that is published.
async fn next(subscriber: &mut Subscriber) -> Change {
    let change = async {
        loop {
            match subscriber.next().await.unwrap() {
                Event::Change(change) => return change,
                Event::Beat { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, change).await.expect("a change comes")
}

fn ttl(ttl_ms: u64) -> WriteOptions {
    WriteOptions { ttl_ms: Some(ttl_ms), ..WriteOptions::default() }
}

fn any() -> WriteOptions {
    WriteOptions::default()
}

/// Sleeps for the duration that the test is about.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test]
async fn a_value_is_never_read_after_its_expiry() {
    let broker = Broker::start(&["--durability", "stored"]);
    let mut client = connect(&broker).await;
    for round in 0..30_u64 {
        let life = Duration::from_millis(5 + round);
        let key = format!("k{round}");
        client.set(key.as_bytes(), &RawValue::from(round), &ttl(5 + round)).await.unwrap();
        // The broker's clock started before this reply came.
        let end = Instant::now() + life;
        let mut was_seen = false;
        loop {
            let sent = Instant::now();
            let value = client.get(key.as_bytes()).await.unwrap();
            let listed = client.count(key.as_bytes()).await.unwrap();
            if sent >= end {
                assert_eq!((value, listed), (None, 0), "read after its time");
                break;
            }
            was_seen |= value.is_some();
        }
        assert!(was_seen || life < Duration::from_millis(20), "never there at all");
    }
}

#[tokio::test]
async fn an_expiry_is_a_change_with_its_own_seq() {
    let broker = Broker::start(&["--durability", "stored"]);
    let mut client = connect(&broker).await;
    let mut subscriber = subscribe(&broker).await;
    let mut worst = Duration::ZERO;
    for round in 0..20_u64 {
        let seq = client.set(b"k", &RawValue::from(round), &ttl(30)).await.unwrap();
        let due = Instant::now() + Duration::from_millis(30);
        let set = next(&mut subscriber).await;
        assert_eq!((set.op, set.seq, set.ttl_ms), (Op::Set, seq, Some(30)));
        let end = next(&mut subscriber).await;
        worst = worst.max(Instant::now().saturating_duration_since(due));
        assert_eq!(
            (end.op, &end.key[..], end.seq, end.value),
            (Op::Expire, &b"k"[..], seq + 1, None)
        );
        assert_eq!((end.index, end.count, end.prev), (0, 1, seq));
        assert_eq!(client.get(b"k").await.unwrap(), None);
    }
    println!("an expiry was published at most {worst:?} after its time");
    let history = client.changes(0, &HistoryOptions::default()).await.unwrap();
    let ops: Vec<_> = history.changes.iter().map(|change| (change.seq, change.op)).collect();
    let expected: Vec<_> =
        (0..20).flat_map(|n| [(2 * n + 1, Op::Set), (2 * n + 2, Op::Expire)]).collect();
    assert_eq!(ops, expected);
}

#[tokio::test]
async fn keys_that_expire_together_each_expire_once() {
    let broker = Broker::start(&["--durability", "stored"]);
    let mut client = connect(&broker).await;
    let mut subscriber = subscribe(&broker).await;
    let pairs: Vec<_> = (0..5_000).map(|n| (format!("k{n:04}"), RawValue::from(n))).collect();
    client.set_multi(&pairs, &ttl(20)).await.unwrap();
    let (mut ended, mut last) = (Vec::new(), 1);
    while ended.len() < pairs.len() {
        let change = next(&mut subscriber).await;
        if change.op == Op::Expire {
            assert_eq!((change.index, change.count), (0, 1));
            assert!(change.seq > std::mem::replace(&mut last, change.seq), "a seq of its own");
            ended.push(String::from_utf8(change.key.to_vec()).unwrap());
        }
    }
    ended.sort_unstable();
    assert!(ended.iter().eq(pairs.iter().map(|(key, _)| key)));
    assert_eq!(client.count(b"").await.unwrap(), 0);
}

#[tokio::test]
async fn a_restart_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--durability", "stored"];
    for is_killed in [true, false] {
        let broker = Broker::open(folder.path(), &arguments);
        let mut client = connect(&broker).await;
        client.set(b"long", &RawValue::from(1), &ttl(3_600_000)).await.unwrap();
        client.set(b"ended", &RawValue::from(2), &any()).await.unwrap();
        client.touch(b"ended", Some(3_600_000), &any()).await.unwrap();
        client.touch(b"ended", None, &any()).await.unwrap();
        let seq = client.set(b"short", &RawValue::from(3), &ttl(300)).await.unwrap();
        let end = Instant::now() + Duration::from_millis(300);
        if is_killed {
            broker.kill();
        } else {
            assert!(broker.stop().success());
        }
        pass(end.saturating_duration_since(Instant::now())).await;
        let broker = Broker::open(folder.path(), &arguments);
        let mut client = connect(&broker).await;
        assert_eq!(client.get(b"short").await.unwrap(), None, "seen after its time");
        let wait = HistoryOptions { prefix: b"short".to_vec(), wait: PATIENCE, limit: None };
        let mut after = seq;
        let change = loop {
            let page = client.changes(after, &wait).await.unwrap();
            match page.changes.into_iter().next() {
                Some(change) => break change,
                None => after = page.next,
            }
        };
        assert!(change.op == Op::Expire && change.seq > seq, "{change:?}");
        let left = client.entry(b"long").await.unwrap().unwrap().ttl_ms.unwrap();
        assert!(left < 3_600_000 - 300, "{left} ms left");
        assert_eq!(client.entry(b"ended").await.unwrap().unwrap().ttl_ms, None);
    }
}

#[tokio::test]
async fn a_touch_moves_the_expiry() {
    let broker = Broker::start(&["--durability", "stored"]);
    let mut client = connect(&broker).await;
    let mut subscriber = subscribe(&broker).await;
    assert!(!client.touch(b"none", Some(1), &any()).await.unwrap());
    client.set(b"k", &RawValue::from(7), &ttl(50)).await.unwrap();
    assert!(client.touch(b"k", Some(3_600_000), &any()).await.unwrap());
    let first_end = Instant::now() + Duration::from_millis(50);
    assert_eq!(next(&mut subscriber).await.op, Op::Set);
    let touch = next(&mut subscriber).await;
    assert_eq!((touch.op, touch.ttl_ms), (Op::Touch, Some(3_600_000)));
    assert_eq!(touch.value, None, "a touch carries no value");
    pass(first_end.saturating_duration_since(Instant::now())).await;
    let entry = client.entry(b"k").await.unwrap().expect("it was given more time");
    assert_eq!((entry.seq, entry.value), (touch.seq, RawValue::from(7)));

    assert!(client.touch(b"k", None, &any()).await.unwrap());
    assert_eq!(client.entry(b"k").await.unwrap().unwrap().ttl_ms, None);
    assert_eq!(next(&mut subscriber).await.ttl_ms, None);

    assert!(client.touch(b"k", Some(1), &any()).await.unwrap());
    assert_eq!(next(&mut subscriber).await.ttl_ms, Some(1));
    assert_eq!(next(&mut subscriber).await.op, Op::Expire);
    assert!(!client.touch(b"k", None, &any()).await.unwrap(), "what has ended stays ended");
}

/// The library that shows a process another wall clock, where it is installed.
fn fake_clock_library() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime"];
    let libraries = folders.map(|folder| Path::new(folder).join("libfaketime.so.1"));
    libraries.into_iter().find(|library| library.exists())
}

#[tokio::test]
async fn a_wall_clock_that_was_wrong_once_delays_no_expiry() {
    let Some(library) = fake_clock_library() else {
        println!("skipped: libfaketime is not installed");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let wall = folder.path().join("wall");
    // Replaced in one step, since the broker may read it at any moment.
    let set_wall = |offset: &str| {
        let new = folder.path().join("new");
        std::fs::write(&new, offset).unwrap();
        std::fs::rename(&new, &wall).unwrap();
    };
    set_wall("+0");
    let environment = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", wall.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let open = || Broker::open_with(folder.path(), &["--durability", "stored"], &environment);
    let ends_in_time = async |client: &mut Client| {
        client.set(b"short", &RawValue::from(1), &ttl(200)).await.unwrap();
        client.set(b"long", &RawValue::from(2), &ttl(3_600_000)).await.unwrap();
        pass(Duration::from_millis(201)).await;
        assert_eq!(client.get(b"short").await.unwrap(), None, "seen after its time");
        assert_eq!(client.get(b"long").await.unwrap(), Some(RawValue::from(2)));
    };
    let broker = open();
    let mut client = connect(&broker).await;
    ends_in_time(&mut client).await;
    set_wall("+1d");
    client.set(b"seen", &RawValue::from(0), &any()).await.unwrap();
    assert_eq!(client.get(b"long").await.unwrap(), None, "a step forward is accepted");
    for offset in ["+0", "-1h"] {
        set_wall(offset);
        ends_in_time(&mut client).await;
    }
    broker.kill();
    let broker = open();
    let mut client = connect(&broker).await;
    assert_eq!(client.get(b"short").await.unwrap(), None, "it came back");
    ends_in_time(&mut client).await;
    assert!(broker.stop().success());
    let broker = open();
    ends_in_time(&mut connect(&broker).await).await;
}
