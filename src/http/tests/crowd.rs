//! Many event streams that one commit wakes: a request waits for a few of them.

use super::*;
use crate::commands::Set;
use crate::engine::engine_on;
use crate::http::host::Names;
use crate::http::server::drive;
use crate::net::turns::bulk::{self, AT_ONCE};
use crate::net::wake_queue::WakeQueue;
use crate::net::{Caller, ConnectionSlots, ConnectionTimeouts, PeerAddress};
use crate::protocol::Level;
use crate::storage::MemoryStorage;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::task::JoinSet;

const ALL: usize = 100;

async fn until(peer: &mut TcpStream, wanted: &str) {
    let mut got = Vec::new();
    while !String::from_utf8_lossy(&got).contains(wanted) {
        assert_ne!(peer.read_buf(&mut got).await.unwrap(), 0);
    }
}

#[test]
fn a_request_waits_for_a_few_of_the_event_streams_that_a_commit_wakes() {
    let (engine, log) = engine_on(Arc::<MemoryStorage>::default());
    let committing = Arc::clone(&engine);
    let committer = std::thread::spawn(move || committing.commit(log));
    bulk::tests::run(async {
        // As on an I/O thread: tasks that another thread wakes are woken together.
        tokio::spawn(Arc::<WakeQueue>::default().run());
        tokio::task::yield_now().await;
        let limits = Limits::default();
        let guard = Guard::new(Names::new(["localhost".to_owned()]), false);
        let app = App::new(Arc::clone(&engine), guard, &limits);
        let listener = bind("127.0.0.1", 0).await.unwrap();
        let slots = ConnectionSlots::new(ALL, || ());
        let (_stop, stopping) = watch::channel(false);
        let mut peers = Vec::new();
        for _ in 0..ALL {
            let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (ours, _) = listener.accept().await.unwrap();
            let slot = slots.take(PeerAddress::Local, std::time::Instant::now()).unwrap();
            let timeouts = ConnectionTimeouts::new(&limits);
            tokio::spawn(drive(ours, slot, app.clone(), timeouts, stopping.clone(), PATIENCE));
            let head = "GET /changes HTTP/1.1\r\nHost: localhost\r\n\
                        Accept: text/event-stream\r\n\r\n";
            peer.write_all(head.as_bytes()).await.unwrap();
            until(&mut peer, ": nothing up to").await;
            peers.push(peer);
        }
        let notified = Arc::<AtomicUsize>::default();
        let mut reading = JoinSet::new();
        for mut peer in peers {
            let notified = Arc::clone(&notified);
            reading.spawn(async move {
                until(&mut peer, "topic").await;
                notified.fetch_add(1, Relaxed);
                peer
            });
        }
        let done = move || notified.load(Relaxed) == ALL;
        let requests = tokio::spawn(bulk::tests::between_requests(done));
        // They have begun before the commit.
        for _ in 0..2 * ALL {
            tokio::task::yield_now().await;
        }
        let durability = Some(Level::Stored);
        let set = Set {
            key: b"topic"[..].into(),
            value: b"\x01",
            expiry: None,
            condition: None,
            durability,
            return_value: false,
        };
        // This thread waits meanwhile, so that all are woken when it goes on.
        let writing = Arc::clone(&engine);
        let writer = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let caller = Caller::local();
            let run = writing.run(&caller, Command::Set(set), |_| Ok(()));
            runtime.unwrap().block_on(run).unwrap();
        });
        writer.join().unwrap();
        let (most, all) = requests.await.unwrap();
        assert!(all >= ALL && most <= 2 * AT_ONCE, "{most} of {all} at once");
        reading.join_all().await;
    });
    engine.stop();
    committer.join().unwrap();
}
