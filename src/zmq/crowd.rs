//! Thousands of connections wake or end at once: a request waits for only a few of them.

use super::link::Closed;
use super::publisher::subscriber;
use super::router::connection;
use super::stream::Stream;
use super::zmtp::write_frame;
use crate::engine::{Engine, engine_on};
use crate::limits::Limits;
use crate::net::turns::bulk::{self, AT_ONCE};
use crate::net::{ConnectionSlots, PeerAddress};
use crate::protocol::change::Op;
use crate::protocol::{ChangeBuffer, Level};
use crate::storage::MemoryStorage;
use crate::wal::Record;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

const ALL: usize = 200;
const PING: &[u8] = b"\x04\x07\x04PING\0\0";

/// The connections of one edge, all on this thread, and a count of those that ended.
struct Crowd {
    engine: Arc<Engine>,
    peers: Vec<UnixStream>,
    ended: Arc<AtomicUsize>,
    _stop: watch::Sender<bool>,
}

impl Crowd {
    /// Connects as `kind`; each peer sends `first`, and waits until it was executed.
    async fn connect(kind: &str, first: &[u8]) -> Self {
        let (engine, _log) = engine_on(Arc::<MemoryStorage>::default());
        let slots = ConnectionSlots::new(ALL, || ());
        let (ended, (stop, stopping)) = (Arc::<AtomicUsize>::default(), watch::channel(false));
        let mut peers = Vec::new();
        for _ in 0..ALL {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let slot = slots.take(PeerAddress::Local, Instant::now()).unwrap();
            let (engine, ended, stop) = (Arc::clone(&engine), Arc::clone(&ended), stopping.clone());
            let is_subscriber = kind == "SUB";
            tokio::spawn(async move {
                let (stream, limits) = (Stream::Ipc(ours), Limits::default());
                let closed = match is_subscriber {
                    true => subscriber(stream, &engine, &limits, slot, stop).await,
                    false => connection(stream, &engine, slot, stop).await,
                };
                assert!(matches!(closed, Closed::ByPeer), "{closed}");
                ended.fetch_add(1, Relaxed);
            });
            peers.push(theirs);
        }
        let mut hello = b"\xFF\0\0\0\0\0\0\0\x01\x7F\x03\x01NULL".to_vec();
        hello.resize(64, 0);
        let length = u32::try_from(kind.len()).unwrap().to_be_bytes();
        let ready = [b"\x05READY\x0BSocket-Type", &length[..], kind.as_bytes()].concat();
        hello.extend_from_slice(&[4, u8::try_from(ready.len()).unwrap()]);
        hello.extend_from_slice(&ready);
        hello.extend_from_slice(first);
        hello.extend_from_slice(PING);
        for peer in &mut peers {
            peer.write_all(&hello).await.unwrap();
            until(peer, b"PONG").await;
        }
        Self { engine, peers, ended, _stop: stop }
    }
}

/// Reads until `wanted` has come.
async fn until(peer: &mut UnixStream, wanted: &[u8]) {
    let mut got = Vec::new();
    while !got.windows(wanted.len()).any(|part| part == wanted) {
        assert_ne!(peer.read_buf(&mut got).await.unwrap(), 0);
    }
}

#[test]
fn a_request_waits_for_a_few_of_the_subscribers_that_a_commit_wakes() {
    bulk::tests::run(async {
        let mut subscription = Vec::new();
        write_frame(&mut subscription, false, b"\x01topic");
        let crowd = Crowd::connect("SUB", &subscription).await;
        let notified = Arc::<AtomicUsize>::default();
        let mut reading = JoinSet::new();
        for mut peer in crowd.peers {
            let notified = Arc::clone(&notified);
            reading.spawn(async move {
                until(&mut peer, b"topic").await;
                notified.fetch_add(1, Relaxed);
                peer
            });
        }
        let mut pending = ChangeBuffer::default();
        let mark = pending.begin(1, Level::Queued, 0);
        pending.push(Op::Set, false, None, b"topic", b"\x01");
        pending.end(mark);
        crowd.engine.feed().push(Arc::new(Record::new(pending)));
        let (most, all) =
            bulk::tests::between_requests(move || notified.load(Relaxed) == ALL).await;
        assert!(all >= ALL && most <= 2 * AT_ONCE, "{most} of {all} at once");
        reading.join_all().await;
    });
}

#[test]
fn a_request_waits_for_a_few_of_the_connections_that_end_at_once() {
    for kind in ["SUB", "DEALER"] {
        bulk::tests::run(async {
            let Crowd { engine: _engine, peers, ended, _stop } = Crowd::connect(kind, b"").await;
            drop(peers);
            let (most, all) =
                bulk::tests::between_requests(move || ended.load(Relaxed) == ALL).await;
            assert!(all >= ALL && most <= 2 * AT_ONCE, "{kind}: {most} of {all} at once");
        });
    }
}
