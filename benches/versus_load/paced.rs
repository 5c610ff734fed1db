//! Requests that are sent when they are due, whether earlier ones are answered or not; their
//! latency counts from when they were due.
//!
//! One thread sends on all connections and one reads from all: with threads for each connection, a
//! hundred of them waited for the cores that the server was using, and a bare echo took as long as
//! a store.

use crate::Fallible;
use crate::drive::{Keys, Shared, lock};
use crate::outgoing::Outgoing;
use crate::protocol::Template;
use crate::wire::Wire;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::os::fd::AsRawFd;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The schedule of the requests.
#[derive(Clone, Copy)]
pub struct Pace {
    /// Requests a second, on all connections together.
    pub rate: f64,
    /// How many requests are sent together on one connection.
    pub pipeline: u64,
    pub seconds: f64,
    pub begin: Instant,
}

impl Pace {
    /// How many turns there are; a turn sends on one connection, on the next one the next.
    fn turns(&self) -> usize {
        (self.seconds * self.rate / self.pipeline as f64) as usize + 1
    }

    fn due(&self, turn: usize) -> Instant {
        let seconds = turn as f64 * self.pipeline as f64 / self.rate;
        self.begin + Duration::from_secs_f64(seconds)
    }
}

/// A connection, as its reader sees it.
struct Incoming {
    wire: Wire,
    /// The turn whose requests are answered next.
    turn: usize,
    /// How many of that turn's requests are answered.
    answered: u64,
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
    for (turn, wire) in wires.into_iter().enumerate() {
        outgoing.push(Outgoing::new(wire.split()?));
        incoming.push(Incoming { wire, turn, answered: 0 });
    }
    let sender = thread::spawn(move || send(outgoing, pace, keys, &template));
    let reader = thread::spawn(move || read(incoming, pace, &tally));
    Ok(vec![sender, reader])
}

fn send(
    mut connections: Vec<Outgoing>,
    pace: Pace,
    mut keys: Keys,
    template: &Template,
) -> Fallible<()> {
    for turn in 0..pace.turns() {
        thread::sleep(pace.due(turn).saturating_duration_since(Instant::now()));
        let place = turn % connections.len();
        if let Some(connection) = connections.get_mut(place) {
            let rest = &mut connection.rest;
            (0..pace.pipeline).for_each(|_| template.append(rest, keys.next()));
        }
        connections.iter_mut().try_for_each(Outgoing::flush)?;
    }
    while connections.iter().any(|connection| !connection.rest.is_empty()) {
        connections.iter_mut().try_for_each(Outgoing::flush)?;
        thread::yield_now();
    }
    Ok(())
}

fn read(mut connections: Vec<Incoming>, pace: Pace, tally: &Shared) -> Fallible<()> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(connections.len()));
    for (index, connection) in connections.iter().enumerate() {
        let descriptor = connection.wire.stream().as_raw_fd();
        poll.registry().register(&mut SourceFd(&descriptor), Token(index), Interest::READABLE)?;
    }
    let step = connections.len();
    while connections.iter().any(|connection| connection.turn < pace.turns()) {
        poll.poll(&mut events, None)?;
        for event in &events {
            if let Some(connection) = connections.get_mut(event.token().0) {
                connection.take(pace, step, tally)?;
            }
        }
    }
    Ok(())
}

impl Incoming {
    /// Takes the answers that are here. This connection has every `step`th turn.
    fn take(&mut self, pace: Pace, step: usize, tally: &Shared) -> Fallible<()> {
        let Self { wire, turn, answered } = self;
        let mut tally = lock(tally)?;
        let mut count = 0;
        wire.replies_here(|shape| {
            tally.saw(shape);
            count += 1;
            if *answered + count == pace.pipeline {
                tally.took(count, pace.due(*turn));
                (*turn, *answered, count) = (*turn + step, 0, 0);
            }
            Ok(())
        })?;
        if count > 0 {
            tally.took(count, pace.due(*turn));
            *answered += count;
        }
        Ok(())
    }
}
