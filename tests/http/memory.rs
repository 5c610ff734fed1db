//! The memory of HTTP answers that are not read, however much longer they are as JSON, and however
//! large one item or one write is.

use crate::support::broker::Broker;
use crate::support::http::Connection;
use crate::support::peer::Peer;
use rmpv::Value;

const MIB: usize = 1 << 20;
/// The memory for answers, all readers together.
const LIMIT: usize = 32 * MIB;
/// The memory that each thread may take for the answers it makes, with the allocator's slack.
const BEYOND: usize = 60 * MIB;
/// The same for answers that read the history from the disk.
const BEYOND_HISTORY: usize = 130 * MIB;
/// The length of a value; its JSON is six times as long.
const VALUE: usize = 4 * MIB;

/// A broker with two values whose JSON is six times as long.
fn broker() -> Broker {
    let limit = LIMIT.to_string();
    let arguments =
        ["--max-outgoing-bytes", &limit, "--max-unread-bytes", &limit, "--range-bytes", "1048576"];
    let broker = Broker::start(&[&arguments[..], &["--durability", "stored"]].concat());
    let mut peer = Peer::connect(&broker.router, "DEALER");
    for key in ["a", "b"] {
        let params = vec![key.into(), Value::from("\u{1}".repeat(VALUE))];
        peer.call(1, "set", params).result.unwrap();
        peer.call(2, "get", vec![key.into()]).result.unwrap();
    }
    broker
}

/// Many connections request `target` and read only the head of the answer; returns how many get
/// one.
fn request_without_reading(broker: &Broker, target: &str) -> usize {
    let mut readers: Vec<_> = (0..24).map(|_| Connection::open(&broker.http)).collect();
    for reader in &mut readers {
        reader.send(format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").as_bytes());
    }
    let statuses: Vec<_> = readers.iter_mut().map(|reader| reader.response(true).status).collect();
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{target}: {statuses:?}");
    statuses.iter().filter(|status| **status == 200).count()
}

fn holds(target: &str, beyond: usize) {
    let broker = broker();
    let before = usize::try_from(broker.peak_memory()).unwrap();
    let answered = request_without_reading(&broker, target);
    let grown = usize::try_from(broker.peak_memory()).unwrap() - before;
    println!("{target}: {answered} answered, grown by {} MiB", grown / MIB);
    assert!(answered > 0, "{target}: one must always be able to go on");
    assert!(grown <= LIMIT + beyond, "{target}: grown by {} MiB", grown / MIB);
    // Once they are gone, there is room again.
    let whole = Connection::open(&broker.http).ask(&format!("GET {target}"));
    assert_eq!(whole.status, 200, "{target}");
    assert!(whole.body.len() > 6 * VALUE, "{target}: {} bytes", whole.body.len());
}

#[test]
fn unread_answers_of_get_stay_within_the_limit() {
    holds("/get?key=a", BEYOND);
}

#[test]
fn unread_ranges_of_one_page_stay_within_the_limit() {
    holds("/getrange?limit=1", BEYOND);
}

#[test]
fn unread_ranges_of_many_pages_stay_within_the_limit() {
    holds("/getrange", BEYOND);
}

#[test]
fn unread_changes_stay_within_the_limit() {
    holds("/changes?from=0", BEYOND_HISTORY);
}
