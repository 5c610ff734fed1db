//! Whether a peer is still there and continues its unfinished message. Time is an argument.

use super::closed::Closed;
use super::zmtp::Unfinished;
use crate::net::ConnectionTimeouts;
use std::time::Duration;

/// A peer is gone after this many heartbeats without a byte, once a PING was sent.
const HEARTBEATS: u32 = 3;

/// Events of the peer since the last look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Bytes arrived.
    pub received: bool,
    /// The peer took queued bytes.
    pub wrote: bool,
    /// Queued bytes may be written now.
    pub has_waiting: bool,
    /// The number of unwritten bytes.
    pub unwritten: usize,
    /// The link is read from.
    pub reading: bool,
    /// An unfinished message.
    pub unfinished: Option<Unfinished>,
    /// How long the peer allows itself to be silent.
    pub peer_silence: Option<Duration>,
    /// The peer knows PING (ZMTP 3.1).
    pub knows_ping: bool,
}

/// The state of a peer from one look to the next.
#[derive(Debug, Default)]
pub struct Liveness {
    quiet: Duration,
    stalled: Duration,
    pinged: bool,
    /// Time since the peer was last read from, or got a PING meanwhile.
    unread: Duration,
    message: Option<Begun>,
}

/// An unfinished message.
#[derive(Debug, Clone, Copy)]
struct Begun {
    first: Unfinished,
    last: Unfinished,
    age: Duration,
    /// Time since its last byte.
    paused: Duration,
}

impl Liveness {
    /// Evaluates the events `seen` in the time `since` the last look. Fails for a peer that is to
    /// be cut: it does not read, does not finish a message, or is gone. True when the peer is to
    /// get a PING.
    pub fn look(
        &mut self,
        since: Duration,
        seen: Seen,
        timeouts: &ConnectionTimeouts,
    ) -> Result<bool, Closed> {
        let idle = seen.wrote || !seen.has_waiting;
        self.stalled = if idle { Duration::ZERO } else { self.stalled + since };
        if self.stalled >= timeouts.write {
            return Err(Closed::Stalled);
        }
        self.unread = if seen.reading { Duration::ZERO } else { self.unread + since };
        if self.unread >= timeouts.heartbeat && seen.unwritten == 0 {
            // Its answer is not read. But where a peer is gone, its system answers with a reset,
            // which ends the connection.
            self.unread = Duration::ZERO;
            return Ok(seen.knows_ping);
        }
        if !seen.reading {
            (self.quiet, self.pinged) = (Duration::ZERO, false);
            return Ok(false);
        }
        self.look_at_message(since, seen.unfinished, timeouts)?;
        if seen.received {
            (self.quiet, self.pinged) = (Duration::ZERO, false);
            return Ok(false);
        }
        self.quiet += since;
        let gone = seen.peer_silence.is_some_and(|allowed| self.quiet >= allowed);
        if gone || (self.pinged && self.quiet >= timeouts.heartbeat * HEARTBEATS) {
            return Err(Closed::Silent);
        }
        let is_to_ping = !self.pinged && self.quiet >= timeouts.heartbeat && seen.knows_ping;
        self.pinged |= is_to_ping;
        Ok(is_to_ping)
    }

    /// An unfinished message progresses by its own bytes: PINGs within it do not count.
    fn look_at_message(
        &mut self,
        since: Duration,
        unfinished: Option<Unfinished>,
        timeouts: &ConnectionTimeouts,
    ) -> Result<(), Closed> {
        let Some(now) = unfinished else {
            self.message = None;
            return Ok(());
        };
        let zero = Duration::ZERO;
        let new = Begun { first: now, last: now, age: zero, paused: zero };
        let before = self.message.take().filter(|begun| begun.first.number == now.number);
        let begun = before.map_or(new, |begun| Begun {
            last: now,
            age: begun.age + since,
            paused: if now.received > begun.last.received { zero } else { begun.paused + since },
            ..begun
        });
        self.message = Some(begun);
        let received = now.received.saturating_sub(begun.first.received);
        if begun.paused >= timeouts.write || timeouts.is_message_late(begun.age, received) {
            return Err(Closed::Unfinished);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    const SECOND: Duration = Duration::from_secs(1);

    fn timeouts() -> ConnectionTimeouts {
        ConnectionTimeouts::new(&Limits::default())
    }

    /// How many seconds of looks a peer survives whose events are as `seen` says.
    fn survives(mut seen: impl FnMut(u64) -> Seen) -> (u64, u64, Option<Closed>) {
        let (mut liveness, mut pings) = (Liveness::default(), 0);
        for second in 1..1_000 {
            match liveness.look(SECOND, seen(second), &timeouts()) {
                Ok(is_to_ping) => pings += u64::from(is_to_ping),
                Err(closed) => return (second, pings, Some(closed)),
            }
        }
        (1_000, pings, None)
    }

    fn reading() -> Seen {
        Seen { received: true, reading: true, knows_ping: true, ..Seen::default() }
    }

    #[test]
    fn an_unfinished_message_with_only_pings_is_cut() {
        let unfinished = Some(Unfinished { number: 7, received: 100 });
        let (second, _, closed) = survives(|_| Seen { unfinished, ..reading() });
        assert!(matches!(closed, Some(Closed::Unfinished)) && second == 31);
    }

    #[test]
    fn a_message_that_trickles_is_cut_and_one_that_comes_slowly_is_not() {
        let trickle = |rate: u64| {
            move |second: u64| {
                let unfinished = Some(Unfinished { number: 7, received: second * rate });
                Seen { unfinished, ..reading() }
            }
        };
        assert!(matches!(survives(trickle(1)), (31, _, Some(Closed::Unfinished))));
        let (second, _, closed) = survives(trickle(512));
        assert!(matches!(closed, Some(Closed::Unfinished)) && (55..65).contains(&second));
        assert_eq!(survives(trickle(2_000)).0, 1_000);
    }

    #[test]
    fn a_message_that_pauses_is_cut_however_quickly_it_came_before() {
        let pause = |second: u64| {
            let unfinished = Some(Unfinished { number: 7, received: second.min(10) << 20 });
            Seen { unfinished, ..reading() }
        };
        assert!(matches!(survives(pause), (40, _, Some(Closed::Unfinished))));
    }

    #[test]
    fn bytes_from_before_the_first_look_earn_a_message_no_time() {
        let late = |second: u64| {
            let unfinished = Some(Unfinished { number: 7, received: (50 << 20) + second });
            Seen { unfinished, ..reading() }
        };
        assert!(matches!(survives(late), (31, _, Some(Closed::Unfinished))));
    }

    #[test]
    fn a_peer_gets_a_ping_each_heartbeat_while_reads_are_paused() {
        let unread = Seen { reading: false, ..reading() };
        assert!(matches!(survives(|_| unread), (1_000, 33, None)));
        assert!(matches!(survives(|_| Seen { knows_ping: false, ..unread }), (1_000, 0, None)));
        // Unwritten bytes test as well whether its system answers.
        assert!(matches!(survives(|_| Seen { unwritten: 1, ..unread }), (1_000, 0, None)));
    }

    #[test]
    fn a_peer_whose_reads_always_end_within_a_message_is_not_cut() {
        let busy = |second| {
            let unfinished = Some(Unfinished { number: second, received: second });
            Seen { unfinished, ..reading() }
        };
        assert_eq!(survives(busy).0, 1_000);
        // While the link is not read from, its message cannot progress.
        let unfinished = Some(Unfinished { number: 7, received: 100 });
        assert_eq!(survives(|_| Seen { unfinished, reading: false, ..reading() }).0, 1_000);
    }

    #[test]
    fn a_peer_that_does_not_read_is_cut_and_a_quiet_one_gets_a_ping_first() {
        let stalled = survives(|_| Seen { has_waiting: true, unwritten: 1, ..reading() });
        assert!(matches!(stalled, (30, _, Some(Closed::Stalled))));
        let slow = survives(|_| Seen { has_waiting: true, wrote: true, ..reading() });
        assert_eq!(slow.0, 1_000);
        let silent = survives(|_| Seen { received: false, ..reading() });
        assert!(matches!(silent, (90, 1, Some(Closed::Silent))));
        let old = survives(|_| Seen { received: false, knows_ping: false, ..reading() });
        assert!(matches!(old, (1_000, 0, None)), "TCP keepalive looks after those");
        let peer_silence = Some(5 * SECOND);
        let silent = survives(|_| Seen { received: false, peer_silence, ..reading() });
        assert!(matches!(silent, (5, 0, Some(Closed::Silent))));
    }
}
