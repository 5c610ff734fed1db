//! The memory of large changes for subscribers that do not read them; a subscriber that reads gets
//! the changes all the same.

use crate::support::broker::Broker;
use crate::support::peer::{Peer, command};
use rmpv::Value;

const MIB: usize = 1 << 20;
/// The memory for changes, all subscribers together.
const LIMIT: usize = 40 * MIB;
/// More than the two systems buffer for a connection; two of these exceed half of the limit.
const VALUE: usize = 16 * MIB;
/// The broker's other memory, with the allocator's slack: the write, its record, the log, and where
/// a checkpoint falls into this, the tables. A value for each subscriber would be 256 MiB.
const BEYOND: usize = 120 * MIB;

/// A subscriber to everything whose subscription has taken effect, as the beat shows.
fn subscriber(broker: &Broker) -> Peer {
    let mut peer = Peer::connect(&broker.publisher, "SUB");
    peer.send(&command("SUBSCRIBE", b"")).unwrap();
    assert_eq!(peer.receive().unwrap()[0], b"\xFFbeat");
    peer
}

fn set(writer: &mut Peer, fill: u8) {
    let params = vec!["large".into(), Value::Binary(vec![fill; VALUE])];
    writer.call(1, "set", params).result.unwrap();
}

/// Reads until the large value comes; returns its last byte.
fn large(peer: &mut Peer) -> u8 {
    loop {
        let [topic, _, value] = <[Vec<u8>; 3]>::try_from(peer.receive().unwrap()).unwrap();
        if topic == b"large" {
            assert!(value.len() > VALUE);
            return value[VALUE];
        }
        assert_eq!(topic, b"\xFFbeat");
    }
}

#[test]
fn unread_large_changes_stay_within_the_limit() {
    let limit = LIMIT.to_string();
    let limits = ["--max-unread-bytes", "1048576", "--max-outgoing-bytes", &limit];
    let others = ["--write-timeout-ms", "500", "--durability", "stored", "--max-message-bytes"];
    let broker = Broker::start(&[&limits[..], &others, &["33554432"]].concat());
    let mut writer = Peer::connect(&broker.router, "DEALER");
    for fill in [1, 2] {
        set(&mut writer, fill);
    }
    let silent: Vec<Peer> = (0..16).map(|_| subscriber(&broker)).collect();
    let mut narrow = Peer::connect(&broker.publisher, "SUB");
    narrow
        .send(&[command("SUBSCRIBE", b"small"), command("SUBSCRIBE", b"\xFFbeat")].concat())
        .unwrap();
    narrow.receive().unwrap();
    let mut reads = subscriber(&broker);
    let before = usize::try_from(broker.peak_memory()).unwrap();
    set(&mut writer, 3);
    writer.call(2, "set", vec!["small".into(), 1.into()]).result.unwrap();
    // A subscriber that does not get the large change does not wait for its memory.
    while narrow.receive().unwrap()[0] != b"small" {}
    // A subscriber that reads gets its turn when those before it were cut or served.
    assert_eq!(large(&mut reads), 3);
    assert_eq!(reads.receive().unwrap()[0], b"small");
    let grown = usize::try_from(broker.peak_memory()).unwrap() - before;
    println!("grown by {} MiB", grown / MIB);
    assert!(grown <= LIMIT + BEYOND, "grown by {} MiB", grown / MIB);
    drop(silent);
}
