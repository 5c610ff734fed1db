//! ZMTP: bytes in, messages out.
//!
//! The only file that names omq-proto, so that it can be replaced. Its sans-IO connection does the
//! greeting, the security handshake, the commands and the assembly of messages; what this adds are
//! the bounds that a server needs: a cap on what may come before the handshake is done, on the
//! frames of a message, and memory for a long frame that grows with what arrived and never with
//! what its header claims. After the handshake the usual messages do not need it: see `plain`.

use super::meter::{Bounds, Meter};
use super::plain::{self, Plain};
use crate::limits::Limits;
use bytes::Bytes;
use omq_proto::SocketType;
use omq_proto::proto::{Command, Connection, ConnectionConfig, Event, Role};
use std::collections::VecDeque;

/// The longest command before the handshake is done; honest ones have some hundred bytes.
const HANDSHAKE_BYTES: usize = 8 * 1024;
/// What omq-proto adds to a frame's length before it compares it with the bound.
const PAYLOAD_SLOT: usize = size_of::<omq_proto::Payload>();
/// Unfinished frames shorter than this stay with the codec, which keeps each piece as it came.
const PIECEWISE_BYTES: usize = 256;
/// What an empty inbox keeps of its allocation: room for a few commands, and little where many
/// connections are idle.
const KEPT_BYTES: usize = 4 * 1024;
/// The first allocation for an unfinished frame.
const FIRST_GROWTH_BYTES: usize = 16 * 1024;

/// What we are to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Speaks with REQ and DEALER.
    Router,
    /// Speaks with SUB and XSUB.
    Publisher,
}

/// Why a peer is cut.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// Not ZMTP, not our mechanism, not a socket type that fits ours.
    #[error("{0}")]
    Protocol(String),
    /// Over `--max-message-bytes`.
    #[error("a message of more than {max} bytes")]
    MessageTooLarge {
        /// The bound.
        max: usize,
    },
    /// Over `--max-frames`.
    #[error("a message of more than {max} frames")]
    TooManyFrames {
        /// The bound.
        max: usize,
    },
}

impl From<omq_proto::Error> for Violation {
    fn from(error: omq_proto::Error) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// A message that came in whole. Its frames are read through the [`Inbox`] that it came in.
#[derive(Debug)]
pub struct Message(Parts);

#[derive(Debug)]
enum Parts {
    Plain(Plain),
    Assembled(Box<omq_proto::Message>),
}

impl Message {
    /// How many frames it has.
    pub fn len(&self) -> usize {
        match &self.0 {
            Parts::Plain(plain) => 1 + usize::from(plain.has_delimiter),
            Parts::Assembled(message) => message.len(),
        }
    }

    /// Whether it has no frame (ZMTP has no such message).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it takes in memory, about.
    fn cost(&self) -> usize {
        match &self.0 {
            Parts::Plain(plain) => plain.len() + self.len() * PAYLOAD_SLOT,
            Parts::Assembled(message) => message.max_message_size_len(),
        }
    }
}

/// A subscriber's wish.
#[derive(Debug, PartialEq, Eq)]
pub enum Signal {
    /// Send what begins with this.
    Subscribe(Bytes),
    /// No longer.
    Cancel(Bytes),
}

impl Signal {
    fn of(command: Command) -> Option<Self> {
        match command {
            Command::Subscribe(topic) => Some(Self::Subscribe(topic)),
            Command::Cancel(topic) => Some(Self::Cancel(topic)),
            _ => None,
        }
    }
}

/// What came in and waits to be dealt with.
#[derive(Debug, Default)]
pub struct Inbox {
    /// Messages, in the order in which they came.
    pub messages: VecDeque<Message>,
    /// What the messages take in memory, those included that were taken out while others stayed.
    pub cost: usize,
    /// Subscriptions by command (ZMTP 3.1), in the order in which they came; a publisher's only.
    pub signals: VecDeque<Signal>,
    /// Where the plain messages are.
    bytes: Vec<u8>,
}

impl Inbox {
    /// A frame of a message that came in here, while it or another one is still in.
    pub fn frame<'i>(&'i self, message: &'i Message, index: usize) -> Option<&'i [u8]> {
        match &message.0 {
            Parts::Plain(plain) => plain.frame(&self.bytes, index),
            Parts::Assembled(message) => message.part_slice(index),
        }
    }

    /// Gives back the memory of messages that were all taken out.
    pub fn rest(&mut self) {
        if self.messages.is_empty() {
            self.cost = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEPT_BYTES {
                self.bytes = Vec::new();
            }
        }
    }

    fn push(&mut self, parts: Parts) {
        let message = Message(parts);
        self.cost += message.cost();
        self.messages.push_back(message);
    }
}

/// One peer's protocol state.
#[derive(Debug)]
pub struct Codec {
    kind: Kind,
    connection: Connection,
    meter: Meter,
    bounds: Bounds,
    long_frame: Option<LongFrame>,
    /// What came last was a plain message, of which the connection does not know.
    was_plain: bool,
}

/// An unfinished frame, and what arrived of it.
#[derive(Debug)]
struct LongFrame {
    len: usize,
    bytes: Vec<u8>,
}

impl Codec {
    /// The server's side of a connection, its greeting already queued.
    pub fn new(kind: Kind, limits: &Limits) -> Self {
        let socket_type = match kind {
            Kind::Router => SocketType::Router,
            Kind::Publisher => SocketType::Pub,
        };
        let bounds = Bounds { bytes: limits.max_message_bytes, frames: limits.max_frames };
        let slots = bounds.frames.saturating_mul(PAYLOAD_SLOT);
        let config = ConnectionConfig::new(Role::Server, socket_type)
            .max_message_size(bounds.bytes.saturating_add(slots));
        let mut connection = Connection::new(config);
        connection.set_input_budget(true);
        let meter = Meter::default();
        Self { kind, connection, meter, bounds, long_frame: None, was_plain: false }
    }

    /// Whether the handshake is done.
    pub fn is_ready(&self) -> bool {
        self.connection.is_ready()
    }

    /// Whether the peer knows PING (ZMTP 3.1).
    pub fn peer_knows_ping(&self) -> bool {
        self.connection.is_ready() && self.connection.peer_minor() >= 1
    }

    /// How long the peer allows itself to be silent after its last PING, if that was the last it
    /// sent.
    pub fn peer_silence(&self) -> Option<std::time::Duration> {
        self.connection.peer_heartbeat_ttl().filter(|_| !self.was_plain)
    }

    /// What the unfinished message takes in memory at most.
    pub fn unfinished(&self) -> usize {
        self.meter.unfinished()
    }

    /// Takes what was read. What it completes is appended to `inbox`, what is due to the peer for
    /// it (greeting, handshake, PONG) to `replies`.
    pub fn feed(
        &mut self,
        mut input: &[u8],
        inbox: &mut Inbox,
        replies: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        // What the last read left unfinished goes by itself: plain messages may follow it.
        let mut unfinished = self.meter.to_next_header();
        loop {
            if self.is_ready() && self.meter.is_between_messages() {
                input = self.take_plain(input, inbox);
            }
            if input.is_empty() {
                return Ok(());
            }
            let len = match (self.is_ready(), std::mem::take(&mut unfinished)) {
                // Up to the next frame only, since other bounds hold after the handshake.
                (false, _) => self.meter.to_next_header().max(1),
                (true, 0) => input.len(),
                (true, unfinished) => unfinished,
            };
            let (piece, rest) = input.split_at(len.min(input.len()));
            input = rest;
            self.was_plain = false;
            self.meter.walk(piece, self.bounds_now())?;
            self.feed_piece(piece, inbox, replies)?;
        }
    }

    /// Takes the plain messages at the front; returns the rest.
    fn take_plain<'a>(&mut self, input: &'a [u8], inbox: &mut Inbox) -> &'a [u8] {
        inbox.rest();
        let before = inbox.bytes.len();
        let found = |place| inbox.push(Parts::Plain(place));
        let len = plain::split(input, before, self.bounds, found);
        let (taken, rest) = input.split_at(len.min(input.len()));
        // A copy of just what was read: an idle connection then holds next to nothing.
        inbox.bytes.extend_from_slice(taken);
        self.was_plain |= !taken.is_empty();
        rest
    }

    fn bounds_now(&self) -> Bounds {
        if self.is_ready() { self.bounds } else { Bounds { bytes: HANDSHAKE_BYTES, frames: 1 } }
    }

    fn feed_piece(
        &mut self,
        piece: &[u8],
        inbox: &mut Inbox,
        replies: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        let rest = self.fill_long_frame(piece)?;
        self.collect(inbox, replies)?;
        if !rest.is_empty() {
            // A copy of just what was read: an idle connection then holds no read buffer at all.
            let fed = self.connection.handle_input(Bytes::copy_from_slice(rest));
            self.collect(inbox, replies)?;
            fed?;
        }
        self.claim_long_frame()
    }

    /// Takes decoded work out, until the codec has parsed all that it was given.
    fn collect(&mut self, inbox: &mut Inbox, replies: &mut Vec<u8>) -> Result<(), Violation> {
        loop {
            self.take_replies(replies);
            while let Some(message) = self.connection.poll_message() {
                inbox.push(Parts::Assembled(Box::new(message)));
            }
            while let Some(event) = self.connection.poll_event() {
                // The codec hands on any command to anyone, and a router would keep it for ever.
                // Nor are identities looked at: a reply goes to the connection that asked.
                if let (Kind::Publisher, Event::Command(command)) = (self.kind, event) {
                    inbox.signals.extend(Signal::of(command));
                }
            }
            if !self.connection.has_pending_input() {
                return Ok(());
            }
            self.connection.resume_input()?;
        }
    }

    /// Moves what the codec itself has to say to `replies`.
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

    /// Queues a PING for [`Codec::take_replies`].
    pub fn ping(&mut self) -> Result<(), Violation> {
        let ping = Command::Ping { ttl_deciseconds: 0, context: Bytes::new() };
        Ok(self.connection.send_command(&ping)?)
    }

    /// Gives the unfinished frame its share of `piece`; returns the rest.
    fn fill_long_frame<'a>(&mut self, piece: &'a [u8]) -> Result<&'a [u8], Violation> {
        let Some(frame) = &mut self.long_frame else {
            return Ok(piece);
        };
        let (share, rest) = piece.split_at((frame.len - frame.bytes.len()).min(piece.len()));
        frame.append(share);
        if frame.bytes.len() == frame.len {
            let bytes = std::mem::take(&mut frame.bytes);
            self.long_frame = None;
            self.connection.supply_payload(Bytes::from(bytes))?;
        }
        Ok(rest)
    }

    /// Takes an unfinished frame over from the codec, which would keep it in as many pieces as it
    /// comes in.
    fn claim_long_frame(&mut self) -> Result<(), Violation> {
        if self.long_frame.is_some() {
            return Ok(());
        }
        let unfinished = self.connection.peek_next_frame_payload_size()?;
        if unfinished.is_none_or(|frame| frame.payload_len < PIECEWISE_BYTES) {
            return Ok(());
        }
        if let Some((len, prefix)) = self.connection.begin_supplied_payload_with_prefix() {
            let mut frame = LongFrame { len, bytes: Vec::new() };
            frame.append(prefix.as_slice());
            self.long_frame = Some(frame);
        }
        Ok(())
    }
}

impl LongFrame {
    /// Grows to twice what arrived at most, and never past the frame's length.
    fn append(&mut self, share: &[u8]) {
        let needed = self.bytes.len() + share.len();
        if needed > self.bytes.capacity() {
            let wanted = needed.max(self.bytes.capacity() * 2).max(FIRST_GROWTH_BYTES);
            self.bytes.reserve_exact(wanted.min(self.len) - self.bytes.len());
        }
        self.bytes.extend_from_slice(share);
    }
}

/// Appends a frame of an unencrypted connection.
pub fn write_frame(out: &mut Vec<u8>, more: bool, payload: &[u8]) {
    write_frame_head(out, more, payload.len());
    out.extend_from_slice(payload);
}

/// The longest head of a frame.
pub const FRAME_HEAD_BYTES: usize = 9;

/// Appends the head of a frame whose `len` bytes the caller appends.
pub fn write_frame_head(out: &mut Vec<u8>, more: bool, len: usize) {
    const LONG: u8 = 0x02;
    match u8::try_from(len) {
        Ok(len) => out.extend_from_slice(&[u8::from(more), len]),
        Err(_) => {
            out.push(LONG | u8::from(more));
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

    /// The state of a router whose peer has shaken hands, and what came in and goes out by then.
    pub fn greeted() -> (Codec, Inbox, Vec<u8>) {
        greeted_as(Kind::Router)
    }

    fn greeted_as(kind: Kind) -> (Codec, Inbox, Vec<u8>) {
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
    fn messages_are_the_same_however_they_are_cut() {
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
            assert_eq!(codec.unfinished(), 0);
        }
    }

    #[test]
    fn what_follows_a_message_that_was_cut_is_plain_again() {
        let mut wire = Vec::new();
        (0..100).for_each(|_| write_frame(&mut wire, false, &[7; 50]));
        for cut in (52 * 50..52 * 51).filter(|cut| cut % 52 != 1) {
            let (mut codec, mut inbox, mut replies) = greeted();
            codec.feed(&wire[..cut], &mut inbox, &mut replies).unwrap();
            codec.feed(&wire[cut..], &mut inbox, &mut replies).unwrap();
            let is_plain = |message: &&Message| matches!(message.0, Parts::Plain(_));
            let plain = inbox.messages.iter().filter(is_plain).count();
            assert_eq!(inbox.messages.len(), 100);
            assert_eq!(plain, 100 - usize::from(cut % 52 > 0), "cut at {cut}");
        }
    }

    #[test]
    fn only_a_publisher_hears_of_subscriptions() {
        let wire = b"\x04\x0B\x09SUBSCRIBEa\x04\x08\x06CANCELb\x04\x06\x04JOINc";
        for (kind, heard) in [(Kind::Router, 0), (Kind::Publisher, 2)] {
            let (mut codec, mut inbox, mut replies) = greeted_as(kind);
            codec.feed(wire, &mut inbox, &mut replies).unwrap();
            assert_eq!(inbox.signals.len(), heard, "{kind:?}");
            assert!(inbox.messages.is_empty());
        }
    }

    #[test]
    fn a_long_frame_in_single_bytes_is_kept_in_one_piece_that_grows_with_them() {
        let (mut codec, mut inbox, mut replies) = greeted();
        let mut head = Vec::new();
        write_frame_head(&mut head, false, 50 << 20);
        codec.feed(&head, &mut inbox, &mut replies).unwrap();
        for count in 1..200_000 {
            codec.feed(&[7], &mut inbox, &mut replies).unwrap();
            let kept = codec.long_frame.as_ref().expect("taken over from the codec");
            assert_eq!(kept.bytes.len(), count);
            assert!(kept.bytes.capacity() <= (2 * count).max(FIRST_GROWTH_BYTES));
        }
    }

    #[test]
    fn a_peer_that_goes_on_speaking_after_a_ping_is_not_held_to_it() {
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
    fn what_waits_to_be_executed_is_counted() {
        let (mut codec, mut inbox, mut replies) = greeted();
        let mut wire = Vec::new();
        write_frame(&mut wire, false, &[0; 1_000]);
        codec.feed(&wire.repeat(20), &mut inbox, &mut replies).unwrap();
        assert!(inbox.cost >= 20_000, "{}", inbox.cost);
    }
}
