//! The listening edge without an engine: every message comes back unchanged. It is the ceiling
//! against which the broker's own rate is judged. With `answer`, each request is decoded, and
//! answered as a GET of a value of 100 bytes would be: the work of an edge, still without an
//! engine.
//!
//!     cargo run --release --example echo_edge -- tcp://127.0.0.1:7599 [answer]

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use vatn::commands::Request;
use vatn::limits::Limits;
use vatn::net::io_threads::IoThreads;
use vatn::net::{ConnectionSlots, MemoryQuota, Slot};
use vatn::protocol::{Reply, response};
use vatn::zmq::link::{Closed, Link};
use vatn::zmq::listener::Listener;
use vatn::zmq::stream::Stream;
use vatn::zmq::zmtp::{Kind, write_frame};

/// A MessagePack `bin` of 100 bytes.
const VALUE: [u8; 102] = {
    let mut value = [b'x'; 102];
    (value[0], value[1]) = (0xC4, 100);
    value
};

/// The response to a request.
fn answer(frame: &[u8], response: &mut Vec<u8>) {
    let Request { id, command, .. } = Request::decode(frame);
    match command {
        Ok(_) => response::success(response, id, &Reply::Value(VALUE[..].into())),
        Err(refusal) => response::refusal(response, id, &refusal),
    }
}

async fn echo(
    stream: Stream,
    limits: Arc<Limits>,
    quota: Arc<MemoryQuota>,
    slot: Slot,
    answers: bool,
) -> Result<(), Closed> {
    let mut body = Vec::new();
    let mut link = Link::greet(stream, Kind::Router, &limits, &quota, slot).await?;
    loop {
        let mut inbox = std::mem::take(&mut link.inbox);
        while let Some(message) = inbox.messages.pop_front() {
            for index in 0..message.len() {
                let more = index + 1 < message.len();
                let frame = inbox.frame(&message, index).unwrap_or_default();
                if answers {
                    body.clear();
                    answer(frame, &mut body);
                }
                let back = if answers { &body } else { frame };
                write_frame(link.send_buffer.out(!more, back.len()), more, back);
            }
        }
        link.inbox = inbox;
        let reading = link.send_buffer.unwritten() < limits.max_unread_bytes;
        poll_fn(|cx| link.poll_turn(cx, reading)).await?;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = std::env::args().nth(1).unwrap_or("tcp://127.0.0.1:0".to_owned()).parse()?;
    let answers = match std::env::args().nth(2).as_deref() {
        None => false,
        Some("answer") => true,
        Some(other) => return Err(format!("'{other}': it is `answer`, or nothing").into()),
    };
    let limits = Arc::new(Limits::default());
    let heartbeat = Duration::from_millis(limits.heartbeat_ms);
    let listener = Listener::bind("the first argument", &endpoint, heartbeat).await?;
    println!("listening {}", listener.endpoint());
    let io_threads = IoThreads::start(None, Duration::from_micros(limits.busy_poll_us))?;
    let quota = MemoryQuota::new(&limits);
    let (_keep, stop) = watch::channel(false);
    let slots = ConnectionSlots::new(limits.max_connections, || {});
    listener
        .run(slots, &io_threads, stop, move |stream, slot| {
            let (limits, quota) = (Arc::clone(&limits), Arc::clone(&quota));
            async move {
                let _ = echo(stream, limits, quota, slot, answers).await;
            }
        })
        .await;
    Ok(())
}
