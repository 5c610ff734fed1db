//! What large changes take on their way to subscribers that do not read them, and that one that
//! reads is told them all the same.

use crate::support::broker::Broker;
use crate::support::peer::{Peer, command};
use rmpv::Value;

const MIB: usize = 1 << 20;
/// What changes may take, all subscribers together.
const LIMIT: usize = 40 * MIB;
/// More than the two systems hold for a connection, and more than half of the limit with another.
const VALUE: usize = 16 * MIB;
/// What the broker takes besides, with the allocator's slack: the write, its record, the log, and
/// where the workers' round falls into this, the tables. A value for each would be 256 MiB.
const BEYOND: usize = 120 * MIB;

/// A subscriber to everything, whose subscription has taken effect: the beat says so.
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
fn large_changes_that_nobody_reads_keep_within_the_limit() {
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
    // Whom the large one does not concern does not wait for room for it.
    while narrow.receive().unwrap()[0] != b"small" {}
    // Who reads has its turn when those before it were cut, or are told.
    assert_eq!(large(&mut reads), 3);
    assert_eq!(reads.receive().unwrap()[0], b"small");
    let grown = usize::try_from(broker.peak_memory()).unwrap() - before;
    println!("grown by {} MiB", grown / MIB);
    assert!(grown <= LIMIT + BEYOND, "grown by {} MiB", grown / MIB);
    drop(silent);
}
