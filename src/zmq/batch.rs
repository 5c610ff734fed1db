//! Decodes messages as requests: messages that arrive together are decoded and executed together.

use super::reply_queue::Framing;
use super::zmtp::{Inbox, Message};
use crate::commands::Request;
use crate::net::turns::LIGHT_BYTES;
use crate::protocol::Refusal;
use crate::protocol::refusal::Code;

/// A batch has at most this many requests. The rest of a long message is not decoded again each
/// time that a few of its requests can be executed.
const BATCH_REQUESTS: usize = 1024;
/// Bytes after which a batch takes no further frame.
const BATCH_BYTES: usize = 256 * 1024;

/// How far the message at the front has been executed.
#[derive(Debug, Default, Clone, Copy)]
pub struct Cursor {
    /// Its first frame that is not executed yet; 0 before the first.
    frame: usize,
    /// Whether a reply to this message has been sent on.
    is_answered: bool,
}

impl Cursor {
    /// The length of the next frame to execute, in bytes.
    pub fn next_bytes(self, inbox: &Inbox) -> usize {
        let Some(message) = inbox.messages.front() else { return 0 };
        let has_delimiter = inbox.frame(message, 0).is_some_and(<[u8]>::is_empty);
        let next = self.frame.max(usize::from(has_delimiter));
        inbox.frame(message, next).map_or(0, <[u8]>::len)
    }
}

/// Requests in their order, and where each message of them ends.
#[derive(Debug)]
pub struct Batch<'m> {
    /// The requests of all messages.
    pub requests: Vec<Request<'m>>,
    shapes: Vec<Shape>,
    /// The frames of all requests.
    bytes: usize,
    /// The part of the last message that is not decoded yet.
    rest: Option<Rest<'m>>,
    /// Most keys, pairs and commands in a request.
    items_max: usize,
}

/// The frames of a message from one on.
#[derive(Debug, Clone, Copy)]
struct Rest<'m> {
    inbox: &'m Inbox,
    message: &'m Message,
    first_frame: usize,
}

impl Rest<'_> {
    fn has_replies(&self) -> bool {
        (self.first_frame..self.message.len()).any(|index| {
            let frame = self.inbox.frame(self.message, index).unwrap_or_default();
            !Request::is_notification(frame)
        })
    }
}

/// The allocations of a finished batch, for the next one.
#[derive(Debug, Default)]
pub struct Room {
    requests: Vec<Request<'static>>,
    shapes: Vec<Shape>,
}

/// Returns the empty allocation of `requests` for reuse: the standard library collects in place.
fn emptied(mut requests: Vec<Request<'_>>) -> Vec<Request<'static>> {
    requests.clear();
    requests.into_iter().map_while(|_| None).collect()
}

/// The part of one message that is in the batch: not executed yet, and decoded so far.
#[derive(Debug, Clone, Copy)]
struct Shape {
    requests: usize,
    first_frame: usize,
    has_delimiter: bool,
    is_answered: bool,
}

impl<'m> Batch<'m> {
    /// Decodes the messages at the front, the first from `cursor` on: at most `requests_max`
    /// requests, each with at most `items_max` items.
    pub fn decode(
        room: Room,
        inbox: &'m Inbox,
        cursor: Cursor,
        requests_max: usize,
        items_max: usize,
    ) -> Self {
        let requests_max = requests_max.min(BATCH_REQUESTS);
        let likely = inbox.messages.len().min(requests_max);
        let Room { requests, shapes } = room;
        let mut batch = Self { requests, shapes, bytes: 0, rest: None, items_max };
        batch.requests.reserve(likely);
        batch.shapes.reserve(likely);
        let mut cursor = Some(cursor);
        for message in &inbox.messages {
            if batch.requests.len() >= requests_max || batch.rest.is_some() {
                break;
            }
            batch.add(inbox, message, cursor.take().unwrap_or_default(), requests_max);
        }
        batch
    }

    fn add(&mut self, inbox: &'m Inbox, message: &'m Message, cursor: Cursor, requests_max: usize) {
        let has_delimiter = inbox.frame(message, 0).is_some_and(<[u8]>::is_empty);
        let first_frame = cursor.frame.max(usize::from(has_delimiter));
        let before = self.requests.len();
        for index in first_frame..message.len() {
            let frame = inbox.frame(message, index).unwrap_or_default();
            let is_long = self.bytes + frame.len() > BATCH_BYTES || frame.len() > LIGHT_BYTES;
            let is_long = is_long && !self.requests.is_empty();
            if is_long || self.requests.len() >= requests_max {
                self.rest = Some(Rest { inbox, message, first_frame: index });
                break;
            }
            self.bytes += frame.len();
            self.requests.push(Request::decode_within(frame, self.items_max));
        }
        if message.len() == usize::from(has_delimiter) {
            let refusal = Refusal::new(Code::BadRequest, "a message without a request");
            self.requests.push(Request { id: None, notification: false, command: Err(refusal) });
        }
        self.shapes.push(Shape {
            requests: self.requests.len() - before,
            first_frame,
            has_delimiter,
            is_answered: cursor.is_answered,
        });
    }

    /// Drops the requests and keeps their allocations.
    pub fn into_room(self) -> Room {
        let Self { requests, mut shapes, .. } = self;
        shapes.clear();
        Room { requests: emptied(requests), shapes }
    }

    /// After `executed` requests: passes to `replies`, for each message in turn, how many of the
    /// replies belong to it, how they are framed, and which requests they answer. Returns how many
    /// messages are done, and the position in the next one.
    pub fn route(
        &self,
        executed: usize,
        mut replies: impl FnMut(usize, Framing, &[Request<'m>]),
    ) -> (usize, Cursor) {
        let mut others = self.requests.as_slice();
        let mut left = executed;
        for (done, shape) in self.shapes.iter().enumerate() {
            let (requests, further) = others.split_at(shape.requests.min(others.len()));
            others = further;
            let taken = left.min(requests.len());
            left -= taken;
            let (now, later) = requests.split_at(taken);
            let rest = self.rest.as_ref().filter(|_| done + 1 == self.shapes.len());
            let answered = count_replies(now);
            if answered > 0 {
                let framing = Framing {
                    has_delimiter: shape.has_delimiter && !shape.is_answered,
                    begins: !shape.is_answered,
                    ends: count_replies(later) == 0 && !rest.is_some_and(Rest::has_replies),
                };
                replies(answered, framing, now);
            }
            if taken < requests.len() || rest.is_some() {
                let is_answered = shape.is_answered || answered > 0;
                return (done, Cursor { frame: shape.first_frame + taken, is_answered });
            }
        }
        (self.shapes.len(), Cursor::default())
    }
}

fn count_replies(requests: &[Request<'_>]) -> usize {
    requests.iter().filter(|request| !request.notification).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zmq::zmtp::tests::greeted;
    use crate::zmq::zmtp::write_frame;

    const REQUEST: &[u8] = b"\x94\x00\x01\xA4ping\x90";
    const NOTIFICATION: &[u8] = b"\x93\x02\xA4ping\x90";

    /// An inbox that has received `messages` from a peer.
    fn inbox(messages: &[Vec<&[u8]>]) -> Inbox {
        let (mut codec, mut inbox, mut replies) = greeted();
        let mut wire = Vec::new();
        for frames in messages {
            for (index, frame) in frames.iter().enumerate() {
                write_frame(&mut wire, index + 1 < frames.len(), frame);
            }
        }
        codec.feed(&wire, &mut inbox, &mut replies).unwrap();
        assert_eq!(inbox.messages.len(), messages.len());
        inbox
    }

    #[test]
    fn a_message_is_framed_once_however_its_execution_is_split() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..60 {
            let likely = [0.01, 0.5, 0.99][random.usize(..3)];
            let mut frame = || if random.f64() < likely { NOTIFICATION } else { REQUEST };
            let mut messages: Vec<Vec<&[u8]>> = [1, 700, 2, 1, 3_000]
                .iter()
                .map(|len| (0..*len).map(|_| frame()).collect())
                .collect();
            messages.iter_mut().step_by(2).for_each(|frames| frames.insert(0, b""));
            let count = |frames: &Vec<&[u8]>| frames.iter().filter(|one| **one == REQUEST).count();
            let mut inbox = inbox(&messages);
            let mut due = messages.iter().filter(|frames| count(frames) > 0);
            let (mut cursor, mut message, mut answered) = (Cursor::default(), None, 0);
            while !inbox.messages.is_empty() {
                let most = random.usize(1..2_000);
                let batch = Batch::decode(Room::default(), &inbox, cursor, most, 9);
                assert!((1..=most).contains(&batch.requests.len()));
                let executed = random.usize(..=batch.requests.len());
                let (done, next) = batch.route(executed, |replies, framing, _| {
                    assert_eq!(framing.begins, message.is_none());
                    let frames = *message.get_or_insert_with(|| due.next().unwrap());
                    assert_eq!(framing.has_delimiter, framing.begins && frames[0].is_empty());
                    answered += replies;
                    assert_eq!(framing.ends, answered == count(frames));
                    if framing.ends {
                        (message, answered) = (None, 0);
                    }
                });
                cursor = next;
                inbox.messages.drain(..done);
            }
            assert!(message.is_none() && due.next().is_none());
        }
    }

    #[test]
    fn a_batch_decodes_only_the_next_frames_and_a_long_frame_alone() {
        let long = [REQUEST, &[0; BATCH_BYTES]].concat();
        let mut frames = vec![REQUEST; 60_000];
        frames[1_500] = &long;
        let inbox = inbox(&[frames]);
        let mut cursor = Cursor::default();
        for (most, next) in [(usize::MAX, 1_024), (100, 1_124), (usize::MAX, 1_500)] {
            let batch = Batch::decode(Room::default(), &inbox, cursor, most, 9);
            cursor = batch.route(batch.requests.len(), |_, framing, _| assert!(!framing.ends)).1;
            assert_eq!(cursor.frame, next);
        }
        let batch = Batch::decode(Room::default(), &inbox, cursor, usize::MAX, 9);
        assert_eq!(batch.requests.len(), 1, "it is not decoded again and again behind others");
    }
}
