//! One quota for the memory that peers cause, all edges together.
//!
//! Each connection has an [`Account`] a category, and takes a [`Reservation`] from the quota before
//! it allocates. Small amounts are free, so that idle and quick connections touch nothing shared.
//! Who finds nothing left stands in line; see [`quota_line`](super::quota_line). A quarter of each
//! category is kept for connections that hold little, so few large ones do not stop the others.
//! While somebody stands in line, peers that move fewer bytes a second than the least rate are cut,
//! the slowest first, as many as are needed.

use super::quota_line::Line;
use crate::limits::Limits;
use futures_util::task::AtomicWaker;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit of account.
pub const UNIT_BYTES: usize = 16 * 1024;
/// A reservation that shrinks keeps this much more than it needs, so that a connection whose needs
/// go up and down does not come back to the quota each time.
const SLACK_BYTES: usize = 64 * 1024;
/// A connection that holds no more than this holds little.
const LITTLE_BYTES_MAX: usize = 1 << 20;
/// A peer's rate is known after it was observed for so long.
const RATE_WINDOW: Duration = Duration::from_secs(1);
/// Slow peers are looked for at most this often.
const RELIEF_PERIOD: Duration = Duration::from_millis(50);

/// What memory is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// Messages that are unfinished, or wait to be executed.
    Incoming,
    /// Replies, changes for subscribers and HTTP answers that are made and not read.
    Outgoing,
    /// Subscriptions.
    Subscriptions,
}

impl Category {
    /// What one account may hold without a reservation.
    pub const fn free_bytes(self) -> usize {
        match self {
            Self::Incoming => 4 * 1024,
            Self::Outgoing => 16 * 1024,
            Self::Subscriptions => 0,
        }
    }
}

/// The memory of all edges.
#[derive(Debug)]
pub struct MemoryQuota {
    parts: [Arc<Part>; 3],
}

/// How a category stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that are reserved.
    pub reserved: usize,
    /// Most bytes that may be.
    pub max: usize,
    /// Bytes that are waited for.
    pub awaited: usize,
    /// How many peers were cut for their slowness.
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

    /// A connection's account.
    pub fn account(&self, category: Category) -> Arc<Account> {
        let part = Arc::clone(self.part(category));
        let id = part.next_id.fetch_add(1, Relaxed);
        Arc::new(Account {
            part,
            id,
            free: category.free_bytes(),
            reserved: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
            observed: Mutex::new(None),
            is_cut: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        })
    }

    /// How a category stands.
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

    /// Cuts slow peers where somebody waits for memory, judged at `now`. Who stands in line calls
    /// it. Returns how many accounts were cut.
    pub fn relieve(&self, now: Instant) -> usize {
        self.parts.iter().map(|part| part.relieve(now)).sum()
    }
}

/// The memory of one category.
#[derive(Debug)]
pub(super) struct Part {
    /// All units.
    pub(super) all: Arc<Semaphore>,
    /// Those that connections which hold much may take.
    pub(super) much: Arc<Semaphore>,
    total: u32,
    much_total: u32,
    little_max: u32,
    /// Units that are stood in line for.
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

    fn holders(&self) -> MutexGuard<'_, HashMap<u64, Arc<Account>>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same as [`Part::relieve`], unless it was done just before.
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
        let mut slow = Vec::new();
        for account in self.holders().values() {
            let reserved = account.reserved.load(Relaxed);
            if account.is_cut() {
                coming += reserved;
            } else if let Some(rate) = account.rate(now)
                && rate < self.rate_min
            {
                slow.push((rate, usize::MAX - reserved, Arc::clone(account)));
            }
        }
        slow.sort_unstable_by_key(|(rate, rest, _)| (*rate, *rest));
        let mut count = 0;
        for (_, rest, account) in slow {
            if coming >= awaited {
                break;
            }
            coming += usize::MAX - rest;
            account.cut();
            count += 1;
        }
        self.cut.fetch_add(count as u64, Relaxed);
        count
    }
}

/// What one connection holds in one category, and how quickly its peer makes that less.
#[derive(Debug)]
pub struct Account {
    part: Arc<Part>,
    id: u64,
    free: usize,
    /// Units.
    reserved: AtomicUsize,
    moved: AtomicU64,
    /// Since when the peer is waited for, and what it had moved by then.
    observed: Mutex<Option<(Instant, u64)>>,
    is_cut: AtomicBool,
    waker: AtomicWaker,
}

impl Account {
    /// An empty reservation.
    pub fn reservation(self: &Arc<Self>) -> Reservation {
        Reservation { account: Arc::clone(self), held: None, much: None, line: None }
    }

    /// The peer has read, or sent, so many bytes more.
    pub fn moved(&self, bytes: usize) {
        if self.reserved.load(Relaxed) > 0 {
            self.moved.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// Whether it is the peer that is waited for: only then does its rate count.
    pub fn observe(&self, waits_for_peer: bool) {
        let mut observed = self.observed();
        if waits_for_peer != observed.is_some() {
            let moved = self.moved.load(Relaxed);
            *observed = waits_for_peer.then(|| (Instant::now(), moved));
        }
    }

    /// Whether the connection is to be closed: others wait for its memory.
    pub fn is_cut(&self) -> bool {
        self.is_cut.load(Relaxed)
    }

    /// Ready when the connection is to be closed.
    pub fn poll_cut(&self, context: &Context<'_>) -> Poll<()> {
        if !self.is_cut() {
            self.waker.register(context.waker());
        }
        if self.is_cut() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Bytes that are reserved.
    pub fn reserved(&self) -> usize {
        self.reserved.load(Relaxed) * UNIT_BYTES
    }

    fn cut(&self) {
        self.is_cut.store(true, Relaxed);
        self.waker.wake();
    }

    fn observed(&self) -> MutexGuard<'_, Option<(Instant, u64)>> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes a second since it was last asked, when that is long enough ago.
    fn rate(&self, now: Instant) -> Option<u64> {
        let mut observed = self.observed();
        let (since, before) = (*observed)?;
        let time = now.saturating_duration_since(since);
        if time < RATE_WINDOW {
            return None;
        }
        let moved = self.moved.load(Relaxed);
        *observed = Some((now, moved));
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        Some(moved.saturating_sub(before).saturating_mul(1_000) / millis)
    }

    fn add(self: &Arc<Self>, units: u32) {
        if units > 0 && self.reserved.fetch_add(units as usize, Relaxed) == 0 {
            self.part.holders().insert(self.id, Arc::clone(self));
        }
    }

    fn sub(&self, units: u32) {
        if units > 0 && self.reserved.fetch_sub(units as usize, Relaxed) == units as usize {
            self.part.holders().remove(&self.id);
        }
    }
}

/// Memory that is set aside; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    account: Arc<Account>,
    held: Option<OwnedSemaphorePermit>,
    /// The same units, where they are much.
    much: Option<OwnedSemaphorePermit>,
    line: Option<Line>,
}

impl Reservation {
    /// Whose it is.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// How many bytes it covers.
    pub fn covered(&self) -> usize {
        self.account.free + self.held() as usize * UNIT_BYTES
    }

    /// Makes it cover `bytes`, if that is there. More than there is for all is covered when nobody
    /// else holds anything.
    pub fn try_cover(&mut self, bytes: usize) -> bool {
        let wanted = self.wanted(bytes);
        let missing = wanted.saturating_sub(self.held());
        if missing == 0 {
            self.line = None;
            return true;
        }
        let part = &self.account.part;
        let much_missing = self.much_missing(wanted);
        let try_acquire =
            |units: &Arc<Semaphore>, count| Arc::clone(units).try_acquire_many_owned(count).ok();
        let Some(much) = try_acquire(&part.much, much_missing) else { return false };
        let Some(more) = try_acquire(&part.all, missing) else { return false };
        self.take(much, more);
        self.line = None;
        true
    }

    /// Covers `bytes`, or stands in line for what is missing and returns false.
    pub fn cover(&mut self, bytes: usize) -> bool {
        if self.try_cover(bytes) {
            return true;
        }
        let wanted = self.wanted(bytes);
        let missing = wanted.saturating_sub(self.held());
        let part = Arc::clone(&self.account.part);
        self.line = Some(Line::join(part, self.much_missing(wanted), missing));
        false
    }

    /// Waits until it covers `bytes`. Wait with nothing in hand, or with something that becomes
    /// less by itself: two that wait for what the other holds would wait for ever.
    pub async fn wait(&mut self, bytes: usize) {
        if !self.cover(bytes) {
            std::future::poll_fn(|context| self.poll_turn(context)).await;
        }
    }

    /// Whether it stands in line.
    pub fn is_in_line(&self) -> bool {
        self.line.is_some()
    }

    /// Leaves the line.
    pub fn leave_line(&mut self) {
        self.line = None;
    }

    /// Ready when its turn has come: then it covers what it stood in line for.
    pub fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(line) = &mut self.line else { return Poll::Pending };
        let Poll::Ready((much, more)) = line.poll(context) else { return Poll::Pending };
        self.line = None;
        self.take(much, more);
        Poll::Ready(())
    }

    /// Gives back what `bytes` do not need, but for a little that spares coming back.
    pub fn settle(&mut self, bytes: usize) {
        let needed = self.wanted(bytes.saturating_add(SLACK_BYTES));
        self.shrink(needed);
    }

    /// Gives back all that `bytes` do not need.
    pub fn settle_exactly(&mut self, bytes: usize) {
        self.shrink(self.wanted(bytes));
    }

    fn shrink(&mut self, needed: u32) {
        let spare = self.held().saturating_sub(needed);
        if spare == 0 {
            return;
        }
        let is_much = needed > self.account.part.little_max;
        let much_needed = if is_much { needed.min(self.account.part.much_total) } else { 0 };
        split_off(&mut self.much, much_needed);
        split_off(&mut self.held, needed);
        self.account.sub(spare);
    }

    fn held(&self) -> u32 {
        permits(self.held.as_ref())
    }

    fn wanted(&self, bytes: usize) -> u32 {
        units(bytes.saturating_sub(self.account.free)).min(self.account.part.total)
    }

    /// What is missing of the units that are much, when it holds `wanted`.
    fn much_missing(&self, wanted: u32) -> u32 {
        let part = &self.account.part;
        if wanted <= part.little_max {
            return 0;
        }
        wanted.min(part.much_total).saturating_sub(permits(self.much.as_ref()))
    }

    fn take(&mut self, much: OwnedSemaphorePermit, more: OwnedSemaphorePermit) {
        self.account.add(permits(Some(&more)));
        merge(&mut self.much, much);
        merge(&mut self.held, more);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.account.sub(self.held());
    }
}

fn permits(held: Option<&OwnedSemaphorePermit>) -> u32 {
    held.map_or(0, |held| u32::try_from(held.num_permits()).unwrap_or(u32::MAX))
}

fn merge(held: &mut Option<OwnedSemaphorePermit>, more: OwnedSemaphorePermit) {
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
}

/// Leaves `needed` of what is held.
fn split_off(held: &mut Option<OwnedSemaphorePermit>, needed: u32) {
    let spare = permits(held.as_ref()).saturating_sub(needed) as usize;
    if let Some(held) = held {
        drop(held.split(spare));
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX >> 4).min(u32::MAX >> 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    const UNIT: usize = UNIT_BYTES;
    const OUTGOING: Category = Category::Outgoing;
    const FREE: usize = OUTGOING.free_bytes();

    /// A quota of so many units for what goes out.
    fn quota(units: usize) -> Arc<MemoryQuota> {
        let max_outgoing_bytes = units * UNIT;
        MemoryQuota::new(&Limits { max_outgoing_bytes, ..Limits::default() })
    }

    fn none(quota: &MemoryQuota) -> Reservation {
        quota.account(OUTGOING).reservation()
    }

    fn reserved(quota: &MemoryQuota) -> usize {
        quota.usage(OUTGOING).reserved / UNIT
    }

    fn has_its_turn(reservation: &mut Reservation) -> bool {
        reservation.poll_turn(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_little_is_free_and_the_rest_is_shared_and_given_back() {
        let quota = quota(64);
        let (mut one, mut two) = (none(&quota), none(&quota));
        assert!(one.try_cover(FREE) && reserved(&quota) == 0);
        assert!(one.try_cover(FREE + 40 * UNIT - 1) && reserved(&quota) == 40);
        assert!(!two.try_cover(FREE + 9 * UNIT), "a quarter is kept for those who hold little");
        assert!(two.try_cover(FREE + 4 * UNIT) && reserved(&quota) == 44);
        assert!(two.try_cover(FREE + 8 * UNIT), "together they hold three quarters");
        one.settle(FREE + 39 * UNIT);
        assert_eq!(reserved(&quota), 48, "a little slack stays");
        one.settle(FREE + 10 * UNIT);
        assert_eq!(reserved(&quota), 8 + 14);
        one.settle_exactly(FREE + 10 * UNIT);
        assert_eq!(reserved(&quota), 8 + 10);
        drop((one, two));
        assert_eq!(reserved(&quota), 0);
        assert!(none(&quota).try_cover(usize::MAX), "alone, more than there is passes");
        assert_eq!(quota.part(OUTGOING).much.available_permits(), 48);
    }

    #[test]
    fn who_stands_in_line_is_served_in_turn_and_who_leaves_takes_nothing_along() {
        let _runtime = runtime();
        let _entered = _runtime.enter();
        let quota = quota(64);
        let [mut one, mut two, mut three, mut four] = [(); 4].map(|()| none(&quota));
        assert!(one.cover(FREE + 48 * UNIT));
        assert!(!two.cover(FREE + 20 * UNIT) && !has_its_turn(&mut two));
        assert!(!three.cover(FREE + 5 * UNIT) && !has_its_turn(&mut three));
        assert!(!four.cover(FREE + 48 * UNIT) && !has_its_turn(&mut four));
        assert_eq!(quota.usage(OUTGOING).awaited, 73 * UNIT);
        one.settle_exactly(FREE + 40 * UNIT);
        assert!(!has_its_turn(&mut three), "the second comes first");
        two.leave_line();
        assert!(has_its_turn(&mut three) && three.covered() == FREE + 5 * UNIT);
        drop((one, three));
        assert!(has_its_turn(&mut four) && four.covered() == FREE + 48 * UNIT);
        assert_eq!(quota.usage(OUTGOING).awaited, 0);
    }

    #[test]
    fn the_slowest_are_cut_when_others_wait_and_only_as_many_as_are_needed() {
        let _runtime = runtime();
        let _entered = _runtime.enter();
        let quota = quota(64);
        let rate = Limits::default().min_transfer_rate as usize;
        let mut all: Vec<_> = (0..4).map(|_| none(&quota)).collect();
        for (one, moved) in all.iter_mut().zip([rate * 4, rate / 10, rate / 20, 0]) {
            assert!(one.try_cover(FREE + 12 * UNIT));
            one.account().observe(true);
            one.account().moved(moved);
        }
        // The fourth waits for something else than its peer.
        all[3].account().observe(false);
        let cut = |all: &[Reservation]| -> Vec<bool> {
            all.iter().map(|one| one.account().is_cut()).collect()
        };
        let at = |millis| Instant::now() + Duration::from_millis(millis);
        assert_eq!(quota.relieve(at(2_000)), 0, "nobody waits");
        let mut waiting = none(&quota);
        assert!(!waiting.cover(FREE + 10 * UNIT) && !has_its_turn(&mut waiting));
        assert_eq!(quota.relieve(at(900)), 0, "too early to know");
        assert_eq!(quota.relieve(at(2_000)), 1);
        assert_eq!(cut(&all), [false, false, true, false]);
        assert_eq!(quota.relieve(at(4_000)), 0, "its memory is on its way back");
        let mut more = none(&quota);
        assert!(!more.cover(FREE + 20 * UNIT) && !has_its_turn(&mut more));
        assert_eq!(quota.relieve(at(6_000)), 2, "the first has not gone on either");
        assert_eq!(cut(&all), [true, true, true, false]);
        all.clear();
        assert!(has_its_turn(&mut waiting) && has_its_turn(&mut more));
        assert_eq!(quota.usage(OUTGOING).cut, 3);
    }

    #[test]
    fn who_waits_looks_for_slow_peers_by_itself() {
        runtime().block_on(async {
            let limits = Limits { max_outgoing_bytes: 64 * UNIT, ..Limits::default() };
            let quota = MemoryQuota::new(&limits);
            let mut slow = none(&quota);
            assert!(slow.try_cover(FREE + 48 * UNIT));
            slow.account().observe(true);
            let account = Arc::clone(slow.account());
            let gone = tokio::spawn(async move {
                std::future::poll_fn(|context| account.poll_cut(context)).await;
                drop(slow);
            });
            let mut waiting = none(&quota);
            waiting.wait(FREE + 20 * UNIT).await;
            assert_eq!(waiting.covered(), FREE + 20 * UNIT);
            gone.await.unwrap();
        });
    }
}
