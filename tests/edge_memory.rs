//! Promise 5 at the ZeroMQ edges: what peers may cost, by what the code counts.

mod support;

use std::time::{Duration, Instant};
use support::broker::Broker;
use support::commands::request;
use support::peer::{COMMAND, MORE, Peer, Response, command, frame};

const SOON: Duration = Duration::from_secs(15);

fn ping() -> Vec<u8> {
    command("PING", b"\0\0ctx")
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
    // Wherever a read of the broker may end.
    for cut in 0..bytes.len() {
        peer.send(&bytes[..cut]).unwrap();
        if cut % 16 == 0 {
            // Another connection's answer: what was sent before has been read by now, most likely.
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
fn an_unfinished_message_does_not_live_on_pings() {
    let broker = Broker::start(&["--stalled-peer-ms", "500"]);
    let mut pinging = Peer::connect(&broker.router, "DEALER");
    pinging.send(&frame(MORE, b"begun")).unwrap();
    let began = Instant::now();
    while pinging.send(&ping()).is_ok() {
        assert!(began.elapsed() < SOON, "it lives on its pings");
        std::thread::sleep(Duration::from_millis(20));
    }
    // The same for the bytes of a command that never ends.
    let mut endless = Peer::connect(&broker.router, "DEALER");
    endless.send(&[COMMAND | 2, 0, 0, 0, 0, 3, 0, 0, 0, 4]).unwrap();
    let began = Instant::now();
    while endless.send(&[b'x'; 4]).is_ok() {
        assert!(began.elapsed() < SOON, "it never ends");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(broker.stop().success());
}
