//! Messages with a `wait` or a waiting `changes` in them, alone or among other requests: each reply
//! is due on its own, and none is sent early.

use crate::support::commands::request;
use crate::support::edges::{Edges, until};
use crate::support::peer::{Peer, Response, message};
use crate::support::requests::{get, option, ping, set, wait};
use rmpv::Value;
use std::time::Duration;
use vatn::config::WriteQueueConfig;
use vatn::limits::{Limits, WAITING_EACH_MAX};

const QUIET: Duration = Duration::from_millis(100);
/// A seq that is never written here.
const FAR: u64 = 1 << 60;
const MINUTE_MS: u64 = 60_000;

fn edges() -> Edges {
    Edges::start(Limits::default(), WriteQueueConfig::default())
}

fn changes(id: u64, after: u64) -> Vec<u8> {
    request(id, "changes", vec![after.into(), option("wait_ms", MINUTE_MS)]).0
}

fn send(peer: &mut Peer, requests: &[Vec<u8>]) {
    let frames: Vec<&[u8]> = requests.iter().map(Vec::as_slice).collect();
    peer.send(&message(&frames)).unwrap();
}

fn receive(peer: &mut Peer) -> Vec<Response> {
    peer.receive().unwrap().iter().map(|frame| Response::decode(frame)).collect()
}

fn answer(id: u64, result: impl Into<Value>) -> Response {
    Response { id: Some(id), result: Ok(result.into()) }
}

#[test]
fn a_wait_that_times_out_does_not_send_other_replies_early() {
    let mut edges = edges();
    let mut peers: Vec<_> = (0..4).map(|_| Peer::connect(&edges.router, "DEALER")).collect();
    send(&mut peers[0], &[set(1, "k", "synced"), wait(2, FAR, 0)]);
    until("written", || edges.engine.len() == 1);
    send(&mut peers[1], &[wait(3, FAR, 0), get(4, "k")]);
    send(&mut peers[2], &[request(5, "flush", vec![]).0, wait(6, FAR, 0), ping(7)]);
    send(&mut peers[3], &[changes(8, 0), wait(9, FAR, 0)]);
    until("executed", || edges.engine.counters().commands.get() >= 9);
    // Replies that come too early are swallowed here, and then missed.
    assert!(peers.iter_mut().all(|peer| !peer.is_cut_within(QUIET)));
    edges.commit();
    assert_eq!(receive(&mut peers[0]), [answer(1, 1), answer(2, false)]);
    assert_eq!(receive(&mut peers[1]), [answer(3, false), answer(4, 1)]);
    let changed = receive(&mut peers[3]);
    assert!(changed[0].result.as_ref().is_ok_and(Value::is_array), "{changed:?}");
    assert_eq!(changed[1], answer(9, false));
    // There is no checkpointer, so a flush never ends.
    assert!(!peers[2].is_cut_within(QUIET));
    send(&mut peers[2], &[ping(10)]);
    assert_eq!(receive(&mut peers[2]), [answer(10, Value::Nil)], "not the answer to the flush");
}

#[test]
fn each_wait_of_a_message_has_its_own_time() {
    let mut edges = edges();
    edges.commit();
    let mut peer = Peer::connect(&edges.router, "DEALER");
    send(&mut peer, &[wait(1, FAR, 20), wait(2, 2, MINUTE_MS), wait(3, FAR, 0)]);
    send(&mut peer, &[wait(4, FAR, 80)]);
    assert_eq!(receive(&mut peer), [answer(4, false)], "the other waits continue");
    send(&mut peer, &[set(5, "a", "queued"), set(6, "b", "queued")]);
    assert_eq!(receive(&mut peer), [answer(5, 1), answer(6, 2)]);
    assert_eq!(receive(&mut peer), [answer(1, false), answer(2, true), answer(3, false)]);
}

#[test]
fn a_wait_times_out_on_time_in_a_message_too_large_to_execute_at_once() {
    let limits = Limits { max_unread_bytes: 4_000_000, ..Limits::default() };
    let edges = Edges::start(limits, WriteQueueConfig::default());
    let mut peer = Peer::connect(&edges.router, "DEALER");
    let large = Value::Binary(vec![7; 1 << 20]);
    let params = vec!["large".into(), large.clone(), option("durability", "memory")];
    peer.send(&message(&[&request(1, "set", params).0])).unwrap();
    assert_eq!(receive(&mut peer), [answer(1, 1)]);
    let mut requests = vec![wait(2, FAR, 50), wait(3, FAR, 20)];
    requests.extend((4..24).map(|id| get(id, "large")));
    requests.extend([wait(24, FAR, 30), ping(25), wait(26, 0, MINUTE_MS)]);
    send(&mut peer, &requests);
    send(&mut peer, &[ping(27)]);
    let answered = receive(&mut peer);
    assert_eq!(answered[..2], [answer(2, false), answer(3, false)]);
    assert!(answered[2..22].iter().all(|answer| answer.result.as_ref() == Ok(&large)));
    assert_eq!(answered[22..], [answer(24, false), answer(25, Value::Nil), answer(26, true)]);
    assert_eq!(receive(&mut peer), [answer(27, Value::Nil)]);
}

#[test]
fn a_disconnect_is_noticed_while_reads_are_paused() {
    let limits = Limits { write_timeout_ms: 200, heartbeat_ms: 200, ..Limits::default() };
    let mut edges = Edges::start(limits, WriteQueueConfig::default());
    let mut peers: Vec<_> = (0..3).map(|_| Peer::connect(&edges.router, "DEALER")).collect();
    let counters = || edges.engine.counters();
    let limit = 2 * WAITING_EACH_MAX as u64;
    for peer in &mut peers {
        let before = counters().commands.get();
        (1..=limit).for_each(|id| send(peer, &[wait(id, 1, 1 << 60)]));
        until("as many as may wait", || counters().commands.get() == before + limit);
        // The message is read, and not executed; the bytes after it are not even read.
        send(peer, &[ping(limit + 1)]);
    }
    let mut stays = peers.remove(0);
    // For one of them, not even the end arrives: its system cannot send all bytes before.
    peers[0].send_until_blocked(&message(&[&ping(limit + 2)]).repeat(1_000));
    drop(peers);
    until("closed connections are gone", || counters().connections.get() == 1);
    assert!(!stays.is_cut_within(QUIET));
    edges.commit();
    let mut writer = Peer::connect(&edges.router, "DEALER");
    assert_eq!(writer.call(1, "set", vec!["k".into(), 1.into()]).result, Ok(1.into()));
    let mut ids: Vec<_> = (0..=limit).map(|_| stays.response().id.unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=limit + 1).collect::<Vec<_>>());
}

/// Sets `large` to a MiB.
fn set_large(peer: &mut Peer) {
    let large = Value::Binary(vec![7; 1 << 20]);
    let params = vec!["large".into(), large, option("durability", "memory")];
    assert!(peer.call(1, "set", params).result.is_ok());
}

fn is_page(answer: &Response) -> bool {
    answer.result.as_ref().is_ok_and(Value::is_array)
}

#[test]
fn more_changes_than_there_are_pages_are_answered_in_one_message() {
    let mut edges = edges();
    edges.commit();
    let mut writer = Peer::connect(&edges.router, "DEALER");
    assert_eq!(writer.call(1, "set", vec!["k".into(), 1.into()]).result, Ok(1.into()));
    let mut peers: Vec<_> = (0..3).map(|_| Peer::connect(&edges.router, "DEALER")).collect();
    let many: Vec<_> = (0..150).flat_map(|id| [changes(2 * id, 0), ping(2 * id + 1)]).collect();
    peers.iter_mut().for_each(|peer| send(peer, &many));
    for peer in &mut peers {
        let answered = receive(peer);
        let ids: Vec<_> = answered.iter().map(|answer| answer.id.unwrap()).collect();
        assert_eq!(ids, (0..300).collect::<Vec<_>>());
        assert!(answered.iter().step_by(2).all(is_page));
    }
}

#[test]
fn pages_that_cannot_be_sent_do_not_block_those_of_others() {
    let limits = Limits { max_unread_bytes: 4_000_000, ..Limits::default() };
    let mut edges = Edges::start(limits, WriteQueueConfig::default());
    edges.commit();
    let mut peer = Peer::connect(&edges.router, "DEALER");
    set_large(&mut peer);
    (0..100).for_each(|id| send(&mut peer, &[changes(id, 1)]));
    // Its message is unfinished, so nothing can come between.
    let mut requests: Vec<_> = (100..110).map(|id| get(id, "large")).collect();
    requests.push(wait(110, FAR, MINUTE_MS));
    send(&mut peer, &requests);
    (0..3).for_each(|_| drop(peer.receive_frame().unwrap()));
    let mut other = Peer::connect(&edges.router, "DEALER");
    assert_eq!(other.call(1, "set", vec!["k".into(), 1.into()]).result, Ok(2.into()));
    until("published", || edges.engine.feed().last_seq() == 2);
    assert!(!peer.is_cut_within(QUIET));
    send(&mut other, &[changes(2, 1)]);
    assert!(is_page(&other.response()));
}

#[test]
fn one_connection_cannot_take_all_room_for_waits() {
    let mut edges = edges();
    let mut hog = Peer::connect(&edges.router, "DEALER");
    let many: Vec<_> = (0..12_000).map(|id| changes(id, 0)).collect();
    send(&mut hog, &many);
    let mut other = Peer::connect(&edges.router, "DEALER");
    let executed = || edges.engine.counters().commands.get();
    until("no more is executed", || {
        let before = executed();
        before > 0 && !other.is_cut_within(QUIET) && executed() == before
    });
    send(&mut other, &[changes(1, 0)]);
    assert!(!other.is_cut_within(QUIET), "it waits");
    edges.commit();
    send(&mut other, &[set(2, "k", "queued")]);
    let mut answered = [other.response(), other.response()];
    answered.sort_unstable_by_key(|answer| answer.id);
    assert!(is_page(&answered[0]), "{:?}", answered[0]);
    let answered = receive(&mut hog);
    assert!(answered.len() == 12_000 && answered.iter().all(is_page));
}

#[test]
fn many_connections_with_many_waits_leave_room_and_get_a_limit_error() {
    let mut edges = edges();
    edges.commit();
    let mut hogs: Vec<_> = (0..30).map(|_| Peer::connect(&edges.router, "DEALER")).collect();
    for (place, hog) in (1..).zip(&mut hogs) {
        (0..WAITING_EACH_MAX as u64).for_each(|id| {
            let options = Value::Map(vec![
                ("wait_ms".into(), MINUTE_MS.into()),
                ("prefix".into(), format!("unused{id}").into()),
            ]);
            send(hog, &[request(id, "changes", vec![0.into(), options]).0]);
        });
        let all = place * WAITING_EACH_MAX as u64;
        until("all are executed", || edges.engine.counters().commands.get() == all);
    }
    assert!(edges.engine.counters().refused_commands.get() > 0);
    let refused = hogs.pop().unwrap().response().result.unwrap_err();
    assert_eq!(refused, "TOO_LARGE");
    let mut other = Peer::connect(&edges.router, "DEALER");
    send(&mut other, &[changes(1, 0)]);
    let mut writer = Peer::connect(&edges.router, "DEALER");
    assert_eq!(writer.call(2, "set", vec!["k".into(), 1.into()]).result, Ok(1.into()));
    assert!(is_page(&other.response()));
    // Connections that leave give their places back.
    drop(hogs);
    until("they are gone", || edges.engine.counters().connections.get() == 2);
    for id in 0..WAITING_EACH_MAX as u64 {
        send(&mut writer, &[changes(id, 1)]);
    }
    assert_eq!(other.call(3, "set", vec!["k".into(), 2.into()]).result, Ok(2.into()));
    assert!((0..WAITING_EACH_MAX).all(|_| is_page(&writer.response())));
}

#[test]
fn thousands_of_waits_that_time_out_are_all_answered() {
    let mut edges = edges();
    edges.commit();
    let mut peers: Vec<_> = (0..10).map(|_| Peer::connect(&edges.router, "DEALER")).collect();
    let wait = |id: u64| request(id, "changes", vec![0.into(), option("wait_ms", 300)]).0;
    for peer in &mut peers {
        (0..WAITING_EACH_MAX as u64).for_each(|id| send(peer, &[wait(id)]));
    }
    let nothing = Value::Array(vec![Value::Array(vec![]), 0.into()]);
    for peer in &mut peers {
        for _ in 0..WAITING_EACH_MAX {
            assert_eq!(peer.response().result.as_ref(), Ok(&nothing));
        }
    }
}

#[test]
fn waits_beyond_the_overtaking_limit_are_answered_in_order() {
    let mut edges = edges();
    edges.commit();
    let mut peer = Peer::connect(&edges.router, "DEALER");
    let limit = WAITING_EACH_MAX as u64;
    (0..limit).for_each(|id| send(&mut peer, &[wait(id, 1, MINUTE_MS)]));
    until("as many as may overtake", || edges.engine.counters().commands.get() == limit);
    send(&mut peer, &[wait(limit, FAR, 50), ping(limit + 1)]);
    let many: Vec<_> = (0..3 * limit).map(|id| wait(id, FAR, 0)).collect();
    send(&mut peer, &many);
    assert_eq!(receive(&mut peer), [answer(limit, false), answer(limit + 1, Value::Nil)]);
    assert!(receive(&mut peer).iter().all(|answer| answer.result == Ok(false.into())));
    send(&mut peer, &[set(9_999, "k", "queued")]);
    assert_eq!(receive(&mut peer), [answer(9_999, 1)]);
    let mut ids: Vec<_> = (0..limit).map(|_| peer.response().id.unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..limit).collect::<Vec<_>>());
}
