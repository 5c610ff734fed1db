//! The history of a real broker: from any seq, by prefix, with a wait, from memory and from the
//! log. And its uses: a watch without a hole or a repeat, an exact export, a mirror.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::broker::Broker;
use crate::support::scribe::{Known, Scribe, known};
use serde_json::{Value, json};
use vatn::client::{
    Change, Client, ClientError, ClientOptions, HistoryOptions, Range, RawValue, WriteOptions,
};

/// The longest wait of any test here.
const PATIENCE: Duration = Duration::from_secs(60);

fn broker(arguments: &[&str]) -> Broker {
    Broker::start(&[&["--durability", "stored"], arguments].concat())
}

async fn connect(broker: &Broker) -> Client {
    Client::connect(&broker.router, &ClientOptions::default()).await.unwrap()
}

fn any() -> WriteOptions {
    WriteOptions::default()
}

fn under(prefix: &[u8], limit: Option<u64>) -> HistoryOptions {
    HistoryOptions { prefix: prefix.to_vec(), limit, wait: Duration::ZERO }
}

/// All changes after `after`, page by page. Each page is checked by itself.
async fn replay(client: &mut Client, after: u64, options: &HistoryOptions) -> Vec<Change> {
    let (mut all, mut after) = (Vec::new(), after);
    loop {
        let page = client.changes(after, options).await.unwrap();
        let mut prev = after;
        for change in &page.changes {
            assert_eq!(change.prev, prev, "{change:?}");
            assert!(change.seq <= page.next, "{change:?} is beyond {}", page.next);
            prev = change.seq;
        }
        let is_one_write = page.changes.windows(2).all(|pair| pair[0].seq == pair[1].seq);
        let most = options.limit.unwrap_or(u64::MAX);
        assert!(is_one_write || page.changes.len() as u64 <= most, "over the limit of {most}");
        if let (Some(first), Some(last)) = (page.changes.first(), all.last()) {
            let last: &Change = last;
            assert!(first.seq > last.seq, "a write was split: {last:?}, {first:?}");
        }
        if page.changes.is_empty() && page.next == after {
            return all;
        }
        all.extend(page.changes);
        after = page.next;
    }
}

fn knowns(changes: &[Change]) -> Vec<Known> {
    changes.iter().map(known).collect()
}

/// The seq and the number of a change in a line of JSON.
fn place_of(line: &Value) -> (u64, u64) {
    (line["seq"].as_u64().unwrap(), line["index"].as_u64().unwrap())
}

fn places(changes: &[Change]) -> Vec<(u64, u64)> {
    changes.iter().map(|change| (change.seq, change.index)).collect()
}

mod history {
    use super::*;

    #[tokio::test]
    async fn history_begins_at_any_seq_and_keeps_writes_whole() {
        let broker = broker(&[]);
        let mut client = connect(&broker).await;
        let mut scribe = Scribe::new(1);
        for n in 0..300 {
            scribe.write(&mut client).await;
            if n % 50 == 0 {
                scribe.burst(&mut client).await;
            }
        }
        let last = scribe.last_seq();
        for limit in [None, Some(1), Some(2), Some(7)] {
            for after in (0..=last).step_by(if limit.is_none() { 1 } else { 97 }) {
                let changes = replay(&mut client, after, &under(b"", limit)).await;
                assert_eq!(knowns(&changes), scribe.after(after, b""), "{after} {limit:?}");
            }
        }
    }

    #[tokio::test]
    async fn history_shows_only_changes_under_the_prefix() {
        let broker = broker(&["--range-items", "5"]);
        let mut client = connect(&broker).await;
        let mut scribe = Scribe::new(2);
        for _ in 0..200 {
            scribe.write(&mut client).await;
        }
        for prefix in [b"a".as_slice(), b"b", b"a/1", b"\xfe", b"none"] {
            for after in [0, 50, scribe.last_seq()] {
                let changes = replay(&mut client, after, &under(prefix, None)).await;
                assert_eq!(knowns(&changes), scribe.after(after, prefix), "{prefix:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_waiting_request_is_answered_by_the_first_change() {
        let broker = broker(&[]);
        let (mut waiting, mut client) = (connect(&broker).await, connect(&broker).await);
        let began = Instant::now();
        let wait = HistoryOptions { wait: PATIENCE, ..under(b"a", None) };
        let answer = tokio::spawn(async move { waiting.changes(0, &wait).await.unwrap() });
        // Only a change under the prefix ends the wait: an early reply would be empty.
        for n in 0..50 {
            client.set(b"other", &RawValue::from(n), &any()).await.unwrap();
        }
        assert!(!answer.is_finished());
        let seq = client.set(b"a", &RawValue::from(1), &any()).await.unwrap();
        let page = answer.await.unwrap();
        assert!(began.elapsed() < PATIENCE / 2, "the wait went on");
        assert_eq!((places(&page.changes), page.next), (vec![(seq, 0)], seq));
    }

    #[tokio::test]
    async fn a_wait_ends_at_its_timeout() {
        let broker = broker(&[]);
        let mut client = connect(&broker).await;
        let seq = client.set(b"other", &RawValue::from(1), &any()).await.unwrap();
        let wait = HistoryOptions { wait: Duration::from_millis(30), ..under(b"a", None) };
        let began = Instant::now();
        let page = client.changes(0, &wait).await.unwrap();
        assert!(began.elapsed() >= wait.wait && page.changes.is_empty());
        assert_eq!(page.next, seq, "changes that did not match need not be requested again");
    }

    #[tokio::test]
    async fn history_is_read_from_the_log_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["--durability", "stored"];
        let mut scribe = Scribe::new(3);
        let mut broker = Broker::open(folder.path(), &arguments);
        for _ in 0..3 {
            let mut client = connect(&broker).await;
            for _ in 0..100 {
                scribe.write(&mut client).await;
            }
            scribe.burst(&mut client).await;
            broker.kill();
            broker = Broker::open(folder.path(), &arguments);
        }
        let mut client = connect(&broker).await;
        scribe.write(&mut client).await;
        for after in (0..150).chain([scribe.last_seq() - 1, scribe.last_seq()]) {
            let limit = (after % 3 == 0).then_some(1 + after);
            let prefix = if after % 2 == 0 { &b""[..] } else { b"b" };
            let changes = replay(&mut client, after, &under(prefix, limit)).await;
            assert_eq!(knowns(&changes), scribe.after(after, prefix), "{after} {limit:?}");
        }
    }

    /// A broker that keeps as little history as possible, and the first seq of the held history.
    async fn trimmed() -> (Broker, Client, Scribe, u64) {
        let small =
            ["--retain-bytes", "1", "--segment-bytes", "4096", "--subscriber-bytes", "1024"];
        let broker = broker(&small);
        let mut client = connect(&broker).await;
        let mut scribe = Scribe::new(4);
        let deadline = Instant::now() + PATIENCE;
        loop {
            for _ in 0..50 {
                scribe.write(&mut client).await;
            }
            client.flush().await.unwrap();
            match client.changes(0, &under(b"", None)).await {
                Err(ClientError::Refused(refusal)) => {
                    assert_eq!(refusal.code, "COMPACTED");
                    assert_eq!(refusal.details[0].0, "first");
                    let first = refusal.details[0].1.as_u64().unwrap();
                    return (broker, client, scribe, first);
                }
                other => assert!(Instant::now() < deadline, "still held: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn trimmed_history_is_refused_with_the_first_held_seq() {
        let (broker, mut client, scribe, first) = trimmed().await;
        assert!(first > 1 && first <= scribe.last_seq() + 1);
        let changes = replay(&mut client, first - 1, &under(b"", None)).await;
        assert_eq!(knowns(&changes), scribe.after(first - 1, b""));

        for command in ["changes", "watch"] {
            let done = broker.vatn(&[command, "--from", "0", "--json"]);
            let error = done.error(1);
            assert!(error.starts_with("COMPACTED: ") && error.contains("vatn export"), "{error}");
        }
        let mut http = crate::support::http::Connection::open(&broker.http);
        for headers in ["", "Accept: text/event-stream\r\n"] {
            let request =
                format!("GET /changes?from=0 HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
            http.send(request.as_bytes());
            let response = http.response(false);
            assert_eq!((response.status, &response.json()["error"]), (410, &json!("COMPACTED")));
            assert_eq!(response.json()["first"], first);
        }
    }

    #[tokio::test]
    async fn the_history_of_another_store_is_refused() {
        let broker = broker(&[]);
        broker.vatn(&["set", "a", "1"]).text();
        for command in ["changes", "watch"] {
            let done = broker.vatn(&[command, "--from", "1000"]);
            let error = done.error(1);
            assert!(error.contains("another history") && error.contains("at seq 1"), "{error}");
        }
    }

    /// The last seq of the store, from its refusal to show changes after `after`.
    async fn refused(client: &mut Client, after: u64, wait: Duration) -> u64 {
        let options = HistoryOptions { wait, ..under(b"a", None) };
        match client.changes(after, &options).await {
            Err(ClientError::Refused(refusal)) => {
                assert_eq!((&*refusal.code, &*refusal.details[0].0), ("OTHER_HISTORY", "seq"));
                refusal.details[0].1.as_u64().unwrap()
            }
            other => panic!("after {after}: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_seq_that_the_store_never_reached_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Broker::open(folder.path(), &["--durability", "memory"]);
        let mut client = connect(&broker).await;
        assert_eq!(refused(&mut client, 1, PATIENCE).await, 0);
        let seq = client.set(b"a", &RawValue::from(1), &any()).await.unwrap();
        for after in [seq + 1, seq + 1_000, u64::MAX] {
            assert_eq!(refused(&mut client, after, Duration::ZERO).await, seq);
            assert_eq!(refused(&mut client, after, PATIENCE).await, seq);
        }
        assert!(replay(&mut client, seq, &under(b"", None)).await.is_empty(), "its own last one");
        // A crash undoes writes, and keeps every position that a client may have seen.
        broker.kill();
        broker = Broker::open(folder.path(), &[]);
        client = connect(&broker).await;
        let page = client.changes(seq, &under(b"", None)).await.unwrap();
        assert!(page.changes.is_empty() && page.next >= seq, "{page:?}");
        let wait = HistoryOptions { wait: PATIENCE, ..under(b"a", None) };
        let mut waiting = connect(&broker).await;
        let answer = tokio::spawn(async move { waiting.changes(page.next, &wait).await.unwrap() });
        let next = client.set(b"a", &RawValue::from(2), &any()).await.unwrap();
        assert_eq!(places(&answer.await.unwrap().changes), [(next, 0)]);
    }

    #[tokio::test]
    async fn history_is_printed_as_text_and_as_json() {
        let broker = broker(&[]);
        broker.vatn(&["set", "boat:1", "{\"oars\":2}", "--ttl-ms", "3600000"]).text();
        broker.vatn(&["set", "other", "1"]).text();
        broker.vatn(&["del", "boat:1"]).text();
        let shown = broker.vatn(&["changes", "--from", "0", "--prefix", "boat:"]);
        let text = String::from_utf8(shown.stdout).unwrap();
        assert_eq!(text, "1\tset\tboat:1\t{\"oars\":2}\n3\tdelete\tboat:1\n");
        assert!(shown.stderr.contains("--from 3"), "{}", shown.stderr);
        let lines = broker.vatn(&["changes", "--from", "0", "--limit", "1", "--json"]).json_lines();
        let change = json!({
            "seq": 1, "op": "set", "index": 0, "count": 1, "prev": 0, "ttl_ms": 3_600_000,
            "level": "stored", "key": "boat:1", "value": {"oars": 2},
        });
        assert_eq!(lines, [change, json!({"vatn": "changes", "seq": 1, "lines": 1})]);
    }
}

mod watching {
    use super::*;

    /// Writes until `stop` is set.
    fn write_on(broker: &Broker, seed: u64, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<()> {
        let (router, stop) = (broker.router.clone(), Arc::clone(stop));
        tokio::spawn(async move {
            let mut client = Client::connect(&router, &ClientOptions::default()).await.unwrap();
            let mut scribe = Scribe::new(seed);
            while !stop.load(Ordering::Relaxed) {
                scribe.write(&mut client).await;
            }
        })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_watch_from_a_seq_has_no_hole_and_no_repeat_during_writes() {
        let broker = broker(&["--range-items", "50"]);
        let mut client = connect(&broker).await;
        let mut scribe = Scribe::new(5);
        for _ in 0..500 {
            scribe.write(&mut client).await;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let writer = write_on(&broker, 6, &stop);
        for (from, prefix) in [(0, ""), (250, "a"), (scribe.last_seq(), "")] {
            let from_text = from.to_string();
            let arguments = ["watch", prefix, "--from", &from_text, "--json", "--count", "2000"];
            let watch = broker.follow(&arguments);
            let lines = tokio::task::spawn_blocking(move || watch.rest()).await.unwrap();
            let expected = replay(&mut client, from, &under(prefix.as_bytes(), None)).await;
            let watched: Vec<_> = lines.iter().map(place_of).collect();
            assert_eq!(watched, places(&expected)[..2000], "from {from}");
            let prevs = lines.iter().map(|line| line["prev"].as_u64().unwrap());
            let before = std::iter::once(from).chain(watched.iter().map(|place| place.0));
            assert!(prevs.eq(before.take(2000)), "each names the one before it");
        }
        stop.store(true, Ordering::Relaxed);
        writer.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_watch_fetches_changes_that_the_publisher_dropped() {
        let broker = broker(&["--subscriber-bytes", "65536"]);
        let mut client = connect(&broker).await;
        let mut watch = broker.follow(&["watch", "--json"]);
        assert_eq!(watch.json()["watching"], "");
        // The test reads none of its output, so the watch stops reading and falls behind.
        let large = RawValue::from("x".repeat(20_000).as_str());
        for _ in 0..2_000 {
            client.set(b"a", &large, &any()).await.unwrap();
        }
        let watched: Vec<u64> = (0..2_000).map(|_| place_of(&watch.json()).0).collect();
        assert!(watched.iter().copied().eq(1..=2_000), "{watched:?}");
        assert!(client.stats().await.unwrap()["lost"].as_u64() > Some(0), "nothing was lost");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_watch_continues_without_a_hole_after_the_broker_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = |name: &str| format!("ipc://{}/{name}", folder.path().display());
        let (router, publisher) = (endpoint("r"), endpoint("p"));
        let arguments = ["--router", &router, "--publisher", &publisher, "--durability", "stored"];
        let mut broker = Broker::open(folder.path(), &arguments);
        let mut scribe = Scribe::new(7);
        let watch = ["watch", "--json", "--connect", &router, "--subscribe", &publisher];
        let mut watch = broker.follow_at(&watch);
        assert_eq!(watch.json()["seq"], 0);
        let mut watched = Vec::new();
        for _ in 0..3 {
            let mut client = connect(&broker).await;
            for _ in 0..50 {
                scribe.write(&mut client).await;
            }
            broker.kill();
            broker = Broker::open(folder.path(), &arguments);
            let mut client = connect(&broker).await;
            // Most likely before the watch has reconnected.
            for _ in 0..50 {
                scribe.write(&mut client).await;
            }
            let expected = scribe.after(0, b"");
            while watched.len() < expected.len() {
                watched.push(place_of(&watch.json()));
            }
            let expected: Vec<_> = expected.iter().map(|known| (known.seq, known.index)).collect();
            assert_eq!(watched, expected);
        }
    }
}

mod copies {
    use super::*;

    type Items = BTreeMap<Vec<u8>, (Vec<u8>, bool)>;

    /// Every key with its value, and whether it expires.
    async fn items(client: &mut Client) -> Items {
        let (mut items, mut range) = (Items::new(), Range::default());
        loop {
            let page = client.range_entries(&range).await.unwrap();
            for (key, entry) in page.items {
                let value = entry.value.as_bytes().to_vec();
                items.insert(key.to_vec(), (value, entry.ttl_ms.is_some()));
            }
            let Some(next) = page.next else { return items };
            range.after = Some(next.to_vec());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_export_is_exact_at_its_seq_during_writes() {
        let broker = broker(&["--range-items", "100"]);
        let mut client = connect(&broker).await;
        let pairs: Vec<_> = (0..20_000).map(|n| (format!("k{n:05}"), RawValue::from(0))).collect();
        for pairs in pairs.chunks(10_000) {
            client.set_multi(pairs, &any()).await.unwrap();
        }
        let stop = Arc::new(AtomicBool::new(false));
        let writer = {
            let (router, stop) = (broker.router.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut client = Client::connect(&router, &ClientOptions::default()).await.unwrap();
                let mut random = fastrand::Rng::with_seed(8);
                for n in 1.. {
                    let key = format!("k{:05}", random.u32(..20_000));
                    match random.u8(..4) {
                        0 => drop(client.delete(key.as_bytes(), &any()).await.unwrap()),
                        _ => drop(client.set(key.as_bytes(), &n.into(), &any()).await.unwrap()),
                    }
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            })
        };
        let exported = broker.vatn(&["export"]);
        stop.store(true, Ordering::Relaxed);
        writer.await.unwrap();
        let lines = exported.json_lines();
        let (mark, lines) = lines.split_last().unwrap();
        assert_eq!(mark["lines"], lines.len());
        assert!(lines.iter().any(|line| line["op"].is_string()), "nothing changed meanwhile");

        let seq = mark["seq"].as_u64().unwrap();
        let mut model = BTreeMap::new();
        for change in replay(&mut client, 0, &under(b"", Some(10_000))).await {
            if change.seq <= seq {
                match change.value {
                    Some(value) => {
                        drop(model.insert(change.key.to_vec(), (value.as_bytes().to_vec(), false)))
                    }
                    None => drop(model.remove(&change.key.to_vec())),
                }
            }
        }
        let copy = super::broker(&[]);
        let summary = copy.vatn_reading(&exported.stdout, &["import", "-", "--json"]).json();
        assert_eq!((&summary["items"], &summary["seq"]), (&mark["lines"], &mark["seq"]));
        assert!(items(&mut connect(&copy).await).await == model, "the copy is not exact");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_follower_equals_the_original_also_after_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let router = format!("ipc://{}/r", folder.path().display());
        let arguments = ["--router", &router, "--durability", "stored"];
        let mut original = Broker::open(folder.path(), &arguments);
        let mut scribe = Scribe::new(9).mortal();
        let mut client = connect(&original).await;
        for _ in 0..300 {
            scribe.write(&mut client).await;
        }
        let copy = super::broker(&[]);
        let exported = original.vatn(&["export"]).stdout;
        let seq =
            copy.vatn_reading(&exported, &["import", "-", "--json"]).json()["seq"].to_string();
        let follow = ["changes", "--from", &seq, "--follow", "--json", "--connect", &router];
        let _pipe = original.follow_at(&follow).into(&copy, &["import", "-"]);
        for _ in 0..2 {
            for _ in 0..200 {
                scribe.write(&mut client).await;
            }
            original.kill();
            original = Broker::open(folder.path(), &arguments);
            client = connect(&original).await;
        }
        for _ in 0..100 {
            scribe.write(&mut client).await;
        }
        // When everything that expires has expired, one more write shows that the copy is complete.
        let deadline = Instant::now() + PATIENCE;
        let is_mortal = |items: &Items| items.values().any(|(_, is_mortal)| *is_mortal);
        while is_mortal(&items(&mut client).await) {
            assert!(Instant::now() < deadline, "something does not expire");
        }
        client.set(b"end", &RawValue::from(1), &any()).await.unwrap();
        let mut copied = connect(&copy).await;
        while copied.get(b"end").await.unwrap().is_none() {
            assert!(Instant::now() < deadline, "the copy does not follow");
        }
        let (original, copy) = (items(&mut client).await, items(&mut copied).await);
        assert!(original.len() > 300 && scribe.mortals() > 20, "too little happened");
        assert_eq!(copy, original);
    }

    #[tokio::test]
    async fn copies_keep_the_remaining_time_to_live() {
        let (one, two) = (broker(&[]), broker(&[]));
        one.vatn(&["set", "mortal", "1", "--ttl-ms", "3600000"]).text();
        one.vatn(&["set", "other", "1"]).text();
        let exported = one.vatn(&["export"]).stdout;
        two.vatn_reading(&exported, &["import", "-", "--json"]).json();
        let mut client = connect(&two).await;
        let left = client.entry(b"mortal").await.unwrap().unwrap().ttl_ms.unwrap();
        assert!((3_000_000..=3_600_000).contains(&left), "{left}");
        assert_eq!(client.entry(b"other").await.unwrap().unwrap().ttl_ms, None);
    }
}
