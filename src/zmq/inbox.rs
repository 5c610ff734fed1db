//! Messages received from one peer that wait to be handled.
//!
//! All frames lie one after the other in one buffer that grows as bytes arrive; a frame is a range
//! in it. So neither many frames nor many reads keep more memory than their bytes.

use super::bounds::{Bounds, Violation};
use bytes::Bytes;
use std::collections::VecDeque;

/// The allocation that an empty inbox keeps: enough for a few commands, little for many idle
/// connections.
const KEPT_BYTES: usize = 4 * 1024;
/// The same for the ranges of frames and messages.
const KEPT_PLACES: usize = 256;
/// The buffer grows by this part of itself.
const GROWTH: usize = 4;

/// A subscription or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// Send changes whose keys begin with this.
    Subscribe(Bytes),
    /// Stop sending these.
    Cancel(Bytes),
}

/// A complete message. Its frames are read through the [`Inbox`] that received it.
#[derive(Debug, Clone, Copy)]
pub struct Message {
    first: u32,
    frames: u32,
}

impl Message {
    /// How many frames the message has.
    pub fn len(&self) -> usize {
        self.frames as usize
    }

    /// Whether the message has no frame (ZMTP has no such message).
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }
}

/// The range of a frame's bytes.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: u32,
    end: u32,
}

/// A message that has begun and not ended.
#[derive(Debug, Clone, Copy)]
struct Open {
    first_frame: usize,
    /// The start of its bytes.
    start: usize,
    /// The sum of the lengths that its frames declare.
    claimed: usize,
    /// The start of its newest frame's bytes, while that frame is unfinished.
    frame_start: Option<usize>,
}

/// Received messages and subscriptions that wait to be handled.
#[derive(Debug, Default)]
pub struct Inbox {
    /// Messages in order of arrival; the connection's owner takes them out.
    pub messages: VecDeque<Message>,
    /// Subscriptions in order of arrival; only on a publisher's connection.
    pub signals: VecDeque<Signal>,
    bytes: Vec<u8>,
    frames: Vec<Place>,
    open: Option<Open>,
}

impl Inbox {
    /// A frame of a message that came in here, while it or another one is still in.
    pub fn frame<'i>(&'i self, message: &'i Message, index: usize) -> Option<&'i [u8]> {
        let index = (index < message.len()).then_some(message.first as usize + index)?;
        let place = self.frames.get(index)?;
        self.bytes.get(place.start as usize..place.end as usize)
    }

    /// How many bytes came for what is in it, at the most.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The number of bytes allocated.
    pub fn held(&self) -> usize {
        self.bytes.capacity()
            + self.frames.capacity() * size_of::<Place>()
            + self.messages.capacity() * size_of::<Message>()
            + self.signals.capacity() * size_of::<Signal>()
    }

    /// The most bytes that the next `more` bytes may make it hold.
    pub fn held_after(&self, more: usize) -> usize {
        self.held() + more + self.bytes.capacity() / GROWTH
    }

    /// Whether a message has begun and not ended.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// How many bytes of the unfinished message have arrived.
    pub fn unfinished(&self) -> usize {
        self.open.map_or(0, |open| self.bytes.len() - open.start)
    }

    /// Frees the memory of messages that were all taken out.
    pub fn rest(&mut self) {
        if !self.messages.is_empty() {
            return;
        }
        match &mut self.open {
            None => {
                self.bytes.clear();
                self.frames.clear();
            }
            Some(open) if open.start > 0 || open.first_frame > 0 => {
                self.bytes.drain(..open.start);
                self.frames.drain(..open.first_frame);
                // It was made of a usize that was no smaller.
                let moved = u32::try_from(open.start).unwrap_or(u32::MAX);
                for place in &mut self.frames {
                    place.start -= moved;
                    place.end -= moved;
                }
                open.frame_start = open.frame_start.map(|start| start - open.start);
                (open.start, open.first_frame) = (0, 0);
            }
            Some(_) => return,
        }
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes.shrink_to(KEPT_BYTES);
        }
        if self.frames.capacity() > KEPT_PLACES {
            self.frames.shrink_to(KEPT_PLACES);
        }
        if self.messages.capacity() > KEPT_PLACES {
            self.messages.shrink_to(KEPT_PLACES);
        }
    }

    /// Appends bytes of complete messages; returns where they begin.
    pub(super) fn append_whole(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The position of the next appended byte.
    pub(super) fn end(&self) -> usize {
        self.bytes.len()
    }

    /// A whole message whose only frame that is not empty is at `start..end`.
    pub(super) fn push_single(&mut self, has_delimiter: bool, start: u32, end: u32) {
        let first = self.frames.len() as u32;
        if has_delimiter {
            self.frames.push(Place { start, end: start });
        }
        self.frames.push(Place { start, end });
        self.messages.push_back(Message { first, frames: 1 + u32::from(has_delimiter) });
    }

    /// Begins a frame that declares `len` bytes. Keeps nothing when a bound is exceeded.
    pub(super) fn begin_frame(&mut self, len: usize, bounds: Bounds) -> Result<(), Violation> {
        let start = self.bytes.len();
        let open = self.open.get_or_insert(Open {
            first_frame: self.frames.len(),
            start,
            claimed: 0,
            frame_start: None,
        });
        open.claimed = open.claimed.saturating_add(len);
        if open.claimed > bounds.bytes || u32::try_from(start.saturating_add(len)).is_err() {
            return Err(Violation::MessageTooLarge { max: bounds.bytes });
        }
        if self.frames.len() - open.first_frame >= bounds.frames {
            return Err(Violation::TooManyFrames { max: bounds.frames });
        }
        open.frame_start = Some(start);
        Ok(())
    }

    /// Bytes of the frame that has begun, of which `left` are still to come.
    pub(super) fn append(&mut self, bytes: &[u8], left: usize) {
        let (needed, capacity) = (self.bytes.len() + bytes.len(), self.bytes.capacity());
        if needed > capacity {
            // Grows in steps of a quarter: a declared length is not believed before its bytes
            // arrive.
            let step = capacity + capacity / GROWTH;
            let wanted = if left > 0 { step.min(needed.saturating_add(left)) } else { step };
            self.bytes.reserve_exact(wanted.max(needed) - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The frame that has begun ends, and with it its message unless `has_more`.
    pub(super) fn end_frame(&mut self, has_more: bool) {
        let end = self.bytes.len();
        let Some(open) = &mut self.open else { return };
        let start = open.frame_start.take().unwrap_or(end);
        // Both were checked when the frame began.
        self.frames.push(Place { start: start as u32, end: end as u32 });
        if !has_more {
            let first = open.first_frame;
            let frames = (self.frames.len() - first) as u32;
            self.messages.push_back(Message { first: first as u32, frames });
            self.open = None;
        }
    }

    /// Takes the newest message out again, as a subscription or its end.
    pub(super) fn newest_as_signal(&mut self) {
        let Some(message) = self.messages.pop_back() else { return };
        let signal = match self.frame(&message, 0).and_then(<[u8]>::split_first) {
            Some((1, topic)) => Some(Signal::Subscribe(Bytes::copy_from_slice(topic))),
            Some((0, topic)) => Some(Signal::Cancel(Bytes::copy_from_slice(topic))),
            // A publisher uses no other message.
            _ => None,
        };
        self.signals.extend(signal);
        self.rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 1_000, frames: 5 };

    fn add(inbox: &mut Inbox, len: usize, has_more: bool) -> Result<(), Violation> {
        inbox.begin_frame(len, BOUNDS)?;
        inbox.append(&vec![len as u8; len], 0);
        inbox.end_frame(has_more);
        Ok(())
    }

    #[test]
    fn frames_and_bytes_of_one_message_add_up() {
        let mut inbox = Inbox::default();
        assert!((0..4).all(|_| add(&mut inbox, 1, true).is_ok()) && inbox.is_open());
        add(&mut inbox, 1, false).unwrap();
        add(&mut inbox, 2, false).unwrap();
        let first = inbox.messages.pop_front().unwrap();
        assert_eq!((first.len(), inbox.frame(&first, 5)), (5, None), "that is the next message's");
        assert!((0..5).all(|_| add(&mut inbox, 1, true).is_ok()));
        let many = inbox.begin_frame(1, BOUNDS);
        assert!(matches!(many, Err(Violation::TooManyFrames { max: 5 })));
        let mut inbox = Inbox::default();
        assert!((0..50).all(|_| add(&mut inbox, 250, false).is_ok()), "each is by itself");
        assert!((0..4).all(|_| add(&mut inbox, 250, true).is_ok()));
        let heavy = inbox.begin_frame(1, BOUNDS);
        assert!(matches!(heavy, Err(Violation::MessageTooLarge { max: 1_000 })));
    }

    #[test]
    fn an_unfinished_message_stays_when_earlier_ones_are_taken_out() {
        let mut inbox = Inbox::default();
        for len in 1..100 {
            add(&mut inbox, len, false).unwrap();
        }
        add(&mut inbox, 7, true).unwrap();
        inbox.begin_frame(9, BOUNDS).unwrap();
        inbox.append(b"12345", 4);
        assert_eq!(inbox.unfinished(), 12, "those before it are whole");
        inbox.messages.clear();
        inbox.rest();
        assert_eq!((inbox.unfinished(), inbox.bytes.len()), (12, 12));
        inbox.append(b"6789", 0);
        inbox.end_frame(false);
        let message = inbox.messages.pop_front().unwrap();
        assert_eq!(message.len(), 2);
        assert_eq!(inbox.frame(&message, 0), Some(&[7; 7][..]));
        assert_eq!(inbox.frame(&message, 1), Some(&b"123456789"[..]));
        assert_eq!(inbox.frame(&message, 2), None);
    }

    #[test]
    fn the_buffer_grows_with_received_bytes_and_not_with_declared_ones() {
        let bounds = Bounds { bytes: 64 << 20, frames: 5 };
        let mut inbox = Inbox::default();
        inbox.begin_frame(50 << 20, bounds).unwrap();
        for count in 1..200_000 {
            let most = inbox.held_after(1);
            inbox.append(&[7], (50 << 20) - count);
            assert!(inbox.held() <= most, "{count}");
            assert!(inbox.held() <= (count + count / GROWTH).max(64) + 64, "{count}");
        }
        inbox.append(&vec![7; 50_000_000], (50 << 20) - 50_199_999);
        inbox.append(&[7; 1_000], (50 << 20) - 50_200_999);
        assert!(inbox.held() <= 50 << 20, "and never past the frame's end");
    }

    #[test]
    fn an_empty_inbox_keeps_next_to_nothing() {
        let mut inbox = Inbox::default();
        for _ in 0..20_000 {
            add(&mut inbox, 3, false).unwrap();
        }
        assert!(inbox.held() >= 20_000 * 19);
        inbox.messages.clear();
        inbox.rest();
        assert!(inbox.held() <= 4 * KEPT_BYTES);
    }

    #[test]
    fn a_subscription_takes_no_memory_once_it_is_taken_out() {
        let mut inbox = Inbox::default();
        for wish in [1, 0].repeat(5_000) {
            inbox.begin_frame(3, BOUNDS).unwrap();
            inbox.append(&[wish, b'a', b'b'], 0);
            inbox.end_frame(false);
            inbox.newest_as_signal();
            let topic = Bytes::from_static(b"ab");
            let expected = [Signal::Cancel(topic.clone()), Signal::Subscribe(topic)];
            assert_eq!(inbox.signals.pop_front().as_ref(), expected.get(usize::from(wish)));
            assert!(inbox.messages.is_empty() && inbox.held() <= 4 * KEPT_BYTES);
        }
    }
}
