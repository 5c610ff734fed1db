//! ZMTP: bytes in, messages out.
//!
//! The only file that names omq-proto, so that it can be replaced. Its sans-IO connection does the
//! greeting and the security handshake, and it reads and writes commands. Frames are ours: a
//! command may come between two frames of a message (libzmq sends its PINGs there) and leaves that
//! message unchanged, and every bound is checked before anything is kept. The usual messages take a
//! shorter way: see `single_frame`.

use super::frame_reader::{COMMAND, FrameReader, Head, LONG, Step};
use super::single_frame;
use crate::limits::Limits;
use bytes::{Bytes, BytesMut};
use omq_proto::SocketType;
use omq_proto::proto::{Command, Connection, ConnectionConfig, Role, command};
use std::time::Duration;

pub use super::bounds::{Bounds, Violation};
pub use super::inbox::{Inbox, Message, Signal};

/// Every ZMTP 3 greeting is this long; frames follow.
const GREETING_BYTES: usize = 64;
/// The longest command before the handshake is done; honest ones have a few hundred bytes.
const HANDSHAKE_BYTES: usize = 8 * 1024;
/// The most that is kept of a command other than a subscription: the longest answered one is PING.
const COMMAND_BYTES: usize = 512;

/// Our socket type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Speaks with REQ and DEALER.
    Router,
    /// Speaks with SUB and XSUB.
    Publisher,
}

impl From<omq_proto::Error> for Violation {
    fn from(error: omq_proto::Error) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// The length of a short frame's head.
const HEAD_BYTES_MIN: u64 = 2;

/// One peer's protocol state.
#[derive(Debug)]
pub struct Codec {
    kind: Kind,
    bounds: Bounds,
    /// The handshake.
    connection: Connection,
    is_ready: bool,
    greeting_left: usize,
    reader: FrameReader,
    /// The unfinished frame.
    head: Head,
    /// An unfinished command, as far as it may matter.
    command: Vec<u8>,
    /// How long the peer allows itself to be silent after its last PING, if that came last.
    peer_silence: Option<Duration>,
    /// All bytes of messages received; those of commands do not count.
    received: u64,
    /// How many messages, and commands between two messages, have begun.
    begun: u64,
    /// All bytes of messages and subscriptions received, heads included: the peer's requests.
    requested_bytes: u64,
}

/// An unfinished message or command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfinished {
    /// Distinguishes it from other messages.
    pub number: u64,
    /// How many bytes of messages the connection has received.
    pub received: u64,
}

impl Codec {
    /// Returns the server's side of a connection, its greeting already queued.
    pub fn new(kind: Kind, limits: &Limits) -> Self {
        let socket_type = match kind {
            Kind::Router => SocketType::Router,
            Kind::Publisher => SocketType::Pub,
        };
        let mut connection = Connection::new(ConnectionConfig::new(Role::Server, socket_type));
        connection.set_input_budget(true);
        Self {
            kind,
            bounds: Bounds { bytes: limits.max_message_bytes, frames: limits.max_frames },
            connection,
            is_ready: false,
            greeting_left: GREETING_BYTES,
            reader: FrameReader::default(),
            head: Head { is_command: false, has_more: false, len: 0 },
            command: Vec::new(),
            peer_silence: None,
            received: 0,
            begun: 0,
            requested_bytes: 0,
        }
    }

    /// Whether the handshake is done.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Whether the peer knows PING (ZMTP 3.1).
    pub fn peer_knows_ping(&self) -> bool {
        self.is_ready && self.connection.peer_minor() >= 1
    }

    /// How long the peer allows itself to be silent after its last PING, if it sent nothing since.
    pub fn peer_silence(&self) -> Option<Duration> {
        self.peer_silence
    }

    /// The unfinished message or command.
    pub fn unfinished(&self, inbox: &Inbox) -> Option<Unfinished> {
        let is_unfinished = inbox.is_open() || !self.reader.is_between_frames();
        is_unfinished.then_some(Unfinished { number: self.begun, received: self.received })
    }

    /// How many bytes of messages and subscriptions the peer has sent: a PING and an unknown
    /// command do not count.
    pub fn requested_bytes(&self) -> u64 {
        self.requested_bytes
    }

    /// The number of bytes allocated.
    pub fn held(&self) -> usize {
        self.command.capacity()
    }

    /// Processes bytes that were read. Completed messages are appended to `inbox`; greeting,
    /// handshake and PONG for the peer are appended to `replies`.
    pub fn feed(
        &mut self,
        mut input: &[u8],
        inbox: &mut Inbox,
        replies: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        if self.greeting_left > 0 {
            let (greeting, rest) = input.split_at(self.greeting_left.min(input.len()));
            self.greeting_left -= greeting.len();
            input = rest;
            self.shake_hands(greeting, replies)?;
        }
        inbox.rest();
        loop {
            if self.is_ready && self.reader.is_between_frames() && !inbox.is_open() {
                input = self.take_single_frames(input, inbox);
            }
            match self.reader.next(&mut input)? {
                None => return Ok(()),
                Some(Step::Begin(head)) => self.begin_frame(head, inbox)?,
                Some(Step::Body { bytes, ends }) => {
                    self.take_body(bytes, inbox);
                    if ends {
                        self.end_frame(inbox, replies)?;
                    }
                }
            }
        }
    }

    /// Takes the single-frame messages at the front; returns the rest.
    fn take_single_frames<'a>(&mut self, input: &'a [u8], inbox: &mut Inbox) -> &'a [u8] {
        if self.kind == Kind::Publisher {
            return input;
        }
        let before = inbox.end();
        let len = single_frame::split(input, before, self.bounds, |place| {
            inbox.push_single(place.has_delimiter, place.start, place.end);
        });
        let (taken, rest) = input.split_at(len.min(input.len()));
        if !taken.is_empty() {
            // An exact copy of the bytes read: so an idle connection holds next to nothing.
            inbox.append_whole(taken);
            self.peer_silence = None;
            self.received += taken.len() as u64;
            self.requested_bytes += taken.len() as u64;
            self.begun += 1;
        }
        rest
    }

    fn begin_frame(&mut self, head: Head, inbox: &mut Inbox) -> Result<(), Violation> {
        self.head = head;
        self.peer_silence = None;
        self.begun += u64::from(!inbox.is_open());
        if !self.is_ready {
            return match head {
                Head { is_command: true, len: ..=HANDSHAKE_BYTES, .. } => Ok(()),
                Head { is_command: true, .. } => {
                    Err(Violation::MessageTooLarge { max: HANDSHAKE_BYTES })
                }
                _ => Err(Violation::Protocol("a message before the handshake".to_owned())),
            };
        }
        if !head.is_command {
            self.requested_bytes += HEAD_BYTES_MIN;
            return inbox.begin_frame(head.len, self.bounds);
        }
        if head.len > self.bounds.bytes {
            return Err(Violation::MessageTooLarge { max: self.bounds.bytes });
        }
        Ok(())
    }

    fn take_body(&mut self, bytes: &[u8], inbox: &mut Inbox) {
        if !self.head.is_command {
            self.received += bytes.len() as u64;
            self.requested_bytes += bytes.len() as u64;
            inbox.append(bytes, self.reader.left());
            return;
        }
        // Bytes of a command longer than any that matters are dropped.
        let kept_max = match (self.is_ready, self.kind) {
            (false, _) => HANDSHAKE_BYTES,
            (true, Kind::Router) => COMMAND_BYTES,
            (true, Kind::Publisher) => self.bounds.bytes.max(COMMAND_BYTES),
        };
        let kept = bytes.len().min(kept_max.saturating_sub(self.command.len()));
        self.command.extend_from_slice(bytes.get(..kept).unwrap_or_default());
    }

    fn end_frame(&mut self, inbox: &mut Inbox, replies: &mut Vec<u8>) -> Result<(), Violation> {
        if self.head.is_command {
            let command = std::mem::take(&mut self.command);
            return match self.is_ready {
                true => self.obey(command, inbox, replies),
                false => self.shake_hands_with(&command, replies),
            };
        }
        inbox.end_frame(self.head.has_more);
        if self.kind == Kind::Publisher && !self.head.has_more {
            inbox.newest_as_signal();
        }
        Ok(())
    }

    /// Executes a command; ignores an unknown one.
    fn obey(
        &mut self,
        body: Vec<u8>,
        inbox: &mut Inbox,
        replies: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        match command::decode(Bytes::from(body))? {
            Command::Ping { ttl_deciseconds, context } => {
                let ttl = Duration::from_millis(u64::from(ttl_deciseconds) * 100);
                self.peer_silence = (ttl > Duration::ZERO).then_some(ttl);
                write_command(replies, &Command::Pong { context });
            }
            Command::Ready(_) | Command::Error { .. } => {
                let text = "READY or ERROR after the handshake";
                return Err(Violation::Protocol(text.to_owned()));
            }
            Command::Subscribe(topic) if self.kind == Kind::Publisher => {
                self.requested_bytes += HEAD_BYTES_MIN + topic.len() as u64;
                // A separate copy, without the command's name.
                inbox.signals.push_back(Signal::Subscribe(Bytes::copy_from_slice(&topic)));
            }
            Command::Cancel(topic) if self.kind == Kind::Publisher => {
                self.requested_bytes += HEAD_BYTES_MIN + topic.len() as u64;
                inbox.signals.push_back(Signal::Cancel(Bytes::copy_from_slice(&topic)));
            }
            _ => {}
        }
        Ok(())
    }

    /// A command of the handshake.
    fn shake_hands_with(&mut self, body: &[u8], replies: &mut Vec<u8>) -> Result<(), Violation> {
        let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + body.len());
        write_head(&mut frame, COMMAND, body.len());
        frame.extend_from_slice(body);
        self.shake_hands(&frame, replies)
    }

    fn shake_hands(&mut self, bytes: &[u8], replies: &mut Vec<u8>) -> Result<(), Violation> {
        if bytes.is_empty() {
            return Ok(());
        }
        let fed = self.connection.handle_input(Bytes::copy_from_slice(bytes));
        loop {
            self.take_replies(replies);
            while self.connection.poll_event().is_some() {
                // Identities are ignored: a reply goes to the connection of its request.
            }
            if !self.connection.has_pending_input() {
                break;
            }
            self.connection.resume_input()?;
        }
        fed?;
        self.is_ready = self.connection.is_ready();
        Ok(())
    }

    /// Moves the handshake's output to `replies`.
    pub fn take_replies(&mut self, replies: &mut Vec<u8>) {
        if self.connection.has_pending_transmit() {
            let taken: usize = self
                .connection
                .transmit_chunks()
                .iter()
                .map(|chunk| {
                    replies.extend_from_slice(chunk);
                    chunk.len()
                })
                .sum();
            self.connection.advance_transmit(taken);
        }
    }

    /// Appends a PING.
    pub fn ping(&self, out: &mut Vec<u8>) {
        write_command(out, &Command::Ping { ttl_deciseconds: 0, context: Bytes::new() });
    }
}

fn write_command(out: &mut Vec<u8>, command: &Command) {
    let mut body = BytesMut::new();
    command::encode(command, &mut body);
    write_head(out, COMMAND, body.len());
    out.extend_from_slice(&body);
}

/// Appends a frame of an unencrypted connection.
pub fn write_frame(out: &mut Vec<u8>, more: bool, payload: &[u8]) {
    write_frame_head(out, more, payload.len());
    out.extend_from_slice(payload);
}

/// The longest head of a frame.
pub const FRAME_HEAD_BYTES: usize = 9;

/// Appends the head of a frame; the caller appends its `len` bytes.
pub fn write_frame_head(out: &mut Vec<u8>, more: bool, len: usize) {
    write_head(out, u8::from(more), len);
}

fn write_head(out: &mut Vec<u8>, flags: u8, len: usize) {
    match u8::try_from(len) {
        Ok(len) => out.extend_from_slice(&[flags, len]),
        Err(_) => {
            out.push(LONG | flags);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const GREETING: &[u8; 12] = b"\xFF\0\0\0\0\0\0\0\x01\x7F\x03\x01";
    const READY: &[u8] = b"\x04\x1C\x05READY\x0BSocket-Type\0\0\0\x06DEALER";
    const READY_SUB: &[u8] = b"\x04\x19\x05READY\x0BSocket-Type\0\0\0\x03SUB";

    /// A router's codec after the peer's handshake, with its inbox and its output so far.
    pub fn greeted() -> (Codec, Inbox, Vec<u8>) {
        greeted_as(Kind::Router)
    }

    pub fn greeted_as(kind: Kind) -> (Codec, Inbox, Vec<u8>) {
        let (mut inbox, mut replies) = (Inbox::default(), Vec::new());
        let mut codec = Codec::new(kind, &Limits::default());
        let ready = if kind == Kind::Router { READY } else { READY_SUB };
        let mut greeting = [0; 64];
        greeting[..12].copy_from_slice(GREETING);
        greeting[12..16].copy_from_slice(b"NULL");
        codec.feed(&greeting, &mut inbox, &mut replies).unwrap();
        codec.feed(ready, &mut inbox, &mut replies).unwrap();
        assert!(codec.is_ready());
        (codec, inbox, replies)
    }

    #[test]
    fn messages_are_the_same_wherever_reads_end() {
        let body = |len: usize| (0..len).map(|n| n as u8).collect::<Vec<u8>>();
        let sent = [
            vec![body(0), body(1), body(255)],
            vec![body(256)],
            vec![body(0), body(3)],
            vec![body(70_000), body(9)],
            vec![body(4)],
            vec![body(0)],
        ];
        let mut wire = Vec::new();
        for frames in &sent {
            for (index, frame) in frames.iter().enumerate() {
                write_frame(&mut wire, index + 1 < frames.len(), frame);
            }
        }
        for piece in [1, 2, 3, 10, 255, 256, 257, 5_000, 65_536, usize::MAX] {
            let (mut codec, mut inbox, mut replies) = greeted();
            for bytes in wire.chunks(piece.min(wire.len())) {
                codec.feed(bytes, &mut inbox, &mut replies).unwrap();
            }
            let got: Vec<Vec<Vec<u8>>> = inbox
                .messages
                .iter()
                .map(|message| {
                    (0..message.len()).map(|n| inbox.frame(message, n).unwrap().to_vec()).collect()
                })
                .collect();
            assert_eq!(got, sent, "cut into {piece}");
            assert_eq!(codec.unfinished(&inbox), None);
        }
    }

    #[test]
    fn only_a_publisher_receives_subscriptions() {
        let wire = b"\x04\x0B\x09SUBSCRIBEa\x04\x08\x06CANCELb\x04\x06\x04JOINc";
        for (kind, signals) in [(Kind::Router, 0), (Kind::Publisher, 2)] {
            let (mut codec, mut inbox, mut replies) = greeted_as(kind);
            codec.feed(wire, &mut inbox, &mut replies).unwrap();
            assert_eq!(inbox.signals.len(), signals, "{kind:?}");
            assert!(inbox.messages.is_empty());
        }
    }

    #[test]
    fn a_later_message_cancels_the_silence_that_a_ping_allowed() {
        let (mut codec, mut inbox, mut replies) = greeted();
        let ping = b"\x04\x07\x04PING\0\x05";
        let plain = b"\0\x01a";
        for (input, allowed) in [(ping.as_slice(), Some(500)), (plain, None), (ping, Some(500))] {
            codec.feed(input, &mut inbox, &mut replies).unwrap();
            let silence = codec.peer_silence().map(|time| time.as_millis());
            assert_eq!(silence, allowed);
        }
    }

    #[test]
    fn messages_that_wait_to_be_executed_are_counted() {
        let (mut codec, mut inbox, mut replies) = greeted();
        let mut wire = Vec::new();
        write_frame(&mut wire, false, &[0; 1_000]);
        codec.feed(&wire.repeat(20), &mut inbox, &mut replies).unwrap();
        assert!(inbox.held() >= 20_000, "{}", inbox.held());
    }
}
