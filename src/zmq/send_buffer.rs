//! What is on its way to a peer: the frames of its messages, and between two of them what the
//! protocol itself has to say.

use super::byte_queue::ByteQueue;

/// Bytes for one peer, in the order in which they are written.
#[derive(Debug)]
pub struct SendBuffer {
    wire: ByteQueue,
    /// Greeting, handshake and PONG, until the wire is between two messages.
    control: Vec<u8>,
    between_messages: bool,
    /// Frames of messages wait on the wire, and not only what keeps the connection alive.
    has_messages: bool,
}

impl Default for SendBuffer {
    fn default() -> Self {
        let (wire, control) = (ByteQueue::default(), Vec::new());
        Self { wire, control, between_messages: true, has_messages: false }
    }
}

impl SendBuffer {
    /// Where to append frames for the peer, of about `bytes`; `whole` says that they end a message.
    pub fn out(&mut self, whole: bool, bytes: usize) -> &mut Vec<u8> {
        self.queue(whole).end(bytes)
    }

    /// Where to append frames for the peer; `whole` says that they end a message.
    pub fn queue(&mut self, whole: bool) -> &mut ByteQueue {
        self.has_messages = true;
        self.enqueue(whole)
    }

    /// Where to append the frames of a message that tells the peer nothing but that all is well.
    pub fn beat(&mut self, bytes: usize) -> &mut Vec<u8> {
        self.enqueue(true).end(bytes)
    }

    fn enqueue(&mut self, whole: bool) -> &mut ByteQueue {
        self.send_control();
        self.between_messages = whole;
        &mut self.wire
    }

    /// Takes the `count` bytes of frames at the front of `queue`; `whole` says that they end a
    /// message.
    pub fn take_from(&mut self, queue: &mut ByteQueue, count: usize, whole: bool) {
        queue.move_to(count, self.queue(whole));
    }

    /// Whether what is queued ends with a whole message.
    pub fn is_between_messages(&self) -> bool {
        self.between_messages
    }

    /// How many bytes wait for the peer to read.
    pub fn unwritten(&self) -> usize {
        self.wire.len() + self.control.len()
    }

    /// How many bytes it has allocated.
    pub fn held(&self) -> usize {
        self.wire.held() + self.control.capacity()
    }

    /// Gives back what it has kept for what comes next.
    pub fn rest(&mut self) {
        self.wire.rest();
        if self.control.is_empty() {
            self.control = Vec::new();
        }
    }

    /// Where to append what the protocol has to say.
    pub(super) fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// What may be written now, from the front.
    pub(super) fn front(&mut self) -> &[u8] {
        self.send_control();
        self.wire.front()
    }

    /// So many bytes of that are written. True when messages may be among them.
    pub(super) fn consume(&mut self, count: usize) -> bool {
        self.wire.consume(count);
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
    fn what_the_protocol_says_comes_between_two_messages() {
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
    fn what_keeps_a_connection_alive_is_no_message() {
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
