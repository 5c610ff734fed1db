//! Requests that are sent when they are due, whether earlier ones are answered or not; their
//! latency counts from when they were due.
//!
//! One thread sends on all connections and one reads from all, so that what is measured is the
//! server: with threads for each connection, a hundred of them waited for the cores that the server
//! was using, and a bare echo took as long as a store.

use crate::Fallible;
use crate::drive::{Keys, Shared, lock};
use crate::protocol::Template;
use crate::wire::Wire;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often the reader looks whether everything has been sent.
const LOOK: Duration = Duration::from_millis(50);

/// What is sent when.
#[derive(Clone, Copy)]
pub struct Pace {
    /// Requests a second, on all connections together.
    pub rate: f64,
    /// How many requests are sent together on one connection.
    pub pipeline: u64,
    pub seconds: f64,
    pub begin: Instant,
}

/// A connection, as its sender sees it.
struct Outgoing {
    stream: TcpStream,
    /// When the requests were due that the reader is to expect.
    due_to: Sender<Instant>,
    /// What the socket had no room for.
    rest: Vec<u8>,
}

/// A connection, as its reader sees it.
struct Incoming {
    wire: Wire,
    due_from: Receiver<Instant>,
    /// How many answers are left of those that were due together, and when that was.
    left: u64,
    due: Instant,
    /// When those after them were due, if that is known already.
    next: Option<Instant>,
}

/// The two threads: one sends, one reads.
pub fn start(
    wires: Vec<Wire>,
    pace: Pace,
    keys: Keys,
    template: Template,
    tally: Shared,
) -> Fallible<Vec<JoinHandle<Fallible<()>>>> {
    let (mut outgoing, mut incoming) = (Vec::new(), Vec::new());
    for wire in wires {
        let (stream, (due_to, due_from)) = (wire.split()?, channel());
        outgoing.push(Outgoing { stream, due_to, rest: Vec::new() });
        incoming.push(Incoming { wire, due_from, left: 0, due: pace.begin, next: None });
    }
    let sender = thread::spawn(move || send(outgoing, pace, keys, &template));
    let reader = thread::spawn(move || read(incoming, pace.pipeline, &tally));
    Ok(vec![sender, reader])
}

fn send(
    mut connections: Vec<Outgoing>,
    pace: Pace,
    mut keys: Keys,
    template: &Template,
) -> Fallible<()> {
    let interval = pace.pipeline as f64 / pace.rate;
    let (mut turn, mut requests) = (0_u32, Vec::new());
    while interval * f64::from(turn) <= pace.seconds {
        let due = pace.begin + Duration::from_secs_f64(interval * f64::from(turn));
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let place = turn as usize % connections.len();
        if let Some(connection) = connections.get_mut(place) {
            requests.clear();
            (0..pace.pipeline).for_each(|_| template.append(&mut requests, keys.next()));
            connection.due_to.send(due)?;
            connection.send(&requests)?;
        }
        turn += 1;
        for connection in connections.iter_mut().filter(|connection| !connection.rest.is_empty()) {
            connection.send(&[])?;
        }
    }
    while connections.iter().any(|connection| !connection.rest.is_empty()) {
        connections.iter_mut().try_for_each(|connection| connection.send(&[]))?;
        thread::yield_now();
    }
    Ok(())
}

impl Outgoing {
    /// Writes what was left and `more`, as far as the socket takes it.
    fn send(&mut self, more: &[u8]) -> Fallible<()> {
        if self.rest.is_empty() {
            let written = write(&mut self.stream, more)?;
            self.rest.extend_from_slice(more.get(written..).unwrap_or_default());
        } else {
            self.rest.extend_from_slice(more);
            let written = write(&mut self.stream, &self.rest)?;
            self.rest.drain(..written);
        }
        Ok(())
    }
}

/// Returns how much the socket took.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> Fallible<usize> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(written)
}

fn read(mut connections: Vec<Incoming>, pipeline: u64, tally: &Shared) -> Fallible<()> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(connections.len()));
    for (index, connection) in connections.iter().enumerate() {
        let descriptor = connection.wire.stream().as_raw_fd();
        poll.registry().register(&mut SourceFd(&descriptor), Token(index), Interest::READABLE)?;
    }
    loop {
        poll.poll(&mut events, Some(LOOK))?;
        for event in &events {
            if let Some(connection) = connections.get_mut(event.token().0) {
                connection.take(pipeline, tally)?;
            }
        }
        if events.is_empty() && connections.iter_mut().all(Incoming::is_done) {
            return Ok(());
        }
    }
}

impl Incoming {
    /// Takes the answers that are here.
    fn take(&mut self, pipeline: u64, tally: &Shared) -> Fallible<()> {
        let Self { wire, due_from, left, due, next } = self;
        let mut tally = lock(tally)?;
        let mut count = 0;
        wire.replies_here(|shape| {
            if *left == 0 {
                let since = next.take().map_or_else(|| due_from.recv(), Ok)?;
                (*left, *due) = (pipeline, since);
            }
            tally.saw(shape);
            (*left, count) = (*left - 1, count + 1);
            if *left == 0 {
                tally.took(std::mem::take(&mut count), *due);
            }
            Ok(())
        })?;
        if count > 0 {
            tally.took(count, *due);
        }
        Ok(())
    }

    /// Whether everything was sent, and is answered.
    fn is_done(&mut self) -> bool {
        if self.left > 0 || self.next.is_some() {
            return false;
        }
        match self.due_from.try_recv() {
            Ok(due) => self.next = Some(due),
            Err(error) => return error == TryRecvError::Disconnected,
        }
        false
    }
}
