//! Bytes to send to a peer: the frames of its messages, and between two messages the frames of the
//! protocol itself.

use super::byte_queue::ByteQueue;

/// Bytes for one peer, in the order in which they are written.
#[derive(Debug)]
pub struct SendBuffer {
    wire: ByteQueue,
    /// Greeting, handshake and PONG, until the wire is between two messages.
    control: Vec<u8>,
    between_messages: bool,
    /// Frames of messages wait to be written, and not only PING or PONG.
    has_messages: bool,
    /// How many bytes were written in all.
    written: u64,
}

impl Default for SendBuffer {
    fn default() -> Self {
        let (wire, control) = (ByteQueue::default(), Vec::new());
        Self { wire, control, between_messages: true, has_messages: false, written: 0 }
    }
}

impl SendBuffer {
    /// Returns a buffer for frames to the peer, of about `bytes`; `whole` says that they end a
    /// message.
    pub fn out(&mut self, whole: bool, bytes: usize) -> &mut Vec<u8> {
        self.queue(whole).end(bytes)
    }

    /// Returns the queue for frames to the peer; `whole` says that they end a message.
    pub fn queue(&mut self, whole: bool) -> &mut ByteQueue {
        self.has_messages = true;
        self.enqueue(whole)
    }

    /// Returns a buffer for the frames of a beat, which does not count as a message.
    pub fn beat(&mut self, bytes: usize) -> &mut Vec<u8> {
        self.enqueue(true).end(bytes)
    }

    fn enqueue(&mut self, whole: bool) -> &mut ByteQueue {
        self.send_control();
        self.between_messages = whole;
        &mut self.wire
    }

    /// Takes `count` bytes of frames from the front of `queue`; `whole` says that they end a
    /// message.
    pub fn take_from(&mut self, queue: &mut ByteQueue, count: usize, whole: bool) {
        queue.move_to(count, self.queue(whole));
    }

    /// Whether the queued frames end with a whole message.
    pub fn is_between_messages(&self) -> bool {
        self.between_messages
    }

    /// The number of bytes that are not written yet.
    pub fn unwritten(&self) -> usize {
        self.wire.len() + self.control.len()
    }

    /// How many bytes were written in all.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The same when all frames are written that wait now.
    pub fn written_in_the_end(&self) -> u64 {
        self.written + self.wire.len() as u64
    }

    /// The number of bytes allocated.
    pub fn held(&self) -> usize {
        self.wire.held() + self.control.capacity()
    }

    /// Frees the allocations that were kept for reuse.
    pub fn rest(&mut self) {
        self.wire.rest();
        if self.control.is_empty() {
            self.control = Vec::new();
        }
    }

    /// Returns a buffer for frames of the protocol itself.
    pub(super) fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// The bytes that may be written now, from the front.
    pub(super) fn front(&mut self) -> &[u8] {
        self.send_control();
        self.wire.front()
    }

    /// Removes `count` written bytes. True when message bytes may be among them.
    pub(super) fn consume(&mut self, count: usize) -> bool {
        self.wire.consume(count);
        self.written += count as u64;
        let had_messages = self.has_messages;
        self.has_messages &= !self.wire.is_empty();
        had_messages
    }

    fn send_control(&mut self) {
        if self.between_messages && !self.control.is_empty() {
            self.wire.end(self.control.len()).append(&mut self.control);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_frames_are_sent_between_two_messages() {
        let mut send_buffer = SendBuffer::default();
        send_buffer.out(false, 0).extend_from_slice(b"first frame, ");
        send_buffer.control().extend_from_slice(b"pong, ");
        assert_eq!(send_buffer.front(), b"first frame, ");
        assert_eq!(send_buffer.unwritten(), 19);
        send_buffer.out(true, 0).extend_from_slice(b"last frame, ");
        send_buffer.out(true, 0).extend_from_slice(b"next");
        assert_eq!(send_buffer.front(), b"first frame, last frame, pong, next");
        assert!(send_buffer.consume(31));
        assert_eq!(send_buffer.front(), b"next");
        assert_eq!(send_buffer.unwritten(), 4);
    }

    #[test]
    fn a_ping_does_not_count_as_a_message() {
        let mut send_buffer = SendBuffer::default();
        send_buffer.control().extend_from_slice(b"pong");
        send_buffer.beat(4).extend_from_slice(b"beat");
        assert_eq!(send_buffer.front(), b"pongbeat");
        assert!(!send_buffer.consume(8));
        send_buffer.out(true, 0).extend_from_slice(b"reply");
        assert!(send_buffer.consume(2) && send_buffer.consume(3));
        send_buffer.control().extend_from_slice(b"pong");
        assert_eq!(send_buffer.front(), b"pong");
        assert!(!send_buffer.consume(4));
    }
}
