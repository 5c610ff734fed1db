//! Promise 5 with the least memory that a broker starts in: with default limits it stays within
//! that memory, whatever peers request, send, and leave unread.

use crate::support::broker::Broker;
use crate::support::commands::request;
use crate::support::peer::{Peer, frame};
use rmpv::Value;
use std::thread;

/// 1 GiB, in KiB.
const LEAST: u64 = 1 << 20;
const LARGE_BYTES: usize = 15 << 20;

fn set(id: u64, key: &str) -> Vec<u8> {
    let queued = Value::Map(vec![("durability".into(), "queued".into())]);
    let params = vec![key.into(), Value::Binary(vec![7; LARGE_BYTES]), queued];
    frame(0, &request(id, "set", params).0)
}

fn assert_it_still_serves(broker: Broker) {
    let mut honest = Peer::connect(&broker.router, "DEALER");
    honest.call(1, "set", vec!["small".into(), 1.into()]).result.unwrap();
    assert_eq!(honest.call(2, "get", vec!["small".into()]).result.unwrap(), Value::from(1));
    assert!(broker.stop().success());
}

#[test]
fn unread_large_replies_are_made_only_as_far_as_memory_allows() {
    let broker = Broker::start_within(LEAST, &[]);
    let mut first = Peer::connect(&broker.router, "DEALER");
    for number in 0..80 {
        let value = Value::Binary(vec![7; 60_000]);
        first.call(number, "set", vec![format!("k{number}").into(), value]).result.unwrap();
    }
    let mut peers = Vec::new();
    for _ in 0..100 {
        let mut peer = Peer::connect(&broker.router, "DEALER");
        for id in 0..6 {
            // A page of 4 MiB. The peer may be cut already, since other connections wait.
            let _ = peer.send(&frame(0, &request(id, "range", vec![]).0));
        }
        peers.push(peer);
    }
    assert_it_still_serves(broker);
}

#[test]
fn large_writes_are_accepted_only_as_far_as_memory_allows() {
    let broker = Broker::start_within(LEAST, &[]);
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let router = broker.router.clone();
            thread::spawn(move || {
                let mut peer = Peer::connect(&router, "DEALER");
                // Where other connections wait for memory, a slow one may be cut.
                for id in 0..4 {
                    let _ = peer.send(&set(id, &format!("large{}", (writer + id) % 5)));
                }
                (0..4).for_each(|_| drop(peer.receive()));
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert_it_still_serves(broker);
}
