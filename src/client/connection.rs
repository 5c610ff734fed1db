//! A connection to a `--router` endpoint: sends requests, and matches replies by their id.

use std::collections::HashMap;
use std::error::Error;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use zeromq::prelude::{Socket, SocketRecv, SocketSend};
use zeromq::{DealerSocket, SocketEvent, SocketOptions, ZmqError, ZmqMessage};

use super::error::Refusal;
use super::raw_value::RawValue;
use super::request::Request;
use super::{ClientError, Endpoint, reply};

/// How long the zeromq crate may try before the endpoint is probed for the reason: the crate
/// retries a refused connection silently, and a running broker has answered by then.
const PROBE_AFTER: Duration = Duration::from_millis(40);

/// A message of at most this many bytes is below the limit of every broker.
const EVERY_BROKER_TAKES: u64 = 1000;

/// The timeouts of a client.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// How long connecting and the handshake may take together.
    pub connect_timeout: Duration,
    /// How long a reply may take; `None` waits as long as the connection lives.
    pub reply_timeout: Option<Duration>,
    /// How long a publisher may be silent before its connection counts as dead and is made anew. A
    /// publisher sends a beat each second.
    pub beat_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            connect_timeout: Duration::from_secs(5),
            reply_timeout: Some(Duration::from_secs(30)),
            beat_timeout: Duration::from_secs(5),
        }
    }
}

/// A connection to a broker's command endpoint.
///
/// The client does not reconnect: after [`ClientError::Closed`] it is not known whether an
/// unanswered write took place, and only the caller can decide what to do.
///
/// Each command has a method. [`Client::call_many`] sends many requests in one message. With
/// [`Client::send`] and [`Client::receive`] several messages are in flight at once:
///
/// ```no_run
/// use vatn::client::{Client, ClientError, RawValue, Request};
///
/// async fn two_at_once(client: &mut Client) -> Result<(), ClientError> {
///     let first = client.send(&[Request::new("get").key(b"a")]).await?;
///     let second = client.send(&[Request::new("get").key(b"b")]).await?;
///     let mut outcomes = client.receive(first).await?;
///     outcomes.extend(client.receive(second).await?);
///     for outcome in outcomes {
///         match outcome {
///             Ok(value) => println!("{}", value.value()),
///             Err(refusal) => println!("refused: {refusal}"),
///         }
///     }
///     // No reply, and no error when it fails.
///     client.notify(&Request::new("set").key(b"seen").argument(&RawValue::from(true))).await
/// }
/// ```
pub struct Client {
    endpoint: String,
    socket: DealerSocket,
    events: Events,
    next_id: u64,
    /// Requests that were sent and not yet returned to the caller, with the reply once it has
    /// arrived.
    outstanding: HashMap<u64, Option<Result<RawValue, Refusal>>>,
    pub(super) reply_timeout: Option<Duration>,
    /// The largest message that the broker accepts, once it is known.
    message_bytes: Option<u64>,
}

/// A ticket for a message of requests that was sent; [`Client::receive`] exchanges the ticket for
/// the replies.
#[derive(Debug)]
#[must_use = "a ticket that is not received leaves its replies unread"]
pub struct Ticket {
    first_id: u64,
    count: u64,
}

impl Client {
    /// Connects to `tcp://HOST:PORT` or `ipc://PATH`.
    pub async fn connect(endpoint: &str, options: &ClientOptions) -> Result<Self, ClientError> {
        let endpoint = Endpoint::to_connect(endpoint)?;
        let mut socket_options = SocketOptions::default();
        socket_options.connect_timeout(options.connect_timeout);
        let mut socket = DealerSocket::with_options(socket_options);
        let events = Events(Box::new(socket.monitor()));
        connect_socket(&mut socket, &endpoint, options.connect_timeout).await?;
        Ok(Client {
            endpoint: endpoint.to_string(),
            socket,
            events,
            next_id: 0,
            outstanding: HashMap::new(),
            reply_timeout: options.reply_timeout,
            message_bytes: None,
        })
    }

    /// The largest message that the broker accepts, in bytes. The client requests it once.
    pub async fn message_bytes(&mut self) -> Result<u64, ClientError> {
        if let Some(bytes) = self.message_bytes {
            return Ok(bytes);
        }
        let ticket = Ticket { first_id: self.next_id, count: 1 };
        self.next_id += 1;
        // Not by `send`, which needs the result of this call.
        self.send_frames(vec![Request::new("hello").encode(ticket.first_id)]).await?;
        self.outstanding.insert(ticket.first_id, None);
        let outcome = self.receive(ticket).await?.pop();
        let hello = outcome.ok_or_else(|| self.protocol("a message without replies"))??.value();
        let bytes = hello["limits"]["message_bytes"].as_u64().unwrap_or(u64::MAX);
        self.message_bytes = Some(bytes);
        Ok(bytes)
    }

    /// Fails when the broker would not accept a message of these frames: the broker would close the
    /// connection, or leave the sender waiting.
    async fn check_size(&mut self, frames: &[Bytes]) -> Result<(), ClientError> {
        let bytes: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
        if bytes <= EVERY_BROKER_TAKES {
            return Ok(());
        }
        let most = self.message_bytes().await?;
        if bytes <= most {
            return Ok(());
        }
        Err(ClientError::TooLarge { endpoint: self.endpoint.clone(), bytes, most })
    }

    /// The endpoint this client is connected to.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Sends one request and waits for its result.
    pub async fn call(&mut self, request: &Request) -> Result<RawValue, ClientError> {
        self.call_within(self.reply_timeout, request).await
    }

    /// Like `call`, with its own timeout.
    pub(super) async fn call_within(
        &mut self,
        limit: Option<Duration>,
        request: &Request,
    ) -> Result<RawValue, ClientError> {
        let ticket = self.send(std::slice::from_ref(request)).await?;
        match self.receive_within(limit, ticket).await?.pop() {
            Some(outcome) => Ok(outcome?),
            None => Err(self.protocol("a message without replies")),
        }
    }

    /// Sends many requests in one message and waits for all outcomes, in the requests' order.
    pub async fn call_many(
        &mut self,
        requests: &[Request],
    ) -> Result<Vec<Result<RawValue, Refusal>>, ClientError> {
        let ticket = self.send(requests).await?;
        self.receive(ticket).await
    }

    /// Sends requests in one message without waiting, so that several messages can be in flight.
    ///
    /// The caller limits how many: sent requests are kept in memory until they are received.
    pub async fn send(&mut self, requests: &[Request]) -> Result<Ticket, ClientError> {
        let first_id = self.next_id;
        let mut frames = Vec::with_capacity(requests.len());
        for request in requests {
            frames.push(request.encode(self.next_id));
            self.next_id += 1;
        }
        let ticket = Ticket { first_id, count: self.next_id - first_id };
        self.check_size(&frames).await?;
        self.send_frames(frames).await?;
        // Created afterwards: a caller that cancels the send has no ticket.
        self.outstanding.extend(ticket.ids().map(|id| (id, None)));
        Ok(ticket)
    }

    /// Waits for the replies of a message that was sent.
    pub async fn receive(
        &mut self,
        ticket: Ticket,
    ) -> Result<Vec<Result<RawValue, Refusal>>, ClientError> {
        self.receive_within(self.reply_timeout, ticket).await
    }

    async fn receive_within(
        &mut self,
        limit: Option<Duration>,
        ticket: Ticket,
    ) -> Result<Vec<Result<RawValue, Refusal>>, ClientError> {
        let waiting = Waiting { client: self, ids: ticket.ids() };
        let ids = waiting.ids.clone();
        let Some(limit) = limit else {
            return waiting.client.await_replies(ids).await;
        };
        let received = tokio::time::timeout(limit, waiting.client.await_replies(ids)).await;
        let endpoint = || waiting.client.endpoint.clone();
        received
            .unwrap_or_else(|_| Err(ClientError::Timeout { endpoint: endpoint(), after: limit }))
    }

    /// Sends a write without a reply, even when it fails.
    ///
    /// Requests of one connection are executed in order, so the reply to a later call shows that
    /// the notification has been executed too.
    pub async fn notify(&mut self, request: &Request) -> Result<(), ClientError> {
        let frames = vec![request.encode_notification()];
        self.check_size(&frames).await?;
        self.send_frames(frames).await
    }

    async fn send_frames(&mut self, frames: Vec<Bytes>) -> Result<(), ClientError> {
        // A message without frames requests nothing, and ZeroMQ cannot send it.
        let Ok(message) = ZmqMessage::try_from(frames) else { return Ok(()) };
        self.socket.send(message).await.map_err(|_| self.closed())
    }

    async fn await_replies(
        &mut self,
        ids: Range<u64>,
    ) -> Result<Vec<Result<RawValue, Refusal>>, ClientError> {
        let mut outcomes = Vec::new();
        for id in ids {
            loop {
                match self.outstanding.get_mut(&id).map(Option::take) {
                    Some(Some(outcome)) => {
                        self.outstanding.remove(&id);
                        outcomes.push(outcome);
                        break;
                    }
                    Some(None) => self.read_message().await?,
                    None => return Err(self.protocol("a reply that was given up")),
                }
            }
        }
        Ok(outcomes)
    }

    async fn read_message(&mut self) -> Result<(), ClientError> {
        let message = tokio::select! {
            biased;
            message = self.socket.recv() => message.map_err(|_| self.closed())?,
            () = self.events.disconnected() => return Err(self.closed()),
        };
        for frame in message.iter() {
            let reply = reply::decode(frame).map_err(|reason| self.protocol(reason))?;
            let Some(id) = reply.id else {
                return Err(match reply.outcome {
                    Err(refusal) => refusal.into(),
                    Ok(_) => self.protocol("a result without an id"),
                });
            };
            // A reply that no caller waits for is skipped.
            if let Some(place) = self.outstanding.get_mut(&id) {
                *place = Some(reply.outcome);
            }
        }
        Ok(())
    }

    fn closed(&self) -> ClientError {
        ClientError::Closed { endpoint: self.endpoint.clone() }
    }

    pub(super) fn protocol(&self, reason: impl Into<String>) -> ClientError {
        ClientError::Protocol { endpoint: self.endpoint.clone(), reason: reason.into() }
    }
}

impl Ticket {
    fn ids(&self) -> Range<u64> {
        self.first_id..self.first_id + self.count
    }
}

/// Requests whose replies are awaited. When the wait ends, in time or not, missing replies are no
/// longer wanted.
struct Waiting<'c> {
    client: &'c mut Client,
    ids: Range<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        for id in self.ids.clone() {
            self.client.outstanding.remove(&id);
        }
    }
}

/// Connects a socket; a refusal is reported at once instead of retried until the timeout.
pub(super) async fn connect_socket(
    socket: &mut impl Socket,
    endpoint: &Endpoint,
    patience: Duration,
) -> Result<(), ClientError> {
    let address = endpoint.to_string();
    let unreachable = async {
        tokio::time::sleep(PROBE_AFTER).await;
        match endpoint.open(patience).await {
            Err(error) => error,
            // A process listens there, so only the handshake's own timeout can end the attempt.
            Ok(_) => std::future::pending().await,
        }
    };
    let failure = tokio::select! {
        biased;
        connected = socket.connect(&address) => match connected {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        },
        error = unreachable => return Err(error),
    };
    Err(match failure {
        ZmqError::Network(error) => endpoint.unreachable(error),
        other if has_ended(&other) => ClientError::Closed { endpoint: address },
        other => ClientError::NoHandshake { endpoint: address, reason: handshake_reason(&other) },
    })
}

/// Whether the connection ended during the handshake, as it does when a broker is killed then:
/// another try may succeed.
fn has_ended(failure: &ZmqError) -> bool {
    match failure {
        ZmqError::Codec(error) => {
            error.source().is_some_and(|source| source.is::<std::io::Error>())
        }
        ZmqError::Other(reason) => {
            ["Failed Greeting exchange", "No reply from server"].contains(reason)
        }
        _ => false,
    }
}

fn handshake_reason(failure: &ZmqError) -> String {
    match failure {
        ZmqError::ConnectTimeout(after) => {
            format!("no ZeroMQ handshake within {after:?}; is this the HTTP port?")
        }
        ZmqError::Codec(_) => "it does not speak ZeroMQ; is this the HTTP port?".to_owned(),
        ZmqError::Other("Provided sockets combination is not compatible") => {
            "it is another kind of ZeroMQ socket; commands go to a --router endpoint, \
             changes come from a --publisher endpoint"
                .to_owned()
        }
        other => other.to_string(),
    }
}

/// The zeromq crate's reports about the connection.
pub(super) struct Events(
    pub(super) Box<dyn futures_util::Stream<Item = SocketEvent> + Send + Unpin>,
);

impl Events {
    /// Returns when the connection has ended.
    pub(super) async fn disconnected(&mut self) {
        while let Some(event) = self.0.next().await {
            if matches!(event, SocketEvent::Disconnected(_)) {
                return;
            }
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use zeromq::RouterSocket;

    #[tokio::test]
    async fn a_connection_that_ends_during_the_handshake_may_be_tried_again() {
        for greeting in [0, 64] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
            let ending = tokio::spawn(async move {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut read = vec![0; greeting];
                socket.read_exact(&mut read).await.unwrap();
            });
            let connected = Client::connect(&endpoint, &ClientOptions::default()).await;
            let error = connected.err().unwrap();
            assert!(error.is_passing(), "after {greeting} bytes: {error}");
            ending.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_dropped_call_leaves_no_pending_request() {
        let mut silent = RouterSocket::new();
        let endpoint = silent.bind("tcp://127.0.0.1:0").await.unwrap().to_string();
        let mut client = Client::connect(&endpoint, &ClientOptions::default()).await.unwrap();
        let ping = Request::new("ping");
        tokio::select! {
            biased;
            answered = client.call(&ping) => panic!("{answered:?}"),
            // The call now waits for its reply.
            request = silent.recv() => assert_eq!(request.unwrap().len(), 2),
        }
        assert!(client.outstanding.is_empty());
    }
}
