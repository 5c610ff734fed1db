//! The cases that need more than a function: an engine, and a peer that has shaken hands.

use crate::cases::{Work, all_sets, decoded, gets, sets, value};
use std::hint::black_box;
use std::sync::Arc;
use vatn::clock::Clock;
use vatn::config::Config;
use vatn::disk::{Disk, MemoryDisk};
use vatn::engine::{Answers, Engine, recover};
use vatn::limits::Limits;
use vatn::wire::Request;
use vatn::zmq::zmtp::{Codec, Inbox, Kind, write_frame};

/// Requests that one read of a socket brings.
const TOGETHER: usize = 16;
/// Messages that come together.
const MESSAGES: usize = 100;

/// An engine without its committer: what is counted is what happens under the lock.
fn engine() -> Arc<Engine> {
    let config = Config::without_edges("memory");
    let (disk, clock): (Arc<dyn Disk>, _) = (Arc::new(MemoryDisk::default()), Clock::system());
    let recovered = recover(disk.as_ref(), &clock, &mut |_| {}).expect("an empty disk");
    let (engine, _) = Engine::new(config, clock, disk, recovered).expect("an empty disk");
    let mut answers = Answers::default();
    let all = decoded(all_sets());
    assert_eq!(engine.execute(&all, true, &mut answers), all.len());
    engine
}

fn execute(requests: Vec<Request<'static>>) -> Work {
    let (engine, mut answers) = (engine(), Answers::default());
    Box::new(move || {
        for together in requests.chunks(TOGETHER) {
            answers.clear();
            assert_eq!(engine.execute(together, true, &mut answers), together.len());
            black_box(&answers);
        }
    })
}

pub fn execute_gets(operations: u64) -> Work {
    execute(decoded(gets(operations, 0)))
}

pub fn execute_sets(operations: u64) -> Work {
    execute(decoded(sets(operations)))
}

/// A router's side of a connection, its handshake done.
fn greeted() -> Codec {
    let mut codec = Codec::new(Kind::Router, &Limits::default());
    let mut greeting = [0; 64];
    greeting[..16].copy_from_slice(b"\xFF\0\0\0\0\0\0\0\x01\x7F\x03\x01NULL");
    let ready = b"\x04\x1C\x05READY\x0BSocket-Type\0\0\0\x06DEALER";
    let (mut inbox, mut replies) = (Inbox::default(), Vec::new());
    for bytes in [greeting.as_slice(), ready] {
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
