//! The change edge: subscribers get the changes they subscribed to, in order and provably complete,
//! or a notice of those they missed.

use crate::support::commands::request;
use crate::support::edges::{Edges, until};
use crate::support::peer::{LONG, MORE, Peer, command, frame, header, message, ready};
use rmpv::Value;
use std::time::Duration;
use vatn::config::WriteQueueConfig;
use vatn::limits::Limits;
use zeromq::{Socket, SocketRecv, SubSocket};

const QUIET: Duration = Duration::from_millis(150);
const SOON: Duration = Duration::from_secs(10);

/// A message of the publisher.
#[derive(Debug, Clone, PartialEq)]
struct Publication {
    topic: Vec<u8>,
    seq: u64,
    op: String,
    place: (u64, u64),
    prev: u64,
    ttl_ms: Option<u64>,
    level: String,
    value: Vec<u8>,
}

impl Publication {
    fn decode(frames: &[Vec<u8>]) -> Self {
        let [topic, header, value] = frames else { panic!("{} frames", frames.len()) };
        let mut rest = header.as_slice();
        let decoded = rmpv::decode::read_value(&mut rest).unwrap();
        assert!(rest.is_empty());
        let fields = decoded.as_array().unwrap();
        assert_eq!(fields.len(), 7);
        let number = |index: usize| fields[index].as_u64().unwrap();
        let text = |index: usize| fields[index].as_str().unwrap().to_owned();
        Self {
            topic: topic.clone(),
            seq: number(0),
            op: text(1),
            place: (number(2), number(3)),
            prev: number(4),
            ttl_ms: fields[5].as_u64(),
            level: text(6),
            value: value.clone(),
        }
    }

    /// The next change; skips beats before it.
    fn next(peer: &mut Peer) -> Self {
        loop {
            let publication = Self::decode(&peer.receive().unwrap());
            if publication.op != "beat" {
                return publication;
            }
        }
    }
}

fn start() -> Edges {
    let mut edges = Edges::start(Limits::default(), WriteQueueConfig::default());
    edges.commit();
    edges
}

/// A subscriber of ZMTP 3.1 whose subscriptions have taken effect, as the beat of its own topic
/// shows.
fn subscriber(edges: &Edges, prefixes: &[&[u8]]) -> Peer {
    let mut peer = Peer::connect(&edges.publisher, "SUB");
    for prefix in prefixes {
        peer.send(&command("SUBSCRIBE", prefix)).unwrap();
    }
    peer.send(&command("SUBSCRIBE", b"\xFFbeat")).unwrap();
    assert_eq!(Publication::decode(&peer.receive().unwrap()).op, "beat");
    peer
}

fn writer(edges: &Edges) -> Peer {
    Peer::connect(&edges.router, "DEALER")
}

fn set(writer: &mut Peer, key: &str, value: Value, options: Vec<(Value, Value)>) -> u64 {
    let params = vec![key.into(), value, Value::Map(options)];
    writer.call(1, "set", params).result.unwrap().as_u64().unwrap()
}

fn pack(value: &Value) -> Vec<u8> {
    crate::support::commands::encode_value(value)
}

#[test]
fn a_subscriber_gets_all_changes_under_its_prefixes_and_can_prove_it() {
    let alone = start();
    assert_changes_under_its_prefixes(&alone);
    // Records are encoded for all subscribers together, where there are several.
    let among_others = start();
    let _others = [b"".as_slice(), b"a1"].map(|prefix| subscriber(&among_others, &[prefix]));
    assert_changes_under_its_prefixes(&among_others);
}

#[test]
fn changes_before_a_further_subscription_show_as_a_gap() {
    let edges = start();
    let mut writer = writer(&edges);
    let mut peer = subscriber(&edges, &[b"b"]);
    set(&mut writer, "b1", 1.into(), vec![]);
    assert_eq!(Publication::next(&mut peer).seq, 1);
    set(&mut writer, "a2", 2.into(), vec![]);
    set(&mut writer, "b3", 3.into(), vec![]);
    assert_eq!(Publication::next(&mut peer).prev, 1, "it has not subscribed to a");
    set(&mut writer, "a4", 4.into(), vec![]);
    until("published", || edges.engine.feed().last_seq() == 4);
    peer.send(&command("SUBSCRIBE", b"a")).unwrap();
    // The first change under it shows where the subscription took effect.
    let first = loop {
        let passed = set(&mut writer, "a", 4.into(), vec![]);
        set(&mut writer, "b", 5.into(), vec![]);
        let publication = Publication::next(&mut peer);
        // It may be the fourth change, if that was not passed yet.
        if publication.topic.starts_with(b"a") {
            break publication;
        }
        assert_eq!(publication.seq, passed + 1);
    };
    assert_eq!(first.prev, first.seq - 1, "not the last change that it got");
}

fn assert_changes_under_its_prefixes(edges: &Edges) {
    let mut writer = writer(edges);
    assert_eq!(set(&mut writer, "before", 0.into(), vec![]), 1);
    until("published", || edges.engine.feed().last_seq() == 1);
    let mut peer = subscriber(edges, &[b"a", b"b/"]);
    set(&mut writer, "a1", 1.into(), vec![("durability".into(), "queued".into())]);
    set(&mut writer, "b", 2.into(), vec![]);
    let pairs = ["b/2", "c", "a3"].map(|key| Value::Array(vec![key.into(), 3.into()]));
    writer.call(2, "set_multi", vec![Value::Array(pairs.to_vec())]).result.unwrap();
    writer.call(3, "delete", vec!["a1".into()]).result.unwrap();
    set(&mut writer, "a", 9.into(), vec![("ttl_ms".into(), 60_000.into())]);
    // The first of these is not for it, so its `prev` differs from that of a subscriber to
    // everything.
    let pairs = ["c2", "a5", "a6"].map(|key| Value::Array(vec![key.into(), 4.into()]));
    writer.call(4, "set_multi", vec![Value::Array(pairs.to_vec())]).result.unwrap();
    let publication = |topic: &str, seq, op: &str, place, prev, value: Option<u64>| Publication {
        topic: topic.into(),
        seq,
        op: op.to_owned(),
        place,
        prev,
        ttl_ms: None,
        level: "synced".to_owned(),
        value: value.map_or_else(Vec::new, |value| pack(&value.into())),
    };
    let first = Publication {
        level: "queued".to_owned(),
        ..publication("a1", 2, "set", (0, 1), 1, Some(1))
    };
    let last =
        Publication { ttl_ms: Some(60_000), ..publication("a", 6, "set", (0, 1), 5, Some(9)) };
    let wanted = [
        first,
        publication("b/2", 4, "set", (0, 3), 2, Some(3)),
        publication("a3", 4, "set", (2, 3), 4, Some(3)),
        publication("a1", 5, "delete", (0, 1), 4, None),
        last,
        publication("a5", 7, "set", (1, 3), 6, Some(4)),
        publication("a6", 7, "set", (2, 3), 7, Some(4)),
    ];
    for want in wanted {
        assert_eq!(Publication::next(&mut peer), want);
    }
}

#[test]
fn a_change_is_not_published_before_it_is_committed() {
    let mut edges = Edges::start(Limits::default(), WriteQueueConfig::default());
    let mut peer = subscriber(&edges, &[b"k"]);
    writer(&edges).send(&message(&[&request(1, "set", vec!["k".into(), 1.into()]).0])).unwrap();
    until("applied", || edges.engine.len() == 1);
    std::thread::sleep(QUIET);
    edges.commit();
    loop {
        let publication = Publication::decode(&peer.receive().unwrap());
        if publication.op == "set" {
            break;
        }
        assert_eq!(
            (publication.op.as_str(), publication.seq),
            ("beat", 0),
            "not even its seq is published"
        );
    }
}

#[test]
fn the_beat_has_the_seq_up_to_which_everything_was_published() {
    let edges = start();
    let mut writer = writer(&edges);
    let mut peer = subscriber(&edges, &[b"mine"]);
    let seq = set(&mut writer, "mine", 1.into(), vec![]);
    assert_eq!(Publication::next(&mut peer).seq, seq);
    let other = set(&mut writer, "other", 1.into(), vec![]);
    let beat = loop {
        let publication = Publication::decode(&peer.receive().unwrap());
        assert_eq!(publication.op, "beat");
        if publication.seq == other {
            break publication;
        }
    };
    assert_eq!((beat.topic.as_slice(), beat.place, beat.prev), (&b"\xFFbeat"[..], (0, 0), seq));
    assert!(beat.value.is_empty());
}

#[test]
fn subscriptions_come_by_message_from_zmtp_3_0_and_can_be_cancelled() {
    let edges = start();
    let mut writer = writer(&edges);
    for (minor, kind) in [(0, "SUB"), (0, "XSUB"), (1, "XSUB")] {
        let mut peer = Peer::connect_as(&edges.publisher, minor, &ready(kind, None));
        for topic in [b"\x01one".as_slice(), b"\x01two", b"\x00one", b"\x02three", b""] {
            peer.send(&frame(0, topic)).unwrap();
        }
        peer.send(&frame(0, b"\x01\xFFbeat")).unwrap();
        assert_eq!(Publication::decode(&peer.receive().unwrap()).op, "beat");
        for key in ["one", "three", "two"] {
            set(&mut writer, key, 1.into(), vec![]);
        }
        assert_eq!(Publication::next(&mut peer).topic, b"two", "{kind} of ZMTP 3.{minor}");
    }
}

#[test]
fn a_subscriber_that_falls_behind_gets_a_lost_notice_and_continues() {
    falls_behind(200_000);
    // Larger than the free memory of a subscriber.
    falls_behind(400_000);
}

fn falls_behind(value_bytes: usize) {
    let limits = Limits { subscriber_bytes: 1_000_000, ..Limits::default() };
    let mut edges = Edges::start(limits, WriteQueueConfig::default());
    edges.commit();
    let mut slow = subscriber(&edges, &[b""]);
    let mut quick = subscriber(&edges, &[b""]);
    let mut writer = writer(&edges);
    let value = Value::Binary(vec![7; value_bytes]);
    let writes = 200;
    for seen in 0..writes {
        set(&mut writer, "k", value.clone(), vec![("durability".into(), "memory".into())]);
        let publication = Publication::next(&mut quick);
        assert_eq!(
            (publication.op.as_str(), publication.prev),
            ("set", seen),
            "a quick subscriber misses nothing"
        );
    }
    let (mut last, mut lost) = (0, 0);
    while last < writes {
        let publication = Publication::next(&mut slow);
        assert_eq!(publication.prev, last, "each names the one before it");
        if publication.op == "lost" {
            assert_eq!(publication.topic, b"\xFFlost");
            lost += publication.seq - last;
        } else {
            assert_eq!(publication.seq, last + 1);
        }
        last = publication.seq;
    }
    println!("{lost} of {writes} were lost");
    assert!(lost > 0 && lost < writes);
    assert!(edges.engine.counters().lost.get() > 0);
}

#[test]
fn a_stalled_subscriber_loses_nothing_and_a_quick_one_costs_no_memory() {
    const MIB: usize = 1 << 20;
    let edges = start();
    let feed = edges.engine.feed();
    let mut writer = writer(&edges);
    let value = Value::Binary(vec![7; MIB]);
    let mut write_until = |end| {
        while set(&mut writer, "k", value.clone(), vec![("durability".into(), "memory".into())])
            < end
        {}
        until("all is committed", || feed.last_seq() == end);
    };
    write_until(10);
    assert!(feed.bytes() < 6 * MIB, "{} held without a subscriber", feed.bytes());
    let mut slow = subscriber(&edges, &[b""]);
    let (mut last, end) = (10, 40);
    write_until(end);
    assert!(feed.bytes() > 15 * MIB, "{} held for the one that stalls", feed.bytes());
    while last < end {
        let publication = Publication::next(&mut slow);
        assert_eq!(
            (publication.op.as_str(), publication.prev, publication.seq),
            ("set", last, last + 1)
        );
        last = publication.seq;
    }
    until("the memory is given up", || feed.bytes() < 6 * MIB);
}

#[test]
fn many_subscribers_at_their_own_pace_all_get_everything() {
    let edges = start();
    let mut peers: Vec<Peer> = (0..20).map(|_| subscriber(&edges, &[b"k"])).collect();
    let mut writer = writer(&edges);
    let sets: Vec<u8> = (0..5_000u64)
        .flat_map(|id| {
            let level = Value::Map(vec![("durability".into(), "queued".into())]);
            message(&[&request(id, "set", vec![format!("k{id}").into(), id.into(), level]).0])
        })
        .collect();
    writer.send(&sets).unwrap();
    std::thread::scope(|scope| {
        for (pace, peer) in peers.iter_mut().enumerate() {
            scope.spawn(move || {
                for seq in 1..=5_000 {
                    let publication = Publication::next(peer);
                    assert_eq!((publication.seq, publication.prev), (seq, seq - 1));
                    if pace > 10 && seq % 500 == 0 {
                        std::thread::sleep(Duration::from_millis(pace as u64));
                    }
                }
            });
        }
    });
    for _ in 0..5_000 {
        writer.receive_frame().unwrap();
    }
}

#[test]
fn changes_committed_before_the_stop_are_published() {
    let edges = start();
    let mut peer = subscriber(&edges, &[b""]);
    let mut writer = writer(&edges);
    let value = Value::Binary(vec![1; 100_000]);
    for _ in 0..50 {
        set(&mut writer, "k", value.clone(), vec![("durability".into(), "queued".into())]);
    }
    until("committed", || edges.engine.feed().last_seq() == 50);
    edges.stop_publisher();
    for seq in 1..=50 {
        assert_eq!(Publication::next(&mut peer).seq, seq);
    }
    assert!(peer.is_cut_within(SOON));
}

#[test]
fn a_subscriber_of_another_implementation_works() {
    let edges = start();
    let mut writer = writer(&edges);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut socket = SubSocket::new();
        socket.connect(&edges.publisher).await.unwrap();
        socket.subscribe("topic/").await.unwrap();
        let mut seq = 0;
        let publication = loop {
            // A subscription takes effect at some point; until then nothing is sent.
            seq = seq.max(set(&mut writer, "topic/1", 5.into(), vec![]));
            if let Ok(publication) = tokio::time::timeout(QUIET, socket.recv()).await {
                break publication.unwrap();
            }
        };
        let frames: Vec<Vec<u8>> =
            publication.into_vec().iter().map(|frame| frame.to_vec()).collect();
        let publication = Publication::decode(&frames);
        assert_eq!((publication.topic.as_slice(), publication.seq), (&b"topic/1"[..], seq));
    });
}

#[test]
fn floods_of_subscriptions_and_other_packets_are_cut() {
    let limits = Limits { max_subscriptions: 100, write_timeout_ms: 1_000, ..Limits::default() };
    let mut edges = Edges::start(limits, WriteQueueConfig::default());
    edges.commit();
    let mut honest = subscriber(&edges, &[b"k"]);
    let mut many = Peer::connect(&edges.publisher, "SUB");
    for n in 0..101u32 {
        many.send(&command("SUBSCRIBE", &n.to_be_bytes())).unwrap();
    }
    assert!(many.is_cut_within(SOON));
    let mut again = Peer::connect(&edges.publisher, "SUB");
    again.send(&command("SUBSCRIBE", b"same").repeat(100_000)).unwrap();
    again.send(&command("SUBSCRIBE", b"\xFFbeat")).unwrap();
    assert_eq!(
        Publication::decode(&again.receive().unwrap()).op,
        "beat",
        "one subscription, many times"
    );
    let mut heavy = Peer::connect_as(&edges.publisher, 0, &ready("SUB", None));
    for n in 0..40u8 {
        let _ = heavy.send(&frame(0, &[[1, n].as_slice(), &[7; 30_000]].concat()));
    }
    assert!(heavy.is_cut_within(SOON));
    for packet in [header(LONG, 1 << 40), header(LONG, 1 << 20), frame(MORE, b"a").repeat(2)] {
        let mut peer = Peer::connect(&edges.publisher, "SUB");
        peer.send(&packet).unwrap();
        assert!(peer.is_cut_within(SOON));
    }
    Peer::connect(&edges.publisher, "SUB").send_until_cut(&command("PING", &[0; 10]).repeat(1_000));
    set(&mut writer(&edges), "k", 1.into(), vec![]);
    assert_eq!(Publication::next(&mut honest).topic, b"k");
}
