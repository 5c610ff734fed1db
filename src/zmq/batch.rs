//! Messages as requests: what came together is decoded together, and executed together.

use super::outbox::Framing;
use super::zmtp::{Inbox, Message};
use crate::wire::refusal::Code;
use crate::wire::{Refusal, Request};

/// A batch takes no further message when it has so many requests.
const BATCH_REQUESTS: usize = 1024;

/// How far the message at the front has been executed.
#[derive(Debug, Default, Clone, Copy)]
pub struct Cursor {
    /// Its first frame that is not executed; 0 when none is.
    frame: usize,
    /// Whether a reply to it has been handed on.
    is_answered: bool,
}

/// Requests in their order, and where each message of them ends.
#[derive(Debug)]
pub struct Batch<'m> {
    /// The requests of all messages.
    pub requests: Vec<Request<'m>>,
    shapes: Vec<Shape>,
}

/// The allocations of a batch that was, for the next one.
#[derive(Debug, Default)]
pub struct Room {
    requests: Vec<Request<'static>>,
    shapes: Vec<Shape>,
}

/// The allocation of `requests`, for others: the library collects in place.
fn emptied(mut requests: Vec<Request<'_>>) -> Vec<Request<'static>> {
    requests.clear();
    // More than that came once, in one message of many frames.
    requests.shrink_to(BATCH_REQUESTS);
    requests.into_iter().map_while(|_| None).collect()
}

/// The part of one message that is in the batch: all of it that is not executed yet.
#[derive(Debug, Clone, Copy)]
struct Shape {
    requests: usize,
    first_frame: usize,
    has_delimiter: bool,
    is_answered: bool,
}

impl<'m> Batch<'m> {
    /// Decodes the messages at the front, the first from `cursor` on.
    pub fn decode(room: Room, inbox: &'m Inbox, cursor: Cursor) -> Self {
        let likely = inbox.messages.len().min(BATCH_REQUESTS);
        let mut batch = Self { requests: room.requests, shapes: room.shapes };
        batch.requests.reserve(likely);
        batch.shapes.reserve(likely);
        let mut cursor = Some(cursor);
        for message in &inbox.messages {
            if batch.requests.len() >= BATCH_REQUESTS {
                break;
            }
            batch.add(inbox, message, cursor.take().unwrap_or_default());
        }
        batch
    }

    fn add(&mut self, inbox: &'m Inbox, message: &'m Message, cursor: Cursor) {
        let has_delimiter = inbox.frame(message, 0).is_some_and(<[u8]>::is_empty);
        let first_frame = cursor.frame.max(usize::from(has_delimiter));
        let before = self.requests.len();
        self.requests.reserve(message.len());
        for index in first_frame..message.len() {
            self.requests.push(Request::decode(inbox.frame(message, index).unwrap_or_default()));
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

    /// Forgets the requests, and keeps the room that they took.
    pub fn into_room(self) -> Room {
        let Self { requests, mut shapes } = self;
        shapes.clear();
        shapes.shrink_to(BATCH_REQUESTS);
        Room { requests: emptied(requests), shapes }
    }

    /// After `executed` requests: tells `replies` of each message in turn how many of the answers
    /// are its, and how they are framed. Returns how many messages are done, and where the next one
    /// stands.
    pub fn route(
        &self,
        executed: usize,
        mut replies: impl FnMut(usize, Framing),
    ) -> (usize, Cursor) {
        let mut rest = self.requests.as_slice();
        let mut left = executed;
        for (done, shape) in self.shapes.iter().enumerate() {
            let (requests, others) = rest.split_at(shape.requests.min(rest.len()));
            rest = others;
            let taken = left.min(requests.len());
            left -= taken;
            let (now, later) = requests.split_at(taken);
            let answered = count_replies(now);
            if answered > 0 {
                let framing = Framing {
                    has_delimiter: shape.has_delimiter && !shape.is_answered,
                    begins: !shape.is_answered,
                    ends: count_replies(later) == 0,
                };
                replies(answered, framing);
            }
            if taken < requests.len() {
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
