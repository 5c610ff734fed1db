//! Requests that are sent when those before them on the same connection are answered.
//!
//! As many threads as there are cores share the connections, each with a poll of its own: with a
//! thread for each connection, to wake fifty of them took more of the cores that the server runs
//! on than the requests themselves.

use crate::Fallible;
use crate::drive::{Keys, Shared, lock};
use crate::outgoing::Outgoing;
use crate::protocol::Template;
use crate::wire::Wire;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Instant;

/// The load of every connection.
#[derive(Clone)]
pub struct Plan {
    pub template: Template,
    /// How many requests are sent together, and awaited together.
    pub pipeline: u64,
    pub begin: Instant,
    pub end: Instant,
}

/// A connection.
pub struct Looped {
    wire: Wire,
    outgoing: Outgoing,
    keys: Keys,
    /// When the requests were sent that are being answered, and how many of them are.
    sent: Instant,
    answered: u64,
    is_over: bool,
}

impl Looped {
    pub fn new(wire: Wire, keys: Keys) -> Fallible<Self> {
        let outgoing = Outgoing::new(wire.split()?);
        Ok(Looped { wire, outgoing, keys, sent: Instant::now(), answered: 0, is_over: false })
    }

    /// Sends the next requests, if it is not too late for them.
    fn send(&mut self, plan: &Plan) -> Fallible<()> {
        (self.sent, self.answered) = (Instant::now(), 0);
        self.is_over = self.sent >= plan.end;
        if self.is_over {
            return Ok(());
        }
        let (rest, keys) = (&mut self.outgoing.rest, &mut self.keys);
        (0..plan.pipeline).for_each(|_| plan.template.append(rest, keys.next()));
        self.outgoing.flush()
    }

    /// Goes on as far as the socket allows.
    fn go_on(&mut self, plan: &Plan, tally: &Shared) -> Fallible<()> {
        self.outgoing.flush()?;
        let mut tally = lock(tally)?;
        let mut count = 0;
        self.wire.replies_here(|shape| {
            tally.saw(shape);
            count += 1;
            Ok(())
        })?;
        if count == 0 {
            return Ok(());
        }
        tally.took(count, self.sent);
        drop(tally);
        self.answered += count;
        if self.answered == plan.pipeline { self.send(plan) } else { Ok(()) }
    }
}

/// Drives `connections` to the end of the plan.
pub fn run(mut connections: Vec<Looped>, plan: &Plan, tally: &Shared) -> Fallible<()> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(connections.len()));
    for (index, connection) in connections.iter().enumerate() {
        let descriptor = connection.wire.stream().as_raw_fd();
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut SourceFd(&descriptor), Token(index), interest)?;
    }
    thread::sleep(plan.begin.saturating_duration_since(Instant::now()));
    connections.iter_mut().try_for_each(|connection| connection.send(plan))?;
    while !connections.iter().all(|connection| connection.is_over) {
        poll.poll(&mut events, None)?;
        for event in &events {
            if let Some(connection) = connections.get_mut(event.token().0) {
                connection.go_on(plan, tally)?;
            }
        }
    }
    Ok(())
}
