//! The connection that a request comes from.

use super::PeerAddress;
use crate::net::wake_queue::WakeQueue;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// A connection, as the engine knows it. An edge makes a caller when it accepts a connection, and
/// passes it with every request: rights, limits and deferred replies belong to it.
#[derive(Debug)]
pub struct Caller {
    /// A number that no other connection of this process has.
    pub id: u64,
    /// The peer's address.
    pub address: PeerAddress,
    /// Its socket's address, where it has one.
    pub peer: Option<SocketAddr>,
    /// The user that is connected.
    pub user: User,
    /// Is raised when one of its deferred replies becomes due or is made.
    pub signal: Signal,
}

/// The user of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum User {
    /// A user that has not identified itself.
    #[default]
    Anonymous,
}

impl Caller {
    /// A new connection from `address`.
    pub fn new(address: PeerAddress) -> Arc<Self> {
        Self::with_peer(address, None)
    }

    /// The same, from the socket `peer`.
    pub fn with_peer(address: PeerAddress, peer: Option<SocketAddr>) -> Arc<Self> {
        static LAST_ID: AtomicU64 = AtomicU64::new(0);
        let id = 1 + LAST_ID.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { id, address, peer, user: User::Anonymous, signal: Signal::default() })
    }

    /// A caller inside this process.
    pub fn local() -> Arc<Self> {
        Self::new(PeerAddress::Local)
    }
}

/// Wakes one task.
#[derive(Debug, Default)]
pub struct Signal {
    is_raised: AtomicBool,
    waiting: Mutex<Option<(Waker, Option<Arc<WakeQueue>>)>>,
}

impl Signal {
    /// Wakes the task that waits, or the one that waits next.
    pub fn raise(&self) {
        // The flag is still up: the task has not looked since.
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

    /// Ready when the signal was raised since the last time that this was ready.
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
