//! Bytes on their way out: appended at the end, written from the front.

/// What an empty backlog may keep of its allocation; a large reply must not be paid for for ever.
const KEPT_BYTES: usize = 256 * 1024;

/// A queue of bytes in one piece.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: Vec<u8>,
    head: usize,
}

impl Backlog {
    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What waits, from the front.
    pub fn front(&self) -> &[u8] {
        self.bytes.get(self.head..).unwrap_or_default()
    }

    /// How many bytes are in memory for that, with those that are written and not given back yet.
    pub fn held(&self) -> usize {
        self.bytes.len()
    }

    /// Where to append. Only append: what is there already belongs to the backlog.
    pub fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The `count` bytes at the front are written, or moved elsewhere.
    pub fn consume(&mut self, count: usize) {
        self.head = (self.head + count).min(self.bytes.len());
        if self.is_empty() {
            self.clear();
        } else if self.head >= KEPT_BYTES && self.head >= self.len() {
            // Moving the rest to the front costs at most what was written since the last time; and
            // a peer that reads all but the end does not keep the whole in memory.
            self.bytes.drain(..self.head);
            self.bytes.shrink_to(KEPT_BYTES);
            self.head = 0;
        }
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.head = 0;
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_the_order_in_which_they_went_in() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut backlog = Backlog::default();
        let (mut next_in, mut next_out) = (0u32, 0u32);
        for _ in 0..2_000 {
            for _ in 0..random.u32(..1_000) {
                backlog.end().extend_from_slice(&next_in.to_be_bytes());
                next_in += 1;
            }
            let take = random.usize(..=backlog.len() / 4);
            for piece in backlog.front()[..take * 4].chunks(4) {
                assert_eq!(piece, next_out.to_be_bytes());
                next_out += 1;
            }
            backlog.consume(take * 4);
            assert_eq!(backlog.len(), (next_in - next_out) as usize * 4);
        }
    }

    #[test]
    fn what_is_written_is_given_back_before_the_last_of_it_is() {
        let mut backlog = Backlog::default();
        backlog.end().resize(10 << 20, 7);
        while backlog.len() > 1_000 {
            backlog.consume(backlog.len().min(10_000));
            assert!(backlog.held() <= 2 * backlog.len() + KEPT_BYTES);
            assert!(backlog.bytes.capacity() <= 10 << 20);
        }
        assert!(backlog.bytes.capacity() <= 2 * KEPT_BYTES);
    }

    #[test]
    fn an_empty_backlog_gives_its_memory_back() {
        let mut backlog = Backlog::default();
        backlog.end().resize(10 << 20, 0);
        backlog.consume(10 << 20);
        assert!(backlog.end().capacity() <= KEPT_BYTES);
    }
}
