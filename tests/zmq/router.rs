//! The command edge: replies in the order of their requests, none before it may be seen, none lost;
//! and their fate when the queue is full, the disk fails, or the broker stops.

use crate::support::commands::request;
use crate::support::edges::{Edges, until};
use crate::support::peer::{Peer, Response, message};
use crate::support::requests::{get, option, ping, set, wait};
use rmpv::Value;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use vatn::config::WriteQueueConfig;
use vatn::limits::Limits;

const QUIET: Duration = Duration::from_millis(100);

fn edges() -> Edges {
    Edges::start(Limits::default(), WriteQueueConfig::default())
}

/// A notification of the same write.
fn silent(mut request: Vec<u8>) -> Vec<u8> {
    assert_eq!(&request[..2], [0x94, 0x00], "a short request with a short id");
    request.splice(..3, [0x93, 0x02]);
    request
}

fn responses(frames: &[Vec<u8>]) -> Vec<Response> {
    frames.iter().map(|frame| Response::decode(frame)).collect()
}

fn ids(responses: &[Response]) -> Vec<u64> {
    responses.iter().map(|response| response.id.unwrap()).collect()
}

#[test]
fn no_reply_is_sent_before_its_level_or_before_an_earlier_one() {
    let mut edges = edges();
    let mut peer = Peer::connect(&edges.router, "DEALER");
    for each in [set(1, "m", "memory"), set(2, "a", "synced"), ping(3), set(4, "b", "stored")] {
        peer.send(&message(&[&each])).unwrap();
    }
    assert_eq!(peer.response().id, Some(1), "it has nothing to wait for");
    until("written", || edges.engine.counters().commands.get() >= 4);
    let mut other = Peer::connect(&edges.router, "DEALER");
    other.send(&message(&[&get(5, "a")])).unwrap();
    until("executed", || edges.engine.counters().commands.get() >= 5);
    assert!(!peer.is_cut_within(QUIET) && !other.is_cut_within(QUIET));
    edges.commit();
    assert_eq!(other.response(), Response { id: Some(5), result: Ok(2.into()) });
    // is_cut_within would have swallowed replies that came too early.
    assert_eq!(ids(&[peer.response(), peer.response(), peer.response()]), [2, 3, 4]);
}

#[test]
fn only_wait_is_answered_out_of_order() {
    let mut edges = edges();
    let mut peer = Peer::connect(&edges.router, "DEALER");
    let requests = [wait(1, 1_000, 60_000), wait(2, 1_000, 80), wait(3, 2, 60_000), ping(4)];
    for each in requests {
        peer.send(&message(&[&each])).unwrap();
    }
    assert_eq!(peer.response().id, Some(4));
    assert_eq!(peer.response(), Response { id: Some(2), result: Ok(false.into()) });
    edges.commit();
    peer.send(&message(&[&set(5, "a", "queued"), &set(6, "b", "queued")])).unwrap();
    assert_eq!(ids(&responses(&peer.receive().unwrap())), [5, 6]);
    assert_eq!(peer.response(), Response { id: Some(3), result: Ok(true.into()) });
}

#[test]
fn a_message_is_answered_by_one_message() {
    let mut edges = edges();
    edges.commit();
    let mut dealer = Peer::connect(&edges.router, "DEALER");
    let frames: Vec<Vec<u8>> = (0..20_000).map(|id| set(id, &format!("k{id}"), "stored")).collect();
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    dealer.send(&message(&frames)).unwrap();
    let answered = responses(&dealer.receive().unwrap());
    assert_eq!(ids(&answered), (0..20_000).collect::<Vec<_>>());
    assert!(answered.iter().zip(1u64..).all(|(answer, seq)| answer.result == Ok(seq.into())));

    let mut req = Peer::connect(&edges.router, "REQ");
    req.send(&message(&[b"", &ping(1), &silent(set(2, "n", "memory")), &get(3, "n")])).unwrap();
    let frames = req.receive().unwrap();
    assert!(frames[0].is_empty(), "the delimiter comes back");
    assert_eq!(ids(&responses(&frames[1..])), [1, 3]);
    for empty in [message(&[b""]), message(&[b"", b"no request"])] {
        req.send(&empty).unwrap();
        let frames = req.receive().unwrap();
        assert!(frames[0].is_empty() && frames.len() == 2);
        let refused = Response { id: None, result: Err("BAD_REQUEST".to_owned()) };
        assert_eq!(Response::decode(&frames[1]), refused);
    }
}

#[test]
fn notifications_get_no_reply_even_if_they_fail() {
    let edges = edges();
    let mut peer = Peer::connect(&edges.router, "DEALER");
    let bad_key = format!("k{}", "x".repeat(40_000));
    peer.send(&message(&[&silent(set(1, "a", "synced")), &silent(set(2, &bad_key, "synced"))]))
        .unwrap();
    peer.send(&message(&[&silent(set(3, "b", "memory"))])).unwrap();
    peer.send(&message(&[&ping(4)])).unwrap();
    assert_eq!(peer.response().id, Some(4));
    assert_eq!(edges.engine.len(), 2);
}

#[test]
fn requests_in_flight_of_one_peer_are_bounded() {
    let limits = Limits { max_in_flight: 10, ..Limits::default() };
    let mut edges = Edges::start(limits, WriteQueueConfig::default());
    let mut peer = Peer::connect(&edges.router, "DEALER");
    for id in 0..60 {
        peer.send(&message(&[&set(id, &format!("k{id}"), "synced")])).unwrap();
    }
    let many: Vec<Vec<u8>> = (60..100).map(|id| set(id, &format!("k{id}"), "synced")).collect();
    let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    peer.send(&message(&many)).unwrap();
    until("as many as may be", || edges.engine.len() == 10);
    std::thread::sleep(QUIET);
    assert_eq!(edges.engine.len(), 10, "no more than that");
    edges.commit();
    let alone: Vec<Response> = (0..60).map(|_| peer.response()).collect();
    assert_eq!(ids(&alone), (0..60).collect::<Vec<_>>());
    assert_eq!(ids(&responses(&peer.receive().unwrap())), (60..100).collect::<Vec<_>>());
}

#[test]
fn a_full_queue_slows_writers_then_refuses_them_and_readers_go_on() {
    let queue = WriteQueueConfig { items: 10, wait_ms: 300, ..WriteQueueConfig::default() };
    let mut edges = Edges::start(Limits::default(), queue);
    edges.commit();
    let mut writer = Peer::connect(&edges.router, "DEALER");
    let began = Instant::now();
    for id in 0..30 {
        writer.send(&message(&[&set(id, &format!("k{id}"), "queued")])).unwrap();
    }
    writer.send(&message(&[&get(30, "k0")])).unwrap();
    for id in 0..10 {
        assert_eq!(writer.response(), Response { id: Some(id), result: Ok((id + 1).into()) });
    }
    let mut reader = Peer::connect(&edges.router, "DEALER");
    let began_reading = Instant::now();
    assert_eq!(reader.call(1, "get", vec!["k3".into()]).result, Ok(3.into()));
    assert!(began_reading.elapsed() < Duration::from_millis(250), "readers do not wait");
    for id in 10..30 {
        let refused = Response { id: Some(id), result: Err("WRITE_QUEUE_FULL".to_owned()) };
        assert_eq!(writer.response(), refused);
    }
    assert!(began.elapsed() >= Duration::from_millis(300), "it waited first");
    assert_eq!(writer.response(), Response { id: Some(30), result: Ok(0.into()) });
    assert_eq!(edges.engine.len(), 10, "refused writes changed nothing");
}

#[test]
fn data_over_its_bound_is_refused_and_deletes_make_room() {
    let limits = Limits { max_data_bytes: Some(1 << 20), ..Limits::default() };
    let edges = Edges::start(limits, WriteQueueConfig::default());
    let mut peer = Peer::connect(&edges.router, "DEALER");
    let mut call = |method: &str, params: Vec<Value>| peer.call(1, method, params).result;
    let write =
        |key: String| vec![key.into(), "x".repeat(1000).into(), option("durability", "memory")];
    let fits = (0..2_000).take_while(|n| call("set", write(format!("k{n}"))).is_ok()).count();
    assert!((900..1_049).contains(&fits), "{fits} of 1,000 bytes fit into a MiB");
    let too_large = Err("TOO_LARGE".to_owned());
    let value = Value::Array(vec!["other".into(), "x".repeat(1000).into()]);
    let one = Value::Array(vec!["set".into(), value]);
    assert_eq!(call("batch", vec![Value::Array(vec![one])]), too_large);
    assert_eq!(call("get", vec![format!("k{fits}").into()]), Ok(Value::Nil));
    assert_eq!(call("count", vec![]), Ok(fits.into()), "reads go on, and nothing was changed");
    let delete = Value::Array(vec!["delete".into(), Value::Array(vec!["k7".into()])]);
    let params = vec![Value::Array(vec![delete]), option("durability", "memory")];
    assert_eq!(call("batch", params), Ok(Value::Array(vec![true.into()])));
    assert!(call("set", write("new".to_owned())).is_ok());
    assert_eq!(call("set", write("newer".to_owned())), too_large);
}

#[test]
fn a_waiting_writer_goes_on_once_the_queue_has_room() {
    let queue = WriteQueueConfig { items: 3, wait_ms: 20_000, ..WriteQueueConfig::default() };
    let mut edges = Edges::start(Limits::default(), queue);
    edges.commit();
    let mut writer = Peer::connect(&edges.router, "DEALER");
    let many: Vec<Vec<u8>> = (0..5).map(|id| set(id, &format!("k{id}"), "queued")).collect();
    let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    writer.send(&message(&many)).unwrap();
    until("three fit", || edges.engine.len() == 3);
    edges.engine.queue().give_back(2, 0);
    let answered = responses(&writer.receive().unwrap());
    assert_eq!(ids(&answered), [0, 1, 2, 3, 4]);
    assert!(answered.iter().all(|answer| answer.result.is_ok()));
    edges.engine.queue().take(2, 0);
}

#[test]
fn a_disk_failure_turns_every_held_reply_into_an_error_with_its_id() {
    let mut edges = edges();
    let mut dealer = Peer::connect(&edges.router, "DEALER");
    let mut req = Peer::connect(&edges.router, "REQ");
    dealer.send(&message(&[&set(1, "a", "synced")])).unwrap();
    dealer.send(&message(&[&ping(2), &get(3, "a"), &get(4, "none")])).unwrap();
    dealer.send(&message(&[&wait(5, 1, 60_000)])).unwrap();
    until("executed", || edges.engine.counters().commands.get() >= 5);
    req.send(&message(&[b"", &ping(6), &set(7, "b", "stored")])).unwrap();
    until("executed", || edges.engine.counters().commands.get() >= 7);
    edges.disk.fail_after(0);
    edges.commit();
    let storage = || Err("STORAGE".to_owned());
    let mut answers = vec![dealer.response()];
    let together = responses(&dealer.receive().unwrap());
    answers.push(dealer.response());
    answers.sort_by_key(|answer| answer.id);
    let failed = |id| Response { id: Some(id), result: storage() };
    assert_eq!(answers, [failed(1), failed(5)]);
    let nil = |id| Response { id: Some(id), result: Ok(Value::Nil) };
    assert_eq!(together, [nil(2), failed(3), nil(4)]);
    let frames = req.receive().unwrap();
    assert!(frames[0].is_empty());
    assert_eq!(responses(&frames[1..]), [nil(6), failed(7)]);
    assert_eq!(dealer.call(8, "ping", vec!["on".into()]).result, Ok("on".into()));
}

#[test]
fn a_stop_answers_accepted_requests_and_then_ends_the_connection() {
    let mut edges = edges();
    let mut peer = Peer::connect(&edges.router, "DEALER");
    for id in 0..50 {
        peer.send(&message(&[&set(id, &format!("k{id}"), "synced")])).unwrap();
    }
    let mut silent = Peer::silent(&edges.router);
    let mut idle = Peer::connect(&edges.router, "DEALER");
    until("taken", || edges.engine.len() == 50);
    edges.stop_router();
    assert!(idle.is_cut_within(Duration::from_secs(5)));
    assert!(silent.is_cut_within(Duration::from_secs(5)));
    assert!(!edges.has_router_stopped.load(Ordering::Acquire), "replies are due");
    edges.commit();
    // New requests are not executed any more, and do not cost the peer its due replies.
    let _ = peer.send(&message(&[&ping(99)]).repeat(1000));
    let answered: Vec<Response> = (0..50).map(|_| peer.response()).collect();
    assert_eq!(ids(&answered), (0..50).collect::<Vec<_>>());
    assert!(answered.iter().all(|answer| answer.result.is_ok()));
    assert!(peer.is_cut_within(Duration::from_secs(5)));
    until("stopped", || edges.has_router_stopped.load(Ordering::Acquire));
}

#[test]
fn the_last_replies_reach_a_peer_that_keeps_sending() {
    let mut edges = edges();
    let mut peer = Peer::connect(&edges.router, "DEALER");
    let large = Value::Binary(vec![7; 200_000]);
    let params = vec!["large".into(), large.clone(), option("durability", "memory")];
    peer.send(&message(&[&request(1, "set", params).0])).unwrap();
    assert_eq!(peer.response().id, Some(1));
    peer.send(&message(&[&set(2, "held", "synced")])).unwrap();
    peer.send(&message(&[&get(3, "large")]).repeat(4)).unwrap();
    until("taken", || edges.engine.counters().commands.get() >= 6);
    edges.stop_router();
    std::thread::sleep(QUIET);
    peer.send(&message(&[&ping(9)]).repeat(1_000)).unwrap();
    edges.commit();
    // All replies are written to the socket, more than the peer's side of it takes; closing it now,
    // with unread input, would drop the rest.
    std::thread::sleep(QUIET * 3);
    assert_eq!(peer.response().id, Some(2));
    for _ in 0..4 {
        assert_eq!(peer.response().result, Ok(large.clone()));
    }
    assert!(peer.is_cut_within(Duration::from_secs(5)));
}
