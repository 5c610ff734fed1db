//! Promise 5 at the command edge: whatever a peer sends or leaves unread, the broker keeps running,
//! answers an honest client, and bounds its memory.
//!
//! Several of these packets abort or freeze an edge that trusts its peers; each test says which.

use crate::support::broker::Broker;
use crate::support::commands::{encode_value, request};
use crate::support::honest::Honest;
use crate::support::peer::{
    COMMAND, LONG, MORE, Peer, command, frame, greeting, header, message, ready,
};
use rmpv::Value;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(10);

/// A broker, an honest client at work on it, and how much memory it had before the trial.
struct Trial {
    broker: Broker,
    honest: Honest,
    memory_before: u64,
}

impl Trial {
    fn begin(arguments: &[&str]) -> Self {
        let broker = Broker::start(arguments);
        let honest = Honest::start(&broker.router);
        let mut peer = Peer::connect(&broker.router, "DEALER");
        peer.call(1, "set", vec!["large".into(), Value::Binary(vec![7; 1 << 20])]).result.unwrap();
        peer.call(2, "get", vec!["large".into()]).result.unwrap();
        let memory_before = broker.peak_memory();
        Self { broker, honest, memory_before }
    }

    fn router(&self) -> &str {
        &self.broker.router
    }

    /// Ends the trial: the honest client was served all along, and the broker's memory never grew
    /// by more than `growth`.
    fn end(self, growth: u64) {
        let account = self.honest.finish();
        let peak = self.broker.peak_memory();
        let grown = peak.saturating_sub(self.memory_before) / MIB;
        println!("{account:?}, memory {} MiB, grown by {grown} MiB", peak / MIB);
        assert!(grown * MIB <= growth, "grown by {grown} MiB");
        assert!(self.broker.stop().success());
    }
}

/// The memory of the I/O threads for the buffers of one turn each, the allocator's slack included;
/// the peers here request many times that.
const WORKERS_OWN: u64 = 100 * MIB;

#[test]
fn a_frame_length_of_2_to_the_40_or_62_is_refused_before_the_handshake() {
    let trial = Trial::begin(&[]);
    for claim in [1 << 40, 1 << 62, u64::MAX] {
        for flags in [LONG, LONG | MORE, LONG | COMMAND] {
            let mut peer = Peer::silent(trial.router());
            peer.send(&greeting(1)).unwrap();
            peer.send(&header(flags, claim)).unwrap();
            assert!(peer.is_cut_within(SOON), "{claim:#x} with flags {flags}");
        }
    }
    trial.end(20 * MIB);
}

#[test]
fn a_frame_length_of_2_to_the_40_or_62_is_refused_after_the_handshake() {
    let trial = Trial::begin(&[]);
    for claim in [1 << 40, 1 << 62, u64::MAX] {
        for flags in [LONG, LONG | MORE, LONG | COMMAND] {
            let mut peer = Peer::connect(trial.router(), "DEALER");
            peer.send(&header(flags, claim)).unwrap();
            assert!(peer.is_cut_within(SOON), "{claim:#x} with flags {flags}");
        }
    }
    trial.end(20 * MIB);
}

#[test]
fn a_frame_length_within_bounds_takes_no_memory_before_its_bytes_arrive() {
    let trial = Trial::begin(&[]);
    let reserved = trial.broker.peak_reserved();
    let peers: Vec<_> = (0..200)
        .map(|_| {
            let mut peer = Peer::connect(trial.router(), "DEALER");
            peer.send(&header(LONG, 15 * MIB)).unwrap();
            peer.send(&[0; 1000]).unwrap();
            peer
        })
        .collect();
    assert_eq!(Peer::connect(trial.router(), "DEALER").call(1, "ping", vec![]).id, Some(1));
    let reserved = trial.broker.peak_reserved() - reserved;
    assert!(reserved < 1024 * MIB, "{} MiB reserved for claims", reserved / MIB);
    drop(peers);
    trial.end(WORKERS_OWN);
}

#[test]
fn a_silent_peer_is_cut_after_the_handshake_timeout() {
    let trial = Trial::begin(&["--handshake-ms", "400"]);
    let began = Instant::now();
    let mut quiet = Peer::silent(trial.router());
    let mut half = Peer::silent(trial.router());
    half.send(&greeting(1)[..30]).unwrap();
    let mut greeted = Peer::silent(trial.router());
    greeted.send(&greeting(1)).unwrap();
    let mut slow = Peer::silent(trial.router());
    for byte in greeting(1) {
        // Single bytes keep it alive, and it is cut all the same.
        if slow.send(&[byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for peer in [&mut quiet, &mut half, &mut greeted, &mut slow] {
        assert!(peer.is_cut_within(SOON));
    }
    assert!(began.elapsed() > Duration::from_millis(400));
    trial.end(20 * MIB);
}

#[test]
fn a_handshake_that_never_ends_is_cut() {
    let trial = Trial::begin(&["--handshake-ms", "60000"]);
    let mut peer = Peer::silent(trial.router());
    peer.send(&greeting(1)).unwrap();
    peer.send_until_cut(&command("PING", &[0; 200]));
    let long_ready = command("READY", &[7; 20_000]);
    let others = ["PUB", "ROUTER-ISH", "PUSH"].map(|socket_type| ready(socket_type, None));
    for ready in others.iter().chain([&long_ready[..1_000].to_vec(), &long_ready]) {
        let mut peer = Peer::silent(trial.router());
        peer.send(&greeting(1)).unwrap();
        peer.send(ready).unwrap();
        assert!(peer.is_cut_within(SOON), "{:?}", String::from_utf8_lossy(ready));
    }
    trial.end(20 * MIB);
}

#[test]
fn an_endless_message_is_cut() {
    let trial = Trial::begin(&["--max-message-bytes", "4000000", "--max-frames", "50000"]);
    for body in [0, 1, 63, 1000, 100_000] {
        let piece = frame(MORE, &vec![b'x'; body]);
        let repeated = piece.repeat(1 + 20_000 / piece.len());
        Peer::connect(trial.router(), "DEALER").send_until_cut(&repeated);
    }
    trial.end(WORKERS_OWN);
}

#[test]
fn a_message_with_too_many_frames_is_refused() {
    let trial = Trial::begin(&["--max-frames", "100"]);
    let ping = request(1, "ping", vec![]).0;
    let mut peer = Peer::connect(trial.router(), "DEALER");
    peer.send(&message(&vec![ping.as_slice(); 100])).unwrap();
    assert_eq!(peer.receive().unwrap().len(), 100);
    peer.send(&message(&vec![ping.as_slice(); 101])).unwrap();
    assert!(peer.is_cut_within(SOON));
    trial.end(20 * MIB);
}

#[test]
fn a_peer_that_does_not_read_is_not_read_from() {
    let trial = Trial::begin(&["--max-unread-bytes", "1000000"]);
    let ping = message(&[&request(1, "ping", vec![Value::Binary(vec![1; 1_000])]).0]).repeat(60);
    let heartbeat = command("PING", b"\0\0context").repeat(4_000);
    let publisher = trial.broker.publisher.clone();
    for (endpoint, kind, bytes) in [
        (trial.router(), "DEALER", &ping),
        (trial.router(), "DEALER", &heartbeat),
        (&publisher, "SUB", &heartbeat),
    ] {
        let began = Instant::now();
        let taken = Peer::connect(endpoint, kind).send_until_blocked(bytes);
        println!("{kind}: {taken} in {:?}", began.elapsed());
        assert!(taken < 30_000_000, "{taken} bytes from a {kind} that reads nothing");
    }
    trial.end(20 * MIB);
}

/// Requests whose replies have 1 MiB, all of one kind after the other.
fn large_requests() -> Vec<Vec<u8>> {
    let key = || Value::from("large");
    let list = |values: Vec<Value>| Value::Array(values);
    let get = list(vec!["get".into(), list(vec![key()])]);
    let of_one = vec![("limit".into(), 1.into()), ("from".into(), key())];
    let all = [
        ("get", vec![key()]),
        ("get_multi", vec![list(vec![key()])]),
        ("range", vec![Value::Map(of_one)]),
        ("batch", vec![list(vec![get])]),
        ("changes", vec![0.into()]),
    ];
    all.into_iter().map(|(method, params)| message(&[&request(1, method, params).0])).collect()
}

#[test]
fn unread_replies_of_all_peers_share_one_bound() {
    let bounds = ["--max-unread-bytes", "8000000", "--max-outgoing-bytes", "64000000"];
    // Only a peer that reads nothing at all is cut.
    let others = ["--min-transfer-rate", "0", "--write-timeout-ms", "2000"];
    let trial = Trial::begin(&[bounds, others].concat());
    let large = large_requests();
    let mut peers: Vec<_> = (0..200).map(|_| Peer::connect(trial.router(), "DEALER")).collect();
    for (peer, request) in peers.iter_mut().zip(large.iter().cycle()) {
        peer.send(&request.repeat(50)).unwrap();
    }
    // A peer that reads gets all of its replies, if not before the others are cut.
    let read_all = |peer: &mut Peer| {
        let responses = std::iter::repeat_with(|| peer.response()).take(50);
        responses.filter(|one| one.id == Some(1) && one.result.is_ok()).count()
    };
    std::thread::scope(|scope| {
        let reading = peers.iter_mut().take(large.len());
        let reading: Vec<_> = reading.map(|peer| scope.spawn(|| read_all(peer))).collect();
        for (number, reader) in reading.into_iter().enumerate() {
            assert_eq!(reader.join().unwrap(), 50, "{number}");
        }
    });
    drop(peers);
    // Waiting replies, and those being made; not a MiB for each and its copy.
    trial.end(64_000_000 + WORKERS_OWN);
}

#[test]
fn a_wait_that_is_due_behind_unread_replies_waits_without_spinning() {
    let trial = Trial::begin(&[]);
    let mut peer = Peer::connect(trial.router(), "DEALER");
    let far = vec![Value::from(1u64 << 40), "stored".into(), timeout(300)];
    peer.send(&message(&[&request(77, "wait", far).0])).unwrap();
    peer.send(&message(&[&request(1, "get", vec!["large".into()]).0]).repeat(30)).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let before = trial.broker.ticks();
    std::thread::sleep(Duration::from_secs(1));
    let used = trial.broker.ticks() - before;
    assert!(used < 50, "{used} ticks of 100 while a peer did not read");
    let ids: Vec<_> = (0..31).map(|_| peer.response().id.unwrap()).collect();
    assert_eq!(ids.iter().filter(|id| **id == 77).count(), 1, "{ids:?}");
    // Thirty replies of 1 MB, twice where their buffer has just grown.
    trial.end(60 * MIB + WORKERS_OWN);
}

#[test]
fn unfinished_messages_of_all_peers_share_one_bound() {
    let arguments = ["--max-message-bytes", "20000000", "--max-incoming-bytes", "60000000"];
    let trial = Trial::begin(&arguments);
    let half = vec![0; 10_000_000];
    let mut peers: Vec<_> = (0..20)
        .map(|_| {
            let mut peer = Peer::connect(trial.router(), "DEALER");
            // Peers that come too late are cut while they send.
            let _ = peer.send(&header(LONG, 20_000_000)).and_then(|()| peer.send(&half));
            peer
        })
        .collect();
    let mut cut = 0;
    for peer in &mut peers {
        cut += usize::from(peer.is_cut_within(Duration::from_millis(300)));
    }
    assert!((12..20).contains(&cut), "{cut} of 20 were cut");
    drop(peers);
    trial.end(140 * MIB);
}

#[test]
fn a_stolen_identity_gets_nothing_of_its_owner() {
    let trial = Trial::begin(&[]);
    let stolen = ready("DEALER", Some(b"client-7"));
    let mut owner = Peer::connect_as(trial.router(), 1, &stolen);
    let far = vec![Value::from(1u64 << 40), "stored".into(), timeout(700)];
    owner.send(&message(&[&request(1, "wait", far).0])).unwrap();
    let mut thief = Peer::connect_as(trial.router(), 1, &stolen);
    assert_eq!(thief.call(2, "ping", vec!["thief".into()]).result, Ok("thief".into()));
    let late = owner.response();
    assert_eq!((late.id, late.result), (Some(1), Ok(false.into())));
    assert_eq!(thief.call(3, "ping", vec![]).id, Some(3), "nothing else came to the thief");
    trial.end(20 * MIB);
}

fn timeout(milliseconds: u64) -> Value {
    Value::Map(vec![("timeout_ms".into(), milliseconds.into())])
}

#[test]
fn a_peer_that_never_reads_is_not_read_from_and_then_cut() {
    let arguments = ["--max-unread-bytes", "8000000", "--write-timeout-ms", "1000"];
    let trial = Trial::begin(&arguments);
    let get = message(&[&request(1, "get", vec!["large".into()]).0]);
    let mut peers: Vec<_> = (0..8).map(|_| Peer::connect(trial.router(), "DEALER")).collect();
    for peer in &mut peers {
        // Two gigabytes of replies each.
        let _ = peer.send(&get.repeat(2_000));
    }
    let began = Instant::now();
    while trial.broker_connections() > 2 {
        assert!(began.elapsed() < SOON, "{} are left", trial.broker_connections());
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(peers);
    trial.end(8 * 20 * MIB);
}

impl Trial {
    /// The number of connections, the honest client's and this one included.
    fn broker_connections(&self) -> u64 {
        let stats = Peer::connect(self.router(), "DEALER").call(1, "stats", vec![]).result.unwrap();
        let Value::Map(pairs) = stats else { panic!("{stats}") };
        let connections = pairs.iter().find(|(name, _)| name.as_str() == Some("connections"));
        connections.unwrap().1.as_u64().unwrap()
    }
}

#[test]
fn a_peer_that_reads_slowly_gets_everything() {
    let arguments = ["--max-unread-bytes", "2000000", "--write-timeout-ms", "1000"];
    let trial = Trial::begin(&arguments);
    let mut peer = Peer::connect(trial.router(), "DEALER");
    let gets: Vec<u8> =
        (0..60).flat_map(|id| message(&[&request(id, "get", vec!["large".into()]).0])).collect();
    peer.send(&gets).unwrap();
    for id in 0..60 {
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(peer.response().id, Some(id));
    }
    trial.end(30 * MIB);
}

#[test]
fn replies_to_one_message_are_bounded_as_unread_ones() {
    let trial = Trial::begin(&["--max-unread-bytes", "4000000"]);
    let gets: Vec<_> = (0..500).map(|id| request(id, "get", vec!["large".into()]).0).collect();
    let frames: Vec<&[u8]> = gets.iter().map(Vec::as_slice).collect();
    let mut peer = Peer::connect(trial.router(), "REQ");
    peer.send(&message(&[&[b"".as_slice()], frames.as_slice()].concat())).unwrap();
    let (flags, delimiter) = peer.receive_frame().unwrap();
    assert_eq!((flags, delimiter.len()), (MORE, 0));
    for id in 0..500 {
        let (flags, body) = peer.receive_frame().unwrap();
        assert_eq!(flags, if id < 499 { MORE } else { 0 });
        assert!(body.len() > 1 << 20);
    }
    trial.end(WORKERS_OWN);
}

#[test]
fn twenty_thousand_connections_come_and_go() {
    let trial = Trial::begin(&[]);
    let ping = message(&[&request(1, "ping", vec![]).0]);
    let connect = |round: usize| {
        let mut peer = Peer::silent(trial.router());
        // Some leave at once, some during the greeting, some with replies unread.
        match round % 5 {
            0 => {}
            1 => peer.send(&greeting(1)[..20]).unwrap(),
            2 => peer.send(&[greeting(1).as_slice(), &ready("DEALER", None)].concat()).unwrap(),
            3 => {
                let all =
                    [greeting(1).as_slice(), &ready("DEALER", None), &ping.repeat(3)].concat();
                peer.send(&all).unwrap();
            }
            _ => {
                peer = Peer::connect(trial.router(), "DEALER");
                assert_eq!(peer.call(9, "ping", vec![]).id, Some(9));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5_000).for_each(connect));
        }
    });
    let began = Instant::now();
    while trial.broker_connections() > 2 {
        assert!(began.elapsed() < SOON, "{} are left", trial.broker_connections());
        std::thread::sleep(Duration::from_millis(50));
    }
    trial.end(60 * MIB);
}

#[test]
fn a_flood_of_pings_is_answered_for_a_reader_and_cut_for_a_peer_that_does_not_read() {
    let trial = Trial::begin(&["--max-unread-bytes", "1000000", "--write-timeout-ms", "1000"]);
    let ping = command("PING", b"\0\0context");
    let mut reader = Peer::connect(trial.router(), "DEALER");
    for _ in 0..50 {
        reader.send(&ping.repeat(200)).unwrap();
        for _ in 0..200 {
            assert_eq!(reader.receive_frame().unwrap(), (COMMAND, b"\x04PONGcontext".to_vec()));
        }
    }
    let mut deaf = Peer::connect(trial.router(), "DEALER");
    deaf.send_until_cut(&ping.repeat(2_000));
    let unknown = command("NOSUCH", b"");
    reader.send(&unknown.repeat(100_000)).unwrap();
    assert_eq!(reader.call(5, "ping", vec![]).id, Some(5));
    trial.end(WORKERS_OWN);
}

#[test]
fn commands_and_messages_without_meaning_at_an_endpoint_are_dropped() {
    let trial = Trial::begin(&[]);
    let publisher = trial.broker.publisher.clone();
    let body = [b'x'; 100];
    let floods =
        ["SUBSCRIBE", "CANCEL", "JOIN", "LEAVE", "NOSUCH"].map(|name| command(name, &body));
    for minor in [0, 1] {
        let mut dealer = Peer::connect_as(trial.router(), minor, &ready("DEALER", None));
        for flood in &floods {
            let flood = flood.repeat(1_000);
            (0..300).for_each(|_| dealer.send(&flood).unwrap());
        }
        assert_eq!(dealer.call(1, "ping", vec![]).id, Some(1));
    }
    let mut sub = Peer::connect(&publisher, "SUB");
    sub.send(&command("SUBSCRIBE", b"\xFFbeat")).unwrap();
    let neither = frame(0, &body);
    for flood in [&neither, &floods[2], &floods[3], &floods[4], &command("PONG", b"context")] {
        let flood = flood.repeat(1_000);
        (0..300).for_each(|_| sub.send(&flood).unwrap());
    }
    assert_eq!(sub.receive().unwrap()[0], b"\xFFbeat", "the subscriber is served all the same");
    trial.end(WORKERS_OWN / 2);
}

#[test]
fn a_large_frame_in_single_bytes_costs_only_its_bytes() {
    let trial = Trial::begin(&[]);
    let value = Value::Binary((0..2_000_000u32).map(|n| n as u8).collect());
    let set = message(&[&request(1, "set", vec!["dribble".into(), value.clone()]).0]);
    let mut peer = Peer::connect(trial.router(), "DEALER");
    let (single, rest) = set.split_at(150_000);
    for byte in single {
        peer.send(&[*byte]).unwrap();
    }
    let grown = trial.broker.peak_memory().saturating_sub(trial.memory_before);
    assert!(grown < 10 * MIB, "{grown} bytes for 150,000");
    peer.send(rest).unwrap();
    assert!(peer.response().result.is_ok());
    assert_eq!(peer.call(2, "get", vec!["dribble".into()]).result, Ok(value));
    trial.end(WORKERS_OWN);
}

#[test]
fn a_peer_with_a_stalled_message_is_cut() {
    let trial = Trial::begin(&["--write-timeout-ms", "500"]);
    let mut amid_frame = Peer::connect_as(trial.router(), 0, &ready("DEALER", None));
    amid_frame.send(&header(LONG, 100_000)).unwrap();
    let mut amid_message = Peer::connect_as(trial.router(), 0, &ready("DEALER", None));
    amid_message.send(&frame(MORE, b"the first part")).unwrap();
    let mut idle = Peer::connect_as(trial.router(), 0, &ready("DEALER", None));
    assert!(amid_frame.is_cut_within(SOON) && amid_message.is_cut_within(SOON));
    assert_eq!(idle.call(1, "ping", vec![]).id, Some(1), "an idle connection is not cut");
    trial.end(20 * MIB);
}

#[test]
fn a_quiet_peer_gets_a_ping_and_a_dead_one_is_cut() {
    let trial = Trial::begin(&["--heartbeat-ms", "200"]);
    let mut dead = Peer::connect(trial.router(), "DEALER");
    let mut old = Peer::connect_as(trial.router(), 0, &ready("DEALER", None));
    let mut alive = Peer::connect(trial.router(), "DEALER");
    for _ in 0..6 {
        let (flags, body) = alive.receive_frame().unwrap();
        assert!(flags == COMMAND && body.starts_with(b"\x04PING"), "{flags} {body:?}");
        alive.send(&command("PONG", b"")).unwrap();
    }
    assert!(dead.is_cut_within(SOON), "it got PINGs and did not answer");
    assert_eq!(alive.call(1, "ping", vec![]).id, Some(1));
    assert_eq!(old.call(1, "ping", vec![]).id, Some(1), "ZMTP 3.0 knows no PING");
    trial.end(20 * MIB);
}

#[test]
fn silent_connections_over_the_limit_give_way_and_the_busy_one_stays() {
    let trial = Trial::begin(&["--max-connections", "6"]);
    let mut silent: Vec<Peer> = (0..30).map(|_| Peer::silent(trial.router())).collect();
    assert!(silent.iter_mut().take(20).all(|peer| peer.is_cut_within(SOON)));
    assert_eq!(Peer::connect(trial.router(), "DEALER").call(1, "ping", vec![]).id, Some(1));
    drop(silent);
    // The honest client was never cut.
    trial.end(20 * MIB);
}

#[test]
fn random_bytes_do_no_harm() {
    let trial = Trial::begin(&[]);
    let seed = std::env::var("VATN_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("VATN_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let bodies = [
        request(1, "get", vec!["small".into()]).0,
        encode_value(&Value::from("no request")),
        vec![],
        vec![0xC1; 300],
    ];
    for round in 0..300 {
        let mut peer = Peer::silent(trial.router());
        let mut bytes = Vec::new();
        if round % 3 > 0 {
            bytes.extend_from_slice(&greeting(1));
            bytes.extend_from_slice(&ready(["DEALER", "REQ"][round % 2], None));
        }
        for _ in 0..random.usize(..40) {
            let flags = random.u8(..8);
            bytes.extend(frame(flags & !LONG, &bodies[random.usize(..bodies.len())][..]));
        }
        for _ in 0..random.usize(..6) {
            let place = random.usize(..bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(place) {
                *byte = random.u8(..);
            }
        }
        for piece in bytes.chunks(random.usize(1..200)) {
            if peer.send(piece).is_err() {
                break;
            }
        }
    }
    trial.end(60 * MIB);
}

#[test]
fn a_peer_that_floods_does_not_starve_the_others() {
    let trial = Trial::begin(&[]);
    let burst = message(&[&request(1, "get", vec!["small".into()]).0]).repeat(5_000);
    let until = Instant::now() + Duration::from_secs(2);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut peer = Peer::connect(trial.router(), "DEALER");
                while Instant::now() < until {
                    peer.send(&burst).unwrap();
                    for _ in 0..5_000 {
                        peer.receive_frame().unwrap();
                    }
                }
            });
        }
    });
    trial.end(60 * MIB);
}
