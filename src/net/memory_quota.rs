//! One quota for the memory that peers cause, shared by all edges.
//!
//! Each connection has an `Account` in each category, and takes a `Reservation` from the quota
//! before it allocates. Small amounts are free, so that idle and quick connections touch nothing
//! shared. A connection that finds nothing left waits in line; see `quota_line`. A quarter of each
//! category is kept for connections that hold little, so a few large ones do not stop the others.
//! While a connection waits in line, peers that move fewer bytes a second than the least rate are
//! cut, the slowest first, as many as are needed.

use super::account::{Account, Pace};
use crate::limits::Limits;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The unit of account.
pub const UNIT_BYTES: usize = 16 * 1024;
/// A connection that holds at most this much holds little.
const LITTLE_BYTES_MAX: usize = 1 << 20;
/// The shortest time between two searches for slow peers.
const RELIEF_PERIOD: Duration = Duration::from_millis(50);

/// The uses of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// Messages that are unfinished, or wait to be executed.
    Incoming,
    /// Replies, changes for subscribers and HTTP answers that are not read yet.
    Outgoing,
    /// Subscriptions.
    Subscriptions,
}

impl Category {
    /// The bytes that one account may hold without a reservation.
    pub const fn free_bytes(self) -> usize {
        match self {
            Self::Incoming => 4 * 1024,
            Self::Outgoing => 16 * 1024,
            Self::Subscriptions => 4 * 1024,
        }
    }
}

/// The memory of all edges.
#[derive(Debug)]
pub struct MemoryQuota {
    parts: [Arc<Part>; 3],
}

/// The state of a category.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The bytes that are reserved.
    pub reserved: usize,
    /// The most bytes that may be reserved.
    pub max: usize,
    /// The bytes that connections wait for.
    pub awaited: usize,
    /// The number of peers cut because they were slow.
    pub cut: u64,
}

impl MemoryQuota {
    /// The quota that an operator set.
    pub fn new(limits: &Limits) -> Arc<Self> {
        let rate = limits.min_transfer_rate;
        let part = |bytes| Arc::new(Part::new(bytes, rate));
        Arc::new(Self {
            parts: [
                part(limits.max_incoming_bytes),
                part(limits.max_outgoing_bytes),
                part(limits.max_subscription_bytes),
            ],
        })
    }

    fn part(&self, category: Category) -> &Arc<Part> {
        let [incoming, outgoing, subscriptions] = &self.parts;
        match category {
            Category::Incoming => incoming,
            Category::Outgoing => outgoing,
            Category::Subscriptions => subscriptions,
        }
    }

    /// Returns a connection's account.
    pub fn account(&self, category: Category) -> Arc<Account> {
        let part = Arc::clone(self.part(category));
        let id = part.next_id.fetch_add(1, Relaxed);
        Arc::new(Account::new(part, id, category))
    }

    /// Returns the state of a category.
    pub fn usage(&self, category: Category) -> Usage {
        let part = self.part(category);
        let reserved = part.total as usize - part.all.available_permits().min(part.total as usize);
        Usage {
            reserved: reserved * UNIT_BYTES,
            max: part.total as usize * UNIT_BYTES,
            awaited: part.awaited.load(Relaxed) * UNIT_BYTES,
            cut: part.cut.load(Relaxed),
        }
    }

    /// Cuts slow peers where a connection waits for memory, judged at `now`. Waiting connections
    /// call it. Returns how many accounts were cut.
    pub fn relieve(&self, now: Instant) -> usize {
        self.parts.iter().map(|part| part.relieve(now)).sum()
    }
}

/// The memory of one category.
#[derive(Debug)]
pub(super) struct Part {
    /// All units of the category.
    pub(super) all: Arc<Semaphore>,
    /// Units for connections that hold much.
    pub(super) much: Arc<Semaphore>,
    pub(super) total: u32,
    pub(super) much_total: u32,
    pub(super) little_max: u32,
    /// Units that connections wait for.
    pub(super) awaited: AtomicUsize,
    rate_min: u64,
    started: Instant,
    /// In milliseconds after `started`.
    relieved_at: AtomicU64,
    cut: AtomicU64,
    next_id: AtomicU64,
    /// Accounts that hold a reservation.
    holders: Mutex<HashMap<u64, Arc<Account>>>,
}

impl Part {
    fn new(bytes: usize, rate_min: u64) -> Self {
        let total = units(bytes).max(1);
        let much_total = (total - total / 4).max(1);
        Self {
            all: Arc::new(Semaphore::new(total as usize)),
            much: Arc::new(Semaphore::new(much_total as usize)),
            total,
            much_total,
            little_max: units(LITTLE_BYTES_MAX).min(total / 16),
            awaited: AtomicUsize::new(0),
            rate_min,
            started: Instant::now(),
            relieved_at: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            next_id: AtomicU64::new(0),
            holders: Mutex::default(),
        }
    }

    pub(super) fn holders(&self) -> MutexGuard<'_, HashMap<u64, Arc<Account>>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same as [`Part::relieve`], unless that was done just before.
    pub(super) fn relieve_once(&self) {
        let now = Instant::now();
        let at = u64::try_from(now.saturating_duration_since(self.started).as_millis());
        let (at, last) = (at.unwrap_or(u64::MAX), self.relieved_at.load(Relaxed));
        let is_due = last == 0 || u128::from(at.saturating_sub(last)) >= RELIEF_PERIOD.as_millis();
        let is_ours =
            || self.relieved_at.compare_exchange(last, at.max(1), Relaxed, Relaxed).is_ok();
        if is_due && is_ours() {
            self.relieve(now);
        }
    }

    fn relieve(&self, now: Instant) -> usize {
        let awaited = self.awaited.load(Relaxed);
        if awaited == 0 {
            return 0;
        }
        let mut coming = 0;
        let (mut slow, mut kept_waiting) = (Vec::new(), None::<(Instant, Arc<Account>)>);
        let mut is_moving = false;
        for account in self.holders().values() {
            let reserved = account.units();
            let Some(Pace { since, rate }) = account.pace(now) else {
                coming += if account.is_cut() { reserved } else { 0 };
                continue;
            };
            match rate {
                None => {}
                Some(rate) if rate >= self.rate_min => is_moving = true,
                // An account in line cannot help its slowness.
                Some(_) if account.is_in_line() => {
                    let older = kept_waiting.take().filter(|(oldest, _)| *oldest <= since);
                    kept_waiting = older.or_else(|| Some((since, Arc::clone(account))));
                }
                Some(rate) => slow.push((rate, Reverse(reserved), Arc::clone(account))),
            }
        }
        slow.sort_unstable_by_key(|(rate, reserved, _)| (*rate, *reserved));
        let mut count = 0;
        for (_, Reverse(reserved), account) in slow {
            if coming >= awaited {
                break;
            }
            coming += reserved;
            account.cut();
            count += 1;
        }
        // Where all holders wait for more memory, one has to give way.
        if coming == 0
            && !is_moving
            && let Some((_, account)) = kept_waiting
        {
            account.cut();
            count += 1;
        }
        self.cut.fetch_add(count as u64, Relaxed);
        count
    }
}

pub(super) fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX >> 4).min(u32::MAX >> 4)
}

#[cfg(test)]
mod tests;
