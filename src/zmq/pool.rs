//! Memory that all connections of an edge share, so that many peers together cannot take more than
//! the broker was given, though each keeps within its own bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What every connection may hold without asking: small traffic goes on when the pool is exhausted.
pub const FREE_BYTES: usize = 64 * 1024;

/// A number of bytes, lent out.
#[derive(Debug)]
pub struct Pool {
    max: usize,
    lent: AtomicUsize,
}

impl Pool {
    /// A pool of `max` bytes.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, lent: AtomicUsize::new(0) })
    }

    /// How much is lent out.
    pub fn lent(&self) -> usize {
        self.lent.load(Ordering::Relaxed)
    }
}

/// One connection's part of a pool; given back when dropped.
#[derive(Debug)]
pub struct Share {
    pool: Arc<Pool>,
    held: usize,
}

impl Share {
    /// Nothing yet of `pool`.
    pub fn of(pool: &Arc<Pool>) -> Self {
        Self { pool: Arc::clone(pool), held: 0 }
    }

    /// Says that the connection now holds `bytes`. False when that is more than the pool has: the
    /// connection holds them all the same, so it must not ask for more before it has given some
    /// back.
    pub fn hold(&mut self, bytes: usize) -> bool {
        let wanted = bytes.saturating_sub(FREE_BYTES);
        if wanted == 0 && self.held == 0 {
            return true;
        }
        let lent = if wanted >= self.held {
            let more = wanted - self.held;
            self.pool.lent.fetch_add(more, Ordering::Relaxed) + more
        } else {
            let less = self.held - wanted;
            self.pool.lent.fetch_sub(less, Ordering::Relaxed) - less
        };
        self.held = wanted;
        wanted == 0 || lent <= self.pool.max
    }

    /// Whether a connection that holds next to nothing may come to hold something large. For a
    /// while after the pool is exhausted it may, so that those who read are not kept waiting by
    /// those who do not; when as much again is lent, nobody is lent more.
    pub fn may_be_large(&self) -> bool {
        self.pool.lent() < self.pool.max.saturating_mul(2)
    }

    /// How many bytes more the connection may come to hold.
    pub fn room(&self) -> usize {
        self.pool.max.saturating_sub(self.pool.lent()) + FREE_BYTES
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.pool.lent.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_are_given_back() {
        let pool = Pool::new(1_000);
        let (mut one, mut two) = (Share::of(&pool), Share::of(&pool));
        assert!(one.hold(FREE_BYTES) && pool.lent() == 0, "the first bytes are free");
        assert!(one.hold(FREE_BYTES + 600) && !two.hold(FREE_BYTES + 600));
        assert_eq!(pool.lent(), 1_200);
        assert!(two.hold(10), "small traffic goes on");
        assert_eq!(two.room(), 400 + FREE_BYTES);
        assert!(two.may_be_large());
        assert!(!one.hold(FREE_BYTES + 2_000) && !two.may_be_large());
        assert!(one.hold(FREE_BYTES + 1_000) && !one.hold(FREE_BYTES + 1_001));
        drop(one);
        assert_eq!(pool.lent(), 0);
    }
}
