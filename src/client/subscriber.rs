//! A connection to a `--publisher` endpoint: receives changes, and detects missing ones.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use zeromq::prelude::{Socket, SocketRecv, SocketSend};
use zeromq::{SocketOptions, XSubSocket, ZmqMessage};

use super::change::{self, Change, Publication};
use super::connection::{ClientOptions, Events, connect_socket};
use super::{ClientError, Endpoint};

/// The topic of the publisher's heartbeat; a subscription to it makes silence detectable.
const BEAT: &[u8] = b"\xffbeat";

/// The pause between two tries to reach an unreachable publisher.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest wait, as a multiple of [`ClientOptions::beat_timeout`].
const PATIENCE_MAX: u32 = 64;
/// How long received data may take to be read. After a long pause of the caller, the next beat is
/// already overdue.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// An event of a subscription.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A change of a key.
    Change(Change),
    /// Nothing was missed up to this sequence number. This comes each second.
    Beat {
        /// The last published sequence number.
        seq: u64,
    },
    /// Changes after `after` up to and with `through` may have been missed.
    Gap {
        /// The last sequence number that was seen.
        after: u64,
        /// The last sequence number that may be missing.
        through: u64,
    },
    /// The connection ended; the subscriber reconnects by itself.
    Disconnected,
    /// The connection was made again.
    Reconnected,
}

/// A subscription to the changes under a key prefix.
///
/// Each publication names the previous one that was sent to this subscriber. So missing ones are
/// detected, and reported as an [`Event::Gap`] before the change that revealed them.
///
/// When a connection ends, or receives not even a beat for [`ClientOptions::beat_timeout`], the
/// subscriber reconnects, for as long as that takes. After each such silence the timeout doubles,
/// until something arrives: a large value may be in transit, and no beat can overtake it.
///
/// ```no_run
/// use vatn::client::{ClientError, ClientOptions, Event, Subscriber};
///
/// async fn watch() -> Result<(), ClientError> {
///     let options = ClientOptions::default();
///     let mut boats = Subscriber::connect("tcp://127.0.0.1:7534", b"boat:", &options).await?;
///     loop {
///         match boats.next().await? {
///             Event::Change(change) => println!("{} {}", change.seq, change.key.escape_ascii()),
///             Event::Gap { after, through } => println!("missed: {after} to {through}"),
///             Event::Beat { .. } | Event::Disconnected | Event::Reconnected => {}
///         }
///     }
/// }
/// ```
pub struct Subscriber {
    endpoint: Endpoint,
    address: String,
    prefix: Vec<u8>,
    options: ClientOptions,
    /// `None` while reconnecting. The crate would reconnect by itself, with pauses of up to half a
    /// minute and no timeout for a try that hangs, and never when the end of the connection goes
    /// unnoticed.
    link: Option<Link>,
    continuity: Continuity,
    ready: VecDeque<Event>,
    /// The current factor of the beat timeout.
    patience: u32,
}

/// A connection with its subscriptions.
struct Link {
    // XSUB is SUB with the subscriptions as messages: SUB's own call takes only UTF-8.
    socket: XSubSocket,
    events: Events,
    /// The time of the last message.
    received: Instant,
}

impl Subscriber {
    /// Connects to a publisher endpoint and subscribes to the keys that begin with `prefix`.
    ///
    /// The first [`Event::Beat`] shows that the subscription has taken effect.
    pub async fn connect(
        endpoint: &str,
        prefix: &[u8],
        options: &ClientOptions,
    ) -> Result<Self, ClientError> {
        Self::begin(endpoint, prefix, options, Continuity::default()).await
    }

    /// Like `connect`, where everything up to `after` is known already: changes published between
    /// `after` and the subscription appear as an [`Event::Gap`].
    pub async fn connect_after(
        endpoint: &str,
        prefix: &[u8],
        options: &ClientOptions,
        after: u64,
    ) -> Result<Self, ClientError> {
        Self::begin(endpoint, prefix, options, Continuity::after(after)).await
    }

    async fn begin(
        endpoint: &str,
        prefix: &[u8],
        options: &ClientOptions,
        continuity: Continuity,
    ) -> Result<Self, ClientError> {
        let endpoint = Endpoint::to_connect(endpoint)?;
        let link = Some(Link::open(&endpoint, prefix, options).await?);
        let (address, options) = (endpoint.to_string(), options.clone());
        let (prefix, ready, patience) = (prefix.to_vec(), VecDeque::new(), 1);
        Ok(Subscriber { endpoint, address, prefix, options, link, continuity, ready, patience })
    }

    /// The endpoint this subscriber is connected to.
    pub fn endpoint(&self) -> &str {
        &self.address
    }

    /// Waits for the next event.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let Some(link) = &mut self.link else {
                match Link::open(&self.endpoint, &self.prefix, &self.options).await {
                    Ok(link) => self.link = Some(link),
                    Err(_) => {
                        sleep(PAUSE).await;
                        continue;
                    }
                }
                return Ok(Event::Reconnected);
            };
            match link.hear(self.options.beat_timeout * self.patience).await {
                Some(message) => {
                    self.patience = 1;
                    self.take(&message.into_vec())?;
                }
                None => {
                    self.patience = (self.patience * 2).min(PATIENCE_MAX);
                    self.link = None;
                    self.continuity.cut();
                    return Ok(Event::Disconnected);
                }
            }
        }
    }

    fn take(&mut self, frames: &[Bytes]) -> Result<(), ClientError> {
        let publication = change::decode(frames).map_err(|reason| ClientError::Protocol {
            endpoint: self.address.clone(),
            reason: reason.to_owned(),
        })?;
        self.continuity.follow(publication, &mut self.ready);
        Ok(())
    }
}

impl Link {
    async fn open(
        endpoint: &Endpoint,
        prefix: &[u8],
        options: &ClientOptions,
    ) -> Result<Self, ClientError> {
        let mut socket_options = SocketOptions::default();
        socket_options.connect_timeout(options.connect_timeout);
        let mut socket = XSubSocket::with_options(socket_options);
        let events = Events(Box::new(socket.monitor()));
        connect_socket(&mut socket, endpoint, options.connect_timeout).await?;
        let closed = || ClientError::Closed { endpoint: endpoint.to_string() };
        // The beat last: its first message shows that both subscriptions have taken effect.
        for topic in [prefix, BEAT] {
            let frame = [&[1], topic].concat();
            socket.send(ZmqMessage::from(frame)).await.map_err(|_| closed())?;
        }
        Ok(Link { socket, events, received: Instant::now() })
    }

    /// Waits for the next message; `None` when the connection has ended, or counts as dead.
    async fn hear(&mut self, beat_timeout: Duration) -> Option<ZmqMessage> {
        loop {
            let message = tokio::select! {
                biased;
                message = self.socket.recv() => message,
                () = self.events.disconnected() => return None,
                () = sleep_until(self.received + beat_timeout) => {
                    timeout(LAST_LOOK, self.socket.recv()).await.ok()?
                }
            };
            // The socket reports its own end as an error or an event; the event is enough.
            if let Ok(message) = message {
                self.received = Instant::now();
                return Some(message);
            }
        }
    }
}

/// Follows the chain of `prev`, and reports where it is broken.
#[derive(Debug, Default)]
struct Continuity {
    /// The last sequence number up to which nothing is missing, once it is known.
    last: Option<u64>,
    /// The last write, while more of its changes may follow.
    open: Option<u64>,
    /// The write that was open when the connection ended: the next write's `prev` does not tell
    /// whether its changes were complete.
    torn: Option<u64>,
}

impl Continuity {
    fn after(last: u64) -> Self {
        Continuity { last: Some(last), ..Continuity::default() }
    }

    /// The connection ended.
    fn cut(&mut self) {
        self.torn = self.open.take().or(self.torn);
    }

    fn follow(&mut self, publication: Publication, ready: &mut VecDeque<Event>) {
        let prev = publication.prev();
        let expected = *self.last.get_or_insert(prev);
        // A restarted broker can only have lost writes that no client was shown.
        let after = match self.torn.take() {
            Some(torn) if prev >= torn => torn.saturating_sub(1),
            _ => expected,
        };
        if prev != after {
            ready.push_back(Event::Gap { after, through: prev });
        }
        self.open = None;
        match publication {
            Publication::Change(change) => {
                self.last = Some(change.seq);
                self.open = (change.index + 1 < change.count).then_some(change.seq);
                ready.push_back(Event::Change(change));
            }
            // A beat is not part of the chain: the next change's `prev` does not name it.
            Publication::Beat { seq, prev } => {
                self.last = Some(prev);
                ready.push_back(Event::Beat { seq });
            }
            Publication::Lost { seq, prev } => {
                self.last = Some(seq);
                ready.push_back(Event::Gap { after: prev, through: seq });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::change::tests::change;

    fn follow(continuity: &mut Continuity, publication: Publication) -> Vec<Event> {
        let mut ready = VecDeque::new();
        continuity.follow(publication, &mut ready);
        ready.into()
    }

    #[test]
    fn an_unbroken_chain_shows_no_gap() {
        let mut continuity = Continuity::default();
        for (seq, prev) in [(5, 3), (6, 5), (6, 6), (9, 6)] {
            let events = follow(&mut continuity, Publication::Change(change(seq, prev)));
            assert_eq!(events, [Event::Change(change(seq, prev))]);
        }
        let beat = Publication::Beat { seq: 20, prev: 9 };
        assert_eq!(follow(&mut continuity, beat), [Event::Beat { seq: 20 }]);
        let after = follow(&mut continuity, Publication::Change(change(21, 9)));
        assert_eq!(after.len(), 1);
    }

    #[test]
    fn a_broken_chain_shows_what_may_be_missing() {
        let mut continuity = Continuity::default();
        follow(&mut continuity, Publication::Change(change(5, 4)));
        let events = follow(&mut continuity, Publication::Change(change(9, 8)));
        assert_eq!(events, [Event::Gap { after: 5, through: 8 }, Event::Change(change(9, 8))]);
    }

    #[test]
    fn a_beat_reveals_a_gap_too() {
        let mut continuity = Continuity::default();
        follow(&mut continuity, Publication::Change(change(5, 4)));
        let events = follow(&mut continuity, Publication::Beat { seq: 8, prev: 7 });
        assert_eq!(events, [Event::Gap { after: 5, through: 7 }, Event::Beat { seq: 8 }]);
    }

    #[test]
    fn the_rest_of_a_write_may_be_missing_when_the_connection_ends_within_it() {
        let part = |index| Publication::Change(Change { index, count: 3, ..change(5, 4) });
        let next = || Publication::Change(change(6, 5));
        let whole = Event::Change(change(6, 5));
        for (last_part, expected) in [
            (0, vec![Event::Gap { after: 4, through: 5 }, whole.clone()]),
            (2, vec![whole.clone()]),
        ] {
            let mut continuity = Continuity::after(4);
            follow(&mut continuity, part(last_part));
            continuity.cut();
            continuity.cut();
            assert_eq!(follow(&mut continuity, next()), expected);
        }
        let mut continuity = Continuity::after(4);
        follow(&mut continuity, part(0));
        continuity.cut();
        let beat = Publication::Beat { seq: 2, prev: 2 };
        let another = [Event::Gap { after: 5, through: 2 }, Event::Beat { seq: 2 }];
        assert_eq!(follow(&mut continuity, beat), another);
    }

    #[test]
    fn changes_that_the_publisher_dropped_are_one_gap() {
        let mut continuity = Continuity::default();
        follow(&mut continuity, Publication::Change(change(5, 4)));
        let events = follow(&mut continuity, Publication::Lost { seq: 90, prev: 5 });
        assert_eq!(events, [Event::Gap { after: 5, through: 90 }]);
        assert_eq!(follow(&mut continuity, Publication::Change(change(91, 90))).len(), 1);
    }
}
