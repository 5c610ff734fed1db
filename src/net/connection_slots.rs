//! The number of connections of an edge, its limits, and which connection gives way to a new one.
//!
//! A remote address may take three quarters of the slots. At a limit, the connection that has been
//! idle longest gives way: of the new one's own address where that is at its limit, otherwise of
//! the address with the most connections. A connection with a request in flight never gives way,
//! unless its peer is slow to take the answer. So neither silent peers nor quiet ones keep all
//! slots.

use futures_util::task::AtomicWaker;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

/// The origin of a connection, as far as limits distinguish peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    /// This machine: a loopback address, or a Unix socket.
    Local,
    /// An IPv4 address, or the network of an IPv6 one: its first 64 bits.
    Remote(IpAddr),
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            ip if ip.is_loopback() => Self::Local,
            IpAddr::V6(ip) => {
                let network = u128::from(ip) & !u128::from(u64::MAX);
                Self::Remote(IpAddr::V6(Ipv6Addr::from(network)))
            }
            ip => Self::Remote(ip),
        }
    }
}

/// What a connection is doing, in the order of giving way: the first variants go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Activity {
    /// No handshake and no request so far.
    Greeting,
    /// Idle between requests.
    Quiet,
    /// Waiting for future events: subscribed, or with a `wait`, `changes` or event stream.
    Following,
    /// An answer waits to be read, or a message is unfinished, and the peer hardly progresses.
    Slow,
    /// A request or an answer is in flight.
    Busy,
}

impl Activity {
    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Greeting,
            1 => Self::Quiet,
            2 => Self::Following,
            3 => Self::Slow,
            _ => Self::Busy,
        }
    }
}

type Hook = Box<dyn Fn() + Send + Sync>;

/// The connection slots of one edge.
pub struct ConnectionSlots {
    max: usize,
    max_each: usize,
    taken: Mutex<Taken>,
    started: Instant,
    has_warned: AtomicBool,
    on_refusal: Hook,
}

#[derive(Default)]
struct Taken {
    slots: HashMap<u64, Arc<State>>,
    counts: HashMap<PeerAddress, usize>,
    next: u64,
}

/// The state of one connection.
struct State {
    address: PeerAddress,
    activity: AtomicU8,
    /// When the connection was last active, in microseconds after the edge started.
    active_at: AtomicU64,
    is_evicted: AtomicBool,
    waker: AtomicWaker,
}

impl fmt::Debug for ConnectionSlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionSlots").field("max", &self.max).finish_non_exhaustive()
    }
}

impl ConnectionSlots {
    /// Slots for `max` connections. `on_refusal` is called for each connection that gets none, or
    /// has to give its own to another.
    pub fn new(max: usize, on_refusal: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            max,
            max_each: (max - max / 4).max(1),
            taken: Mutex::default(),
            started: Instant::now(),
            has_warned: AtomicBool::new(false),
            on_refusal: Box::new(on_refusal),
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of taken slots.
    pub fn count(&self) -> usize {
        self.taken().slots.len()
    }

    /// Returns a slot for a connection from `address`; `None` when none is free, and no idle
    /// connection could give way.
    pub fn take(self: &Arc<Self>, address: PeerAddress, now: Instant) -> Option<Slot> {
        let mut taken = self.taken();
        let of_address = taken.counts.get(&address).copied().unwrap_or_default();
        let is_address_full = address != PeerAddress::Local && of_address >= self.max_each;
        if is_address_full || taken.slots.len() >= self.max {
            let victim = if is_address_full { taken.idle_of(address) } else { taken.idle() };
            let evicted = victim.and_then(|id| taken.remove(id));
            (self.on_refusal)();
            if !self.has_warned.swap(true, Relaxed) {
                tracing::warn!(
                    "{} connections, as --max-connections allows: idle ones give way to new ones",
                    taken.slots.len() + usize::from(evicted.is_some())
                );
            }
            evicted?.evict();
        }
        let id = taken.next;
        taken.next += 1;
        let state = Arc::new(State {
            address,
            activity: AtomicU8::new(Activity::Greeting as u8),
            active_at: AtomicU64::new(self.micros(now)),
            is_evicted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        taken.slots.insert(id, Arc::clone(&state));
        *taken.counts.entry(address).or_default() += 1;
        drop(taken);
        Some(Slot { slots: Arc::clone(self), id, state })
    }

    fn micros(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

impl Taken {
    /// The connection that gives way: of the address with the most, among those that have one.
    fn idle(&self) -> Option<u64> {
        let key = |state: &State| {
            let count = self.counts.get(&state.address).copied().unwrap_or_default();
            (Reverse(count), state.rank())
        };
        self.first_by(|_| true, key)
    }

    fn idle_of(&self, address: PeerAddress) -> Option<u64> {
        self.first_by(|state| state.address == address, State::rank)
    }

    fn first_by<K: Ord>(
        &self,
        is_meant: impl Fn(&State) -> bool,
        key: impl Fn(&State) -> K,
    ) -> Option<u64> {
        let idle = self.slots.iter().filter(|(_, state)| state.is_idle() && is_meant(state));
        idle.min_by_key(|(id, state)| (key(state), **id)).map(|(id, _)| *id)
    }

    fn remove(&mut self, id: u64) -> Option<Arc<State>> {
        let state = self.slots.remove(&id)?;
        if let Some(count) = self.counts.get_mut(&state.address) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&state.address);
            }
        }
        Some(state)
    }
}

impl State {
    fn activity(&self) -> Activity {
        Activity::from_number(self.activity.load(Relaxed))
    }

    fn is_idle(&self) -> bool {
        self.activity() != Activity::Busy
    }

    fn rank(&self) -> (Activity, u64) {
        (self.activity(), self.active_at.load(Relaxed))
    }

    fn evict(&self) {
        self.is_evicted.store(true, Relaxed);
        self.waker.wake();
    }
}

/// One connection's slot; free again when dropped.
pub struct Slot {
    slots: Arc<ConnectionSlots>,
    id: u64,
    state: Arc<State>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Slot {
    /// The origin of the connection.
    pub fn address(&self) -> PeerAddress {
        self.state.address
    }

    /// Records that the peer has sent a request.
    pub fn touch(&self, now: Instant) {
        self.state.active_at.store(self.slots.micros(now), Relaxed);
    }

    /// Records what the connection is doing; `active_at` is when its peer last sent or read bytes.
    pub fn note(&self, activity: Activity, active_at: Instant) {
        self.state.activity.store(activity as u8, Relaxed);
        self.state.active_at.fetch_max(self.slots.micros(active_at), Relaxed);
    }

    /// Whether the slot was given to another connection: this one must end.
    pub fn is_evicted(&self) -> bool {
        self.state.is_evicted.load(Relaxed)
    }

    /// Ready when the connection must end.
    pub fn poll_evicted(&self, context: &Context<'_>) -> Poll<()> {
        self.state.waker.register(context.waker());
        if self.is_evicted() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Waits until the connection must end.
    pub async fn evicted(&self) {
        poll_fn(|context| self.poll_evicted(context)).await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.taken().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    fn slots(max: usize) -> (Arc<ConnectionSlots>, Arc<AtomicUsize>) {
        let refused = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&refused);
        let on_refusal = move || {
            counter.fetch_add(1, Relaxed);
        };
        (ConnectionSlots::new(max, on_refusal), refused)
    }

    fn remote(last: u8) -> PeerAddress {
        SocketAddr::from(([192, 0, 2, last], 1)).into()
    }

    fn later(millis: u64) -> Instant {
        Instant::now() + Duration::from_millis(millis)
    }

    fn evicted(all: &[Slot]) -> Vec<usize> {
        (0..all.len()).filter(|place| all[*place].is_evicted()).collect()
    }

    #[test]
    fn the_connection_that_was_idle_longest_gives_way() {
        let (slots, refused) = slots(4);
        let take = |at| {
            let slot = slots.take(PeerAddress::Local, later(at)).unwrap();
            slot.note(Activity::Quiet, later(at));
            slot
        };
        let all: Vec<_> = (0..4).map(|n| take(n * 10)).collect();
        assert_eq!(slots.count(), 4, "this machine may take all");
        all[0].note(Activity::Busy, later(100));
        all[1].note(Activity::Quiet, later(200));
        let _newcomers = [take(1_000), take(1_001)];
        assert_eq!((evicted(&all), slots.count()), (vec![2, 3], 4));
        let _third = take(1_002);
        assert_eq!((evicted(&all), refused.load(Relaxed)), (vec![1, 2, 3], 3));
        drop(all);
        assert_eq!(slots.count(), 3, "an evicted connection gives back nothing twice");
    }

    #[test]
    fn a_connection_that_has_just_been_active_gives_way_last() {
        let (slots, _) = slots(3);
        let all: Vec<_> =
            (0..3).map(|n| slots.take(PeerAddress::Local, later(n)).unwrap()).collect();
        let _newcomers: Vec<_> = (0..20)
            .map(|n| {
                all[0].touch(later(1_000 + n));
                slots.take(PeerAddress::Local, later(1_000 + n)).unwrap()
            })
            .collect();
        assert_eq!(evicted(&all), [1, 2]);
        all[0].note(Activity::Quiet, later(1_500));
        let _newcomer = slots.take(PeerAddress::Local, later(2_000)).unwrap();
        assert_eq!(evicted(&all), [1, 2], "those that came earlier go first");
    }

    #[test]
    fn quiet_connections_give_way_before_followers_then_slow_ones_and_busy_ones_stay() {
        let (slots, _) = slots(5);
        let all: Vec<_> =
            (0..5).map(|_| slots.take(PeerAddress::Local, later(4)).unwrap()).collect();
        all[0].note(Activity::Busy, later(0));
        all[1].note(Activity::Slow, later(1));
        all[2].note(Activity::Following, later(2));
        all[3].note(Activity::Quiet, later(3));
        let mut newcomers = Vec::new();
        for gone in [vec![4], vec![3, 4], vec![2, 3, 4], vec![1, 2, 3, 4]] {
            let newcomer = slots.take(PeerAddress::Local, later(10)).unwrap();
            newcomer.note(Activity::Busy, later(10));
            newcomers.push(newcomer);
            assert_eq!(evicted(&all), gone);
        }
        assert!(slots.take(PeerAddress::Local, later(20)).is_none(), "all are busy");
        assert_eq!(slots.count(), 5);
    }

    #[test]
    fn an_address_at_three_quarters_gives_up_its_own_connections() {
        let (slots, _) = slots(8);
        let many: Vec<_> = (0..6).map(|n| slots.take(remote(1), later(n)).unwrap()).collect();
        let seventh = slots.take(remote(1), later(50)).unwrap();
        assert_eq!((evicted(&many), slots.count()), (vec![0], 6));
        let others: Vec<_> =
            (2..6).map(|n| slots.take(remote(n), later(n.into())).unwrap()).collect();
        assert_eq!(
            (evicted(&many), slots.count()),
            (vec![0, 1, 2], 8),
            "of the address with the most"
        );
        many.iter().chain([&seventh]).for_each(|slot| slot.note(Activity::Busy, later(60)));
        let _newcomer = slots.take(remote(9), later(70)).unwrap();
        assert_eq!(evicted(&others), [0], "then the idlest of those with fewer");
    }

    #[test]
    fn an_address_is_an_ipv4_address_a_network_of_ipv6_or_this_machine() {
        let of = |text: &str| PeerAddress::from(text.parse::<SocketAddr>().unwrap());
        assert_eq!(of("127.0.0.9:1"), PeerAddress::Local);
        assert_eq!(of("[::1]:1"), PeerAddress::Local);
        assert_eq!(of("[::ffff:127.0.0.1]:1"), PeerAddress::Local);
        assert_eq!(of("[::ffff:192.0.2.7]:1"), of("192.0.2.7:9"));
        assert_eq!(of("[2001:db8:1:2:3::4]:1"), of("[2001:db8:1:2:ffff::1]:1"));
        assert_ne!(of("[2001:db8:1:2::4]:1"), of("[2001:db8:1:3::4]:1"));
        assert_ne!(of("192.0.2.7:1"), of("192.0.2.8:1"));
    }

    #[test]
    fn a_connection_that_waits_to_be_evicted_is_woken() {
        use futures_util::FutureExt;
        let (slots, _) = slots(1);
        let first = slots.take(PeerAddress::Local, later(0)).unwrap();
        assert!(first.evicted().now_or_never().is_none());
        let _second = slots.take(PeerAddress::Local, later(0)).unwrap();
        assert!(first.evicted().now_or_never().is_some());
    }
}
