//! How many deferred replies there may be, whose they are, and how many bytes they hold.

use crate::limits::{
    CHANGES_PAGES_MAX, CHANGES_WAITING_BYTES_MAX, CHANGES_WAITING_MAX, HISTORY_READERS_MAX,
    KEY_BYTES_MAX,
};
use crate::net::{Caller, PeerAddress};
use crate::protocol::Refusal;
use crate::protocol::refusal::{Code, Detail};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a waiting reply takes besides its prefix, in bytes, about.
const OVERHEAD: usize = 512;
/// A connection may take this part of what is free, besides its first place. So the more is taken,
/// the less may one connection have.
const SHARE: usize = 8;
/// A connection's first place is always there for a prefix of no more than this.
const SHORT_BYTES: usize = OVERHEAD + 2 * 1024;

/// The limits that all deferred replies share.
#[derive(Debug)]
pub(crate) struct DeferredLimits {
    max: Usage,
    /// So many places are kept for connections that have none yet.
    first_places: usize,
    taken: Mutex<Taken>,
    /// Who may have a page of the history in memory.
    pub(super) pages: Arc<Semaphore>,
    /// Who may read the history, on a thread of its own.
    pub(super) reads: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Taken {
    all: Usage,
    connections: HashMap<u64, Usage>,
    addresses: HashMap<PeerAddress, Usage>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Usage {
    places: usize,
    bytes: usize,
}

impl Usage {
    fn plus(self, bytes: usize) -> Self {
        Self { places: self.places + 1, bytes: self.bytes + bytes }
    }

    fn minus(self, bytes: usize) -> Self {
        let (places, bytes) = (self.places.saturating_sub(1), self.bytes.saturating_sub(bytes));
        Self { places, bytes }
    }

    fn is_over(self, max: Self) -> bool {
        self.places > max.places || self.bytes > max.bytes
    }
}

impl DeferredLimits {
    /// For a broker that has so many connections at the most.
    pub(crate) fn new(max_connections: usize) -> Arc<Self> {
        let places = CHANGES_WAITING_MAX.max(max_connections.saturating_mul(2));
        let max = Usage { places, bytes: CHANGES_WAITING_BYTES_MAX };
        Arc::new(Self {
            max,
            first_places: max_connections,
            taken: Mutex::default(),
            pages: Arc::new(Semaphore::new(CHANGES_PAGES_MAX)),
            reads: Arc::new(Semaphore::new(HISTORY_READERS_MAX)),
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a reply to `caller` that waits for a prefix.
    pub(super) fn take(
        self: &Arc<Self>,
        caller: &Caller,
        prefix: &[u8],
    ) -> Result<DeferredPlace, Refusal> {
        let bytes = OVERHEAD + 2 * prefix.len();
        let mut taken = self.taken();
        self.check(&taken, caller, bytes)?;
        taken.all = taken.all.plus(bytes);
        add(&mut taken.connections, caller.id, bytes);
        add(&mut taken.addresses, caller.address, bytes);
        drop(taken);
        let (connection, address) = (caller.id, caller.address);
        Ok(DeferredPlace { limits: Arc::clone(self), connection, address, bytes })
    }

    /// Waits for the right to read the history. It is for the thread that reads: that goes on for a
    /// while after whoever wanted its page has given up.
    pub(crate) async fn read(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.reads).acquire_owned().await.ok()
    }
}

impl DeferredLimits {
    fn check(&self, taken: &Taken, caller: &Caller, bytes: usize) -> Result<(), Refusal> {
        let Self { max, first_places, .. } = *self;
        let three_quarters = Usage { places: max.places / 4 * 3, bytes: max.bytes / 4 * 3 };
        let of_connection = taken.connections.get(&caller.id).copied().unwrap_or_default();
        let of_address = taken.addresses.get(&caller.address).copied().unwrap_or_default();
        let is_local = caller.address == PeerAddress::Local;
        let is_first = of_connection.places == 0;
        let others_first = first_places.saturating_sub(taken.connections.len());
        let all = match is_first {
            true => max,
            false => Usage { places: max.places.saturating_sub(others_first), ..max },
        };
        let is_short = is_first && bytes <= SHORT_BYTES;
        let all = if is_short { all } else { Usage { bytes: three_quarters.bytes, ..all } };
        let share = Usage {
            places: 1 + all.places.saturating_sub(taken.all.places) / SHARE,
            bytes: all.bytes.saturating_sub(taken.all.bytes) / SHARE,
        };
        let share = Usage { bytes: share.bytes.max(OVERHEAD + 2 * KEY_BYTES_MAX), ..share };
        let checks = [
            (of_address, if is_local { max } else { three_quarters }, "of this address"),
            (of_connection, share, "of this connection"),
            (taken.all, all, "of all connections"),
        ];
        for (used, max, whose) in checks {
            let wanted = used.plus(bytes);
            if wanted.is_over(max) {
                return Err(refusal(wanted, max, whose));
            }
        }
        Ok(())
    }
}

fn refusal(wanted: Usage, max: Usage, whose: &str) -> Refusal {
    let (limit, max, what) = match wanted.places > max.places {
        true => ("changes_waiting", max.places, "requests"),
        false => ("changes_waiting_bytes", max.bytes, "bytes of requests"),
    };
    let message = format!(
        "more than {max} {what} {whose} would wait for changes: wait for some to be answered"
    );
    Refusal::new(Code::TooLarge, message)
        .with("limit", Detail::Text(limit.to_owned()))
        .with("max", Detail::Number(max as u64))
}

fn add<K: Hash + Eq>(usages: &mut HashMap<K, Usage>, key: K, bytes: usize) {
    let usage = usages.entry(key).or_default();
    *usage = usage.plus(bytes);
}

fn subtract<K: Hash + Eq>(usages: &mut HashMap<K, Usage>, key: &K, bytes: usize) {
    if let Some(usage) = usages.get_mut(key) {
        *usage = usage.minus(bytes);
        if usage.places == 0 {
            usages.remove(key);
        }
    }
}

/// The place of one reply; free again when dropped.
#[derive(Debug)]
pub(super) struct DeferredPlace {
    limits: Arc<DeferredLimits>,
    connection: u64,
    address: PeerAddress,
    bytes: usize,
}

impl Drop for DeferredPlace {
    fn drop(&mut self) {
        let mut taken = self.limits.taken();
        taken.all = taken.all.minus(self.bytes);
        subtract(&mut taken.connections, &self.connection, self.bytes);
        subtract(&mut taken.addresses, &self.address, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn remote(last: u8) -> Arc<Caller> {
        Caller::new(SocketAddr::from(([192, 0, 2, last], 1)).into())
    }

    /// Takes until it is refused.
    fn fill(
        limits: &Arc<DeferredLimits>,
        caller: &Caller,
        prefix: &[u8],
    ) -> (Vec<DeferredPlace>, Refusal) {
        let mut places = Vec::new();
        loop {
            match limits.take(caller, prefix) {
                Ok(place) => places.push(place),
                Err(refusal) => return (places, refusal),
            }
        }
    }

    #[test]
    fn however_many_take_what_they_can_a_newcomer_finds_a_place() {
        for prefix in [vec![], vec![b'p'; 100], vec![b'p'; KEY_BYTES_MAX]] {
            let limits = DeferredLimits::new(301);
            let hogs: Vec<_> = (0..300).map(|_| Caller::new(PeerAddress::Local)).collect();
            let held: Vec<_> = hogs.iter().map(|hog| fill(&limits, hog, &prefix).0).collect();
            assert!(held[0].len() >= 512 || prefix.len() == KEY_BYTES_MAX, "{}", held[0].len());
            let newcomer = Caller::new(PeerAddress::Local);
            let (places, refusal) = fill(&limits, &newcomer, b"mine");
            assert!(!places.is_empty(), "{} bytes: {refusal}", prefix.len());
            let all = limits.taken().all;
            assert!(!all.is_over(limits.max), "{all:?}");
            drop((held, places));
            assert_eq!(limits.taken().all, Usage::default());
            assert!(limits.taken().connections.is_empty() && limits.taken().addresses.is_empty());
        }
    }

    #[test]
    fn one_address_takes_three_quarters_and_the_refusal_names_the_limit() {
        let limits = DeferredLimits::new(4_096);
        let mut held = Vec::new();
        let refusal = loop {
            match limits.take(&remote(1), b"") {
                Ok(place) => held.push(place),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(held.len(), CHANGES_WAITING_MAX / 4 * 3);
        assert!(refusal.message().starts_with("more than 7500 requests of this address"));
        assert!(limits.take(&remote(2), b"").is_ok());
    }
}
