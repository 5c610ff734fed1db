//! Bytes on their way out: appended at the end, written from the front.
//!
//! The bytes lie in segments. So a growing queue copies nothing, a large reply has its own segment,
//! and written segments are freed while the rest waits.

use crate::protocol::Shared;
use std::collections::VecDeque;

/// A segment of this many bytes takes no more.
const SEGMENT_BYTES: usize = 64 * 1024;
/// The largest allocation that an empty queue keeps.
const KEPT_BYTES: usize = 64 * 1024;
/// A segment of at least this many bytes is moved to another queue as it is; a shorter one is
/// copied.
const MOVED_BYTES: usize = 16 * 1024;

#[derive(Debug)]
enum Segment {
    Own(Vec<u8>),
    /// A large value, shared with the map.
    Shared(Shared),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(value) => value,
        }
    }

    /// The memory that this segment keeps from being freed. The map may have dropped the value.
    fn capacity(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.capacity(),
            Self::Shared(value) => value.len(),
        }
    }
}

/// A queue of bytes.
#[derive(Debug, Default)]
pub struct ByteQueue {
    /// Full segments before the tail, from the front.
    segments: VecDeque<Segment>,
    tail: Vec<u8>,
    /// How many bytes of the first segment have been consumed.
    head: usize,
    /// Bytes and allocations of `segments`.
    len: usize,
    capacity: usize,
}

impl ByteQueue {
    /// The number of bytes in the queue.
    pub fn len(&self) -> usize {
        self.len + self.tail.len() - self.head
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of bytes allocated.
    pub fn held(&self) -> usize {
        self.capacity + self.tail.capacity() + self.segments.capacity() * size_of::<Segment>()
    }

    /// The contiguous bytes at the front.
    pub fn front(&self) -> &[u8] {
        self.first().get(self.head..).unwrap_or_default()
    }

    /// Returns a buffer to append about `more` bytes to; they stay contiguous. Only append: the
    /// bytes already in the buffer belong to the queue.
    pub fn end(&mut self, more: usize) -> &mut Vec<u8> {
        let is_full = self.tail.len().saturating_add(more) > SEGMENT_BYTES;
        if is_full && !self.tail.is_empty() {
            self.seal_tail();
        }
        &mut self.tail
    }

    /// Appends a large value without a copy.
    pub fn share(&mut self, value: &Shared) {
        self.seal_tail();
        self.seal(Segment::Shared(Shared::clone(value)));
    }

    /// Removes the `count` bytes at the front, which have been written.
    pub fn consume(&mut self, mut count: usize) {
        while count > 0 {
            let front = self.front().len();
            if count < front || front == 0 {
                self.head += count.min(front);
                break;
            }
            count -= front;
            self.drop_first();
        }
        self.give_back();
    }

    /// Moves the `count` bytes at the front to the end of `other`, a shared value as a whole.
    pub fn move_to(&mut self, mut count: usize, other: &mut Self) {
        while count > 0 {
            let front = self.front();
            if front.is_empty() {
                return;
            }
            if self.head == 0 && front.len() <= count && front.len() >= MOVED_BYTES {
                count -= front.len();
                let segment = self.take_first();
                other.seal_tail();
                other.seal(segment);
            } else {
                let piece = front.get(..count).unwrap_or(front);
                count -= piece.len();
                let len = piece.len();
                other.end(len).extend_from_slice(piece);
                self.consume(len);
            }
        }
    }

    /// Frees the allocation that an empty queue has kept.
    pub fn rest(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail);
            self.seal(Segment::Own(tail));
        }
    }

    fn seal(&mut self, segment: Segment) {
        self.len += segment.bytes().len();
        self.capacity += segment.capacity();
        self.segments.push_back(segment);
    }

    fn first(&self) -> &[u8] {
        self.segments.front().map_or(&self.tail, Segment::bytes)
    }

    /// Takes out the first segment, or the tail if there is none.
    fn take_first(&mut self) -> Segment {
        self.head = 0;
        let Some(segment) = self.segments.pop_front() else {
            return Segment::Own(std::mem::take(&mut self.tail));
        };
        self.len -= segment.bytes().len();
        self.capacity -= segment.capacity();
        segment
    }

    /// Drops the first segment, and keeps a small allocation for the next bytes.
    fn drop_first(&mut self) {
        let is_tail = self.segments.is_empty();
        if let Segment::Own(mut first) = self.take_first()
            && is_tail
            && first.capacity() <= KEPT_BYTES
        {
            first.clear();
            self.tail = first;
        }
    }

    /// Frees the consumed part of a large segment, so that a peer that leaves its end unread does
    /// not keep all of it in memory.
    fn give_back(&mut self) {
        let head = self.head;
        let rest = self.front().len();
        if head < 4 * SEGMENT_BYTES || head < rest {
            return;
        }
        // Moving the rest to the front costs at most the bytes written since the last move.
        let shorten = |segment: &mut Vec<u8>| {
            segment.drain(..head);
            segment.shrink_to_fit();
        };
        match self.segments.front_mut() {
            // A shared value is not this queue's to shorten.
            Some(Segment::Shared(_)) => return,
            Some(Segment::Own(segment)) => {
                let before = (segment.len(), segment.capacity());
                shorten(segment);
                self.len -= before.0 - segment.len();
                self.capacity -= before.1 - segment.capacity();
            }
            None => shorten(&mut self.tail),
        }
        self.head = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_the_order_in_which_they_went_in() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut first, mut second) = (ByteQueue::default(), ByteQueue::default());
        let (mut next_in, mut next_out) = (0u32, 0u32);
        let mut number = |count: u32, queue: &mut ByteQueue| {
            let end = queue.end(count as usize * 4);
            for _ in 0..count {
                end.extend_from_slice(&next_in.to_be_bytes());
                next_in += 1;
            }
        };
        let mut taken = Vec::new();
        for _ in 0..2_000 {
            let count = [10, 1_000, 100_000][random.usize(..3)];
            number(random.u32(..count), &mut first);
            first.move_to(random.usize(..=first.len()), &mut second);
            let wanted = random.usize(..=second.len());
            while taken.len() < wanted && !second.is_empty() {
                let piece = second.front();
                let piece = &piece[..random.usize(1..=piece.len())];
                taken.extend_from_slice(piece);
                let len = piece.len();
                second.consume(len);
            }
            let whole = taken.len() / 4 * 4;
            for piece in taken.drain(..whole).as_slice().chunks(4) {
                assert_eq!(piece, next_out.to_be_bytes());
                next_out += 1;
            }
        }
        let rest = taken.len() + first.len() + second.len();
        assert_eq!((rest, next_out as usize * 4 + rest), (rest, next_in as usize * 4));
    }

    #[test]
    fn a_large_value_goes_through_without_a_copy() {
        let value: Shared = vec![7; 1 << 20].into();
        let (mut first, mut second) = (ByteQueue::default(), ByteQueue::default());
        second.end(1).push(1);
        first.end(1).push(2);
        first.share(&value);
        first.end(1).push(3);
        assert_eq!(first.len(), (1 << 20) + 2);
        assert!(first.held() >= value.len(), "the map may have dropped it");
        first.move_to(first.len(), &mut second);
        assert!(first.is_empty() && first.held() < 1 << 20);
        second.consume(2);
        assert_eq!((second.front().as_ptr(), second.front().len()), (value.as_ptr(), 1 << 20));
        second.consume(900_000);
        assert_eq!(second.front().len(), (1 << 20) - 900_000);
        second.consume((1 << 20) - 900_000);
        assert_eq!(second.front(), [3]);
        assert_eq!(Shared::strong_count(&value), 1);
    }

    #[test]
    fn a_queue_holds_little_more_memory_than_its_bytes() {
        let mut queue = ByteQueue::default();
        for len in [10, 5_000, 100, 10 << 20, 70_000, 1] {
            let end = queue.end(len);
            end.reserve(len);
            end.extend(std::iter::repeat_n(7, len));
        }
        assert!(queue.held() <= queue.len() + 2 * SEGMENT_BYTES, "{}", queue.held());
        while queue.len() > 1_000 {
            queue.consume(queue.front().len().min(10_000));
            assert!(queue.held() <= 2 * queue.len() + 6 * SEGMENT_BYTES, "{}", queue.held());
        }
        queue.consume(queue.len());
        assert!(queue.is_empty() && queue.held() <= 2 * KEPT_BYTES);
        queue.rest();
        assert_eq!(queue.held(), 0);
    }

    #[test]
    fn a_large_reply_is_moved_and_not_copied() {
        let (mut first, mut second) = (ByteQueue::default(), ByteQueue::default());
        second.end(1).push(0);
        first.end(1 << 20).resize(1 << 20, 7);
        let place = first.front().as_ptr();
        first.move_to(1 << 20, &mut second);
        assert!(first.is_empty() && second.len() == 1 + (1 << 20));
        second.consume(1);
        assert_eq!(second.front().as_ptr(), place);
    }
}
