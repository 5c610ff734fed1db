//! Promise 5 at the ZeroMQ edges: the memory that peers may cost, as the broker counts it.

use crate::support::broker::Broker;
use crate::support::commands::request;
use crate::support::edges::until;
use crate::support::peer::{
    COMMAND, LONG, MORE, Peer, Response, command, frame, header, message, ready,
};
use rmpv::Value;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(15);

fn ping() -> Vec<u8> {
    command("PING", b"\0\0ctx")
}

/// A number of `stats` on network memory: `member` of `category`.
fn memory(peer: &mut Peer, category: &str, member: &str) -> u64 {
    let stats = peer.call(99, "stats", vec![]).result.unwrap();
    stats["network_memory"][category][member].as_u64().unwrap()
}

/// Reads messages past the PONGs before them.
fn responses(peer: &mut Peer, count: usize) -> Vec<Response> {
    let frames = peer.receive().unwrap();
    assert_eq!(frames.len(), count);
    frames.iter().map(|frame| Response::decode(frame)).collect()
}

#[test]
fn pings_between_frames_change_neither_the_frames_nor_their_order() {
    let broker = Broker::start(&[]);
    let mut peer = Peer::connect(&broker.router, "DEALER");
    let mut bytes = Vec::new();
    for (number, has_more) in [(0, true), (1, true), (2, false), (3, true), (4, false)] {
        bytes.extend(ping());
        let set = request(number, "set", vec![number.to_string().into(), number.into()]).0;
        bytes.extend(frame(if has_more { MORE } else { 0 }, &set));
    }
    // At any place where a read of the broker may end.
    for cut in 0..bytes.len() {
        peer.send(&bytes[..cut]).unwrap();
        if cut % 16 == 0 {
            // Another connection's answer: earlier bytes have been read by now, most likely.
            Peer::connect(&broker.router, "DEALER").call(1, "ping", vec![]).result.unwrap();
        }
        peer.send(&bytes[cut..]).unwrap();
        let ids = |responses: Vec<Response>| -> Vec<_> {
            responses.into_iter().map(|response| response.id.unwrap()).collect()
        };
        assert_eq!(ids(responses(&mut peer, 3)), [0, 1, 2], "cut at {cut}");
        assert_eq!(ids(responses(&mut peer, 2)), [3, 4], "cut at {cut}");
    }
    assert!(broker.stop().success());
}

#[test]
fn pings_between_frames_reset_no_bound() {
    let broker = Broker::start(&["--max-frames", "1000"]);
    for between in [ping(), command("PONG", b""), command("SUBSCRIBE", b"a"), command("FOO", b"")] {
        let mut peer = Peer::connect(&broker.router, "DEALER");
        let pair = [frame(MORE, b"\x94"), between].concat();
        peer.send(&pair.repeat(1_000)).unwrap();
        assert!(!peer.is_cut_within(Duration::from_millis(100)));
        let _ = peer.send(&pair);
        assert!(peer.is_cut_within(SOON));
    }
    let mut peer = Peer::connect(&broker.router, "DEALER");
    let pair = [frame(MORE, &[0; 100_000]), ping()].concat();
    peer.send_until_cut(&pair.repeat(10));
    assert!(broker.stop().success());
}

#[test]
fn pings_do_not_keep_an_unfinished_message_alive() {
    let broker = Broker::start(&["--write-timeout-ms", "500"]);
    let mut pinging = Peer::connect(&broker.router, "DEALER");
    pinging.send(&frame(MORE, b"begun")).unwrap();
    let began = Instant::now();
    while pinging.send(&ping()).is_ok() {
        assert!(began.elapsed() < SOON, "its PINGs keep it alive");
        std::thread::sleep(Duration::from_millis(20));
    }
    // The same for the bytes of a command that never ends.
    let mut endless = Peer::connect(&broker.router, "DEALER");
    endless.send(&[COMMAND | 2, 0, 0, 0, 0, 3, 0, 0, 0, 4]).unwrap();
    let began = Instant::now();
    while endless.send(&[b'x'; 4]).is_ok() {
        assert!(began.elapsed() < SOON, "its command never ends");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(broker.stop().success());
}

#[test]
fn slow_readers_of_large_replies_give_way_to_an_honest_one() {
    // The attackers' replies fill three quarters of the quota, all that large ones may take.
    let broker =
        Broker::start(&["--max-outgoing-bytes", "33554432", "--max-unread-bytes", "8388608"]);
    let mut honest = Peer::connect(&broker.router, "DEALER");
    let value = Value::Binary(vec![7; 4 << 20]);
    honest.call(1, "set", vec!["large".into(), value]).result.unwrap();
    honest.call(2, "set", vec!["middle".into(), Value::Binary(vec![7; 300_000])]).result.unwrap();
    let mut slow: Vec<Peer> = (0..40)
        .map(|_| {
            let mut peer = Peer::connect_with_buffer(&broker.router, "DEALER", 64 * 1024);
            let get = message(&[&request(3, "get", vec!["large".into()]).0]);
            peer.send(&get.repeat(3)).unwrap();
            peer
        })
        .collect();
    until("they have what there is for large replies", || {
        memory(&mut honest, "outgoing", "awaited_bytes") > 0
    });
    assert!(memory(&mut honest, "outgoing", "bytes") <= 33_554_432);
    for _ in 0..20 {
        let began = Instant::now();
        let got = honest.call(4, "get", vec!["middle".into()]).result.unwrap();
        assert_eq!(got, Value::Binary(vec![7; 300_000]));
        println!("a reply of 300 kB: {:?}", began.elapsed());
    }
    let began = Instant::now();
    let got = honest.call(5, "get", vec!["large".into()]).result.unwrap();
    assert_eq!(got, Value::Binary(vec![7; 4 << 20]));
    println!("a reply of 4 MiB: {:?}", began.elapsed());
    assert!(memory(&mut honest, "outgoing", "cut") > 0, "slow readers were cut for it");
    slow.clear();
    until("everything is given back", || {
        memory(&mut honest, "outgoing", "bytes") <= 1 << 20
            && memory(&mut honest, "outgoing", "awaited_bytes") == 0
    });
    assert!(broker.stop().success());
}

#[test]
fn slow_subscribers_of_large_changes_give_way_to_an_honest_one() {
    let broker =
        Broker::start(&["--max-outgoing-bytes", "33554432", "--max-unread-bytes", "8388608"]);
    let mut honest = Peer::connect(&broker.router, "DEALER");
    let _slow: Vec<Peer> = (0..24)
        .map(|_| {
            let mut peer = Peer::connect_with_buffer(&broker.publisher, "SUB", 64 * 1024);
            peer.send(&message(&[b"\x01big"])).unwrap();
            peer
        })
        .collect();
    let mut quick = Peer::connect(&broker.publisher, "SUB");
    quick.send(&message(&[b"\x01quick"])).unwrap();
    quick.send(&message(&[b"\x01\xFFbeat"])).unwrap();
    assert_eq!(quick.receive().unwrap()[0], b"\xFFbeat");
    let large = || Value::Binary(vec![7; 4 << 20]);
    for id in 0..3 {
        honest.call(id, "set", vec!["big".into(), large()]).result.unwrap();
    }
    until("slow ones are cut", || memory(&mut honest, "outgoing", "cut") > 0);
    honest.call(5, "set", vec!["quick".into(), large()]).result.unwrap();
    loop {
        let change = quick.receive().unwrap();
        if change[0] == b"quick" {
            break;
        }
        assert_eq!(change[0], b"\xFFbeat");
    }
    assert!(broker.stop().success());
}

#[test]
fn stalled_messages_give_way_to_one_that_progresses() {
    let broker =
        Broker::start(&["--max-incoming-bytes", "33554432", "--max-message-bytes", "8388608"]);
    let mut honest = Peer::connect(&broker.router, "DEALER");
    let slow: Vec<Peer> = (0..30)
        .map(|_| {
            let mut peer = Peer::connect(&broker.router, "DEALER");
            peer.send(&header(LONG, 4 << 20)).unwrap();
            peer
        })
        .collect();
    let threads: Vec<_> = slow
        .into_iter()
        .map(|mut peer| {
            std::thread::spawn(move || {
                // First all bytes that the socket takes, then a trickle with PINGs in it.
                let _ = peer.send(&vec![0; 2 << 20]);
                while peer.send(&[0; 100]).is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            })
        })
        .collect();
    until("they have what there is", || memory(&mut honest, "incoming", "awaited_bytes") > 0);
    assert!(memory(&mut honest, "incoming", "bytes") <= 33_554_432);
    let mut other = Peer::connect(&broker.router, "DEALER");
    let began = Instant::now();
    let set = other.call(1, "set", vec!["k".into(), Value::Binary(vec![7; 4 << 20])]);
    set.result.unwrap();
    println!("a message of 4 MiB: {:?}", began.elapsed());
    assert!(memory(&mut honest, "incoming", "cut") > 0);
    assert!(broker.stop().success());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn subscriptions_are_counted_by_their_memory() {
    let broker = Broker::start(&["--max-subscription-bytes", "1500000"]);
    let mut honest = Peer::connect(&broker.router, "DEALER");
    let mut many = Vec::new();
    for number in 0..4_000u32 {
        let topic = [&[1], number.to_be_bytes().as_slice()].concat();
        many.extend(message(&[&topic]));
    }
    many.extend(message(&[b"\x01\xFFbeat"]));
    let mut first = Peer::connect(&broker.publisher, "SUB");
    first.send(&many).unwrap();
    assert_eq!(first.receive().unwrap()[0], b"\xFFbeat");
    let taken = memory(&mut honest, "subscriptions", "bytes");
    assert!(taken > 4_000 * 100, "{taken} bytes");
    let mut second = Peer::connect(&broker.publisher, "SUB");
    second.send(&many).unwrap();
    assert_eq!(second.receive().unwrap()[0], b"\xFFbeat");
    let mut third = Peer::connect(&broker.publisher, "SUB");
    let _ = third.send(&many);
    assert!(third.is_cut_within(SOON));
    until("the log says why", || broker.log().contains("--max-subscription-bytes"));
    // Other and small subscriptions stay; and a peer that leaves gives its memory back.
    let mut fourth = Peer::connect(&broker.publisher, "SUB");
    fourth.send(&message(&[b"\x01\xFFbeat"])).unwrap();
    assert_eq!(fourth.receive().unwrap()[0], b"\xFFbeat");
    drop((first, second));
    until("it is given back", || memory(&mut honest, "subscriptions", "bytes") == 0);
    assert!(broker.stop().success());
}

#[test]
fn silent_and_quiet_peers_give_their_slot_to_a_new_connection() {
    let broker = Broker::start(&["--max-connections", "12", "--handshake-ms", "60000"]);
    for endpoint in [&broker.router, &broker.publisher] {
        let socket_type = if endpoint == &broker.router { "DEALER" } else { "SUB" };
        let mut others: Vec<Peer> = (0..12)
            .map(|number| match number % 3 {
                0 => Peer::silent(endpoint),
                1 => Peer::connect_as(endpoint, 0, &ready(socket_type, None)),
                _ => Peer::connect(endpoint, socket_type),
            })
            .collect();
        let silent = others.iter_mut().step_by(3);
        silent.for_each(|silent| assert!(silent.is_greeted_within(SOON)));
        // Twice as many new connections as there are slots: each is served.
        let newcomers: Vec<Peer> = (0..24).map(|_| Peer::connect(endpoint, socket_type)).collect();
        assert!(others.iter_mut().all(|other| other.is_cut_within(SOON)));
        drop(newcomers);
    }
    assert!(broker.stop().success());
}

#[test]
fn a_peer_with_only_heartbeats_gives_its_slot_before_a_later_one() {
    let broker = Broker::start(&["--max-connections", "3"]);
    for (endpoint, socket_type) in [(&broker.router, "DEALER"), (&broker.publisher, "SUB")] {
        let mut peers: Vec<Peer> = (0..3).map(|_| Peer::connect(endpoint, socket_type)).collect();
        for _ in 0..3 {
            peers[0].send(&command("PING", b"\0\0context")).unwrap();
            let (_, pong) = peers[0].receive_frame().unwrap();
            assert_eq!(pong, b"\x04PONGcontext");
        }
        let newcomer = Peer::connect(endpoint, socket_type);
        assert!(peers[0].is_cut_within(SOON), "its heartbeats made it younger ({socket_type})");
        let second = Peer::connect(endpoint, socket_type);
        assert!(peers[1].is_cut_within(SOON), "the oldest one is next ({socket_type})");
        drop((newcomer, second));
    }
    assert!(broker.stop().success());
}

#[test]
fn a_peer_that_has_ended_its_side_gets_all_its_replies() {
    let broker = Broker::start(&[]);
    for count in [1u64, 100, 3_000] {
        let mut peer = Peer::connect(&broker.router, "DEALER");
        let mut bytes = Vec::new();
        for id in 0..count {
            let set = request(id, "set", vec!["k".into(), Value::Binary(vec![7; 1_000])]).0;
            bytes.extend(message(&[&set]));
        }
        for id in count..count + 50 {
            bytes.extend(message(&[&request(id, "get", vec!["k".into()]).0]));
        }
        // The rest of a message that is never completed.
        bytes.extend(frame(MORE, b"\x94"));
        peer.send(&bytes).unwrap();
        peer.end_sending();
        for id in 0..count + 50 {
            assert_eq!(peer.response().id, Some(id));
        }
        assert!(peer.is_cut_within(SOON), "then the broker ends its side");
    }
    let mut peer = Peer::connect(&broker.router, "DEALER");
    peer.send(&message(&[&request(
        1,
        "wait",
        vec![
            9_999_999.into(),
            "stored".into(),
            Value::Map(vec![("timeout_ms".into(), 300.into())]),
        ],
    )
    .0]))
        .unwrap();
    peer.end_sending();
    assert_eq!(peer.response().id, Some(1), "deferred replies too");
    assert!(broker.stop().success());
}
