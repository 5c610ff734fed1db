//! Where a request comes from.

use super::PeerAddress;
use crate::net::wake_queue::WakeQueue;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// A connection, as the engine knows it. An edge makes it when it accepts the connection, and
/// passes it with every request: rights, limits and deferred replies belong to it.
#[derive(Debug)]
pub struct Caller {
    /// No other connection of this process has the same.
    pub id: u64,
    /// Where it comes from.
    pub address: PeerAddress,
    /// Whose connection it is.
    pub user: User,
    /// Is raised when one of its deferred replies has become due, or is made.
    pub signal: Signal,
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum User {
    /// Nobody has said.
    #[default]
    Anonymous,
}

impl Caller {
    /// A new connection from `address`.
    pub fn new(address: PeerAddress) -> Arc<Self> {
        static LAST_ID: AtomicU64 = AtomicU64::new(0);
        let id = 1 + LAST_ID.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { id, address, user: User::Anonymous, signal: Signal::default() })
    }

    /// A caller within this process.
    pub fn local() -> Arc<Self> {
        Self::new(PeerAddress::Local)
    }
}

/// Wakes one task, and no other.
#[derive(Debug, Default)]
pub struct Signal {
    is_raised: AtomicBool,
    waiting: Mutex<Option<(Waker, Option<Arc<WakeQueue>>)>>,
}

impl Signal {
    /// Has whoever waits, or waits next, look again.
    pub fn raise(&self) {
        // Who found it up has not looked since.
        if self.is_raised.swap(true, Ordering::AcqRel) {
            return;
        }
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        match waiting {
            Some((waker, Some(wake_queue))) => wake_queue.wake(waker),
            Some((waker, None)) => waker.wake(),
            None => {}
        }
    }

    /// Ready when it was raised since the last time that this was ready.
    pub fn poll_raised(&self, context: &Context<'_>) -> Poll<()> {
        if self.is_raised.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = waiting.as_ref().is_some_and(|(waker, _)| waker.will_wake(context.waker()));
        if !is_known {
            *waiting = Some((context.waker().clone(), WakeQueue::here()));
        }
        drop(waiting);
        match self.is_raised.swap(false, Ordering::AcqRel) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}
