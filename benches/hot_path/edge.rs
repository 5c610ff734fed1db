//! The cases that need more than a function: an engine, and a peer that has shaken hands.

use crate::cases::{Work, all_sets, decoded, gets, sets, value};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Builder;
use tokio::sync::watch;
use vatn::clock::Clock;
use vatn::commands::Request;
use vatn::config::Config;
use vatn::engine::{Allowance, Engine, Replies, recover};
use vatn::limits::Limits;
use vatn::net::{Caller, ConnectionSlots, PeerAddress};
use vatn::storage::{MemoryStorage, Storage};
use vatn::zmq::router::connection;
use vatn::zmq::stream::Stream;
use vatn::zmq::zmtp::{Codec, Inbox, Kind, write_frame};

/// Requests that one read of a socket brings.
const TOGETHER: usize = 16;
/// Messages that come together.
const MESSAGES: usize = 100;

/// An engine without its committer: only work under the lock is counted.
fn engine() -> Arc<Engine> {
    let config = Config::without_edges("memory");
    let (disk, clock): (Arc<dyn Storage>, _) =
        (Arc::new(MemoryStorage::default()), Clock::system());
    let recovered = recover(disk.as_ref(), &clock, &mut |_| {}).expect("an empty disk");
    let (engine, _) = Engine::new(config, clock, disk, recovered).expect("an empty disk");
    let (mut allowance, mut replies) = (Allowance::default(), Replies::default());
    let all = decoded(all_sets());
    let progress = engine.call(&Caller::local(), &all, &mut allowance, &mut replies);
    assert_eq!(progress.done, all.len());
    engine
}

fn execute(requests: Vec<Request<'static>>) -> Work {
    let (engine, caller, mut replies) = (engine(), Caller::local(), Replies::default());
    Box::new(move || {
        for together in requests.chunks(TOGETHER) {
            replies.clear();
            let progress = engine.call(&caller, together, &mut Allowance::default(), &mut replies);
            assert_eq!(progress.done, together.len());
            black_box(&replies);
        }
    })
}

pub fn execute_gets(operations: u64) -> Work {
    execute(decoded(gets(operations, 0)))
}

pub fn execute_sets(operations: u64) -> Work {
    execute(decoded(sets(operations)))
}

/// A client with one request at a time: its session and its own side of the socket, on one thread.
pub fn one_by_one(operations: u64) -> Work {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let engine = engine();
    let mut client = runtime.block_on(async {
        let (ours, mut client) = UnixStream::pair().expect("sockets");
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(async move {
            let slots = ConnectionSlots::new(1, || {});
            let slot = slots.take(PeerAddress::Local, Instant::now()).expect("it is free");
            connection(Stream::Ipc(ours), &engine, slot, stopping).await;
            drop(stop);
        });
        client.write_all(&GREETING).await.expect("it listens");
        client.write_all(READY).await.expect("it listens");
        // Its greeting, and its READY: as long as ours, but for the name of the socket.
        let mut greeted = [0; GREETING.len() + READY.len()];
        client.read_exact(&mut greeted).await.expect("it greets");
        client
    });
    let asks: Vec<Vec<u8>> = gets(operations, 0)
        .into_iter()
        .map(|frame| {
            let mut ask = Vec::new();
            write_frame(&mut ask, false, frame);
            ask
        })
        .collect();
    Box::new(move || {
        runtime.block_on(async {
            let mut answer = [0; 256];
            for ask in &asks {
                client.write_all(ask).await.expect("it reads");
                let read = client.read(&mut answer).await.expect("it answers");
                assert!(read > value().as_bytes().len());
            }
        });
    })
}

const GREETING: [u8; 64] = {
    let mut greeting = [0; 64];
    (greeting[0], greeting[8], greeting[9], greeting[10]) = (0xFF, 1, 0x7F, 3);
    (greeting[11], greeting[12], greeting[13]) = (1, b'N', b'U');
    (greeting[14], greeting[15]) = (b'L', b'L');
    greeting
};
const READY: &[u8] = b"\x04\x1C\x05READY\x0BSocket-Type\0\0\0\x06DEALER";

/// A router's side of a connection, its handshake done.
fn greeted() -> Codec {
    let mut codec = Codec::new(Kind::Router, &Limits::default());
    let (mut inbox, mut replies) = (Inbox::default(), Vec::new());
    for bytes in [GREETING.as_slice(), READY] {
        codec.feed(bytes, &mut inbox, &mut replies).expect("a valid handshake");
    }
    assert!(codec.is_ready());
    codec
}

/// Requests of GETs in, frames of their replies' length out.
pub fn messages(operations: u64) -> Work {
    let mut wire = Vec::new();
    gets(MESSAGES as u64, 0).into_iter().for_each(|frame| write_frame(&mut wire, false, frame));
    let (mut codec, value) = (greeted(), value());
    let (mut inbox, mut replies) = (Inbox::default(), Vec::new());
    Box::new(move || {
        for _ in 0..operations / MESSAGES as u64 {
            codec.feed(&wire, &mut inbox, &mut replies).expect("valid messages");
            assert_eq!(inbox.messages.len(), MESSAGES);
            while let Some(message) = inbox.messages.pop_front() {
                black_box(inbox.frame(&message, 0));
                write_frame(&mut replies, false, value.as_bytes());
            }
            inbox.rest();
            black_box(&replies);
            replies.clear();
        }
    })
}
