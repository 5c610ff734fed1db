//! Who waits for a change under a prefix. A commit is matched against all of them in one walk along
//! each of its keys, and wakes those alone that it has something for. What was committed before a
//! request came is looked through for all such requests together, away from the I/O threads.

use super::WaitOutcome;
use super::prefixes::{NodeId, PrefixIndex, Ticket};
use crate::net::Caller;
use crate::protocol::Seq;
use crate::protocol::write_cost::ENTRY_OVERHEAD;
use crate::wal::{Feed, Record};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// So much of the past is looked through by whoever asks.
const LOOK_BYTES: usize = 64 * 1024;
/// So much of it is held at a time while it is looked through.
const CHUNK_BYTES: usize = 1 << 20;

/// What a wait came to, once it came to something.
pub(super) type Outcome = Arc<OnceLock<WaitOutcome>>;

/// All who wait for changes.
#[derive(Debug)]
pub(crate) struct ChangeWatch {
    feed: Arc<Feed>,
    table: Mutex<Table>,
    /// What it has cost, for tests.
    pub(super) work: Work,
}

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Nodes of the index that were passed.
    pub(super) nodes: AtomicU64,
    /// Requests that were woken.
    pub(super) woken: AtomicU64,
    /// Changes of the past that were looked at.
    pub(super) looked_at: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    index: PrefixIndex,
    waiters: HashMap<Ticket, Waiter>,
    /// Those that wait for changes after a seq that is not there yet.
    sleeping: BTreeSet<(Seq, Ticket)>,
    /// Those for which the past is to be looked through.
    to_look: Vec<Ticket>,
    is_looking: bool,
    last_ticket: Ticket,
    /// Everything up to this seq has been matched.
    matched: Seq,
    is_stopping: bool,
}

#[derive(Debug)]
struct Waiter {
    prefix: Box<[u8]>,
    after: Seq,
    /// Where it is in the index, if it is.
    node: Option<NodeId>,
    /// Whether it waits for what is still to come.
    waits: bool,
    /// The past is still to be looked through for it.
    is_past_unknown: bool,
    /// What came meanwhile.
    came: Option<Seq>,
    outcome: Outcome,
    caller: Arc<Caller>,
}

/// What somebody waits for.
pub(super) struct Wanted<'w> {
    pub(super) prefix: &'w [u8],
    pub(super) after: Seq,
    /// Whether to wait for what is still to come.
    pub(super) waits: bool,
}

impl ChangeWatch {
    pub(crate) fn new(feed: Arc<Feed>) -> Arc<Self> {
        let table = Table { matched: feed.last_seq(), ..Table::default() };
        Arc::new(Self { feed, table: Mutex::new(table), work: Work::default() })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait. The caller's signal is raised when there is an outcome.
    pub(super) fn begin(
        self: &Arc<Self>,
        wanted: &Wanted<'_>,
        caller: &Arc<Caller>,
    ) -> (Ticket, Outcome) {
        let outcome = Outcome::default();
        let Wanted { prefix, after, waits } = *wanted;
        let begins_with = self.find_soon(prefix, after);
        let mut table = self.table();
        table.last_ticket += 1;
        let ticket = table.last_ticket;
        if let Some(from) = begins_with {
            let _ = outcome.set(WaitOutcome::Changes { from });
            return (ticket, outcome);
        }
        let has_past = after < table.matched;
        if table.is_stopping || !has_past && !waits {
            let _ = outcome.set(WaitOutcome::Nothing { next: after });
            return (ticket, outcome);
        }
        let mut waiter = Waiter {
            prefix: prefix.into(),
            after,
            node: None,
            waits,
            is_past_unknown: has_past,
            came: None,
            outcome: Arc::clone(&outcome),
            caller: Arc::clone(caller),
        };
        if after > table.matched {
            table.sleeping.insert((after, ticket));
        } else {
            waiter.node = Some(table.index.insert(prefix, ticket));
        }
        table.waiters.insert(ticket, waiter);
        drop(table);
        if has_past {
            self.look_back(ticket, after);
        }
        (ticket, outcome)
    }

    /// The first change that is wanted, if there is one in the first few of the past.
    fn find_soon(&self, prefix: &[u8], after: Seq) -> Option<Seq> {
        let mut bytes = 0;
        let records = self.feed.later_than(after, LOOK_BYTES)?;
        let few = records.iter().flat_map(|record| record.changes()).take_while(|change| {
            bytes += change.key.len() + change.value.len() + ENTRY_OVERHEAD;
            bytes <= LOOK_BYTES
        });
        let mut wanted = few.filter(|change| change.seq > after && change.key.starts_with(prefix));
        wanted.next().map(|change| change.seq)
    }

    /// Looks through the past for a request: at once where that is little, otherwise elsewhere.
    fn look_back(self: &Arc<Self>, ticket: Ticket, after: Seq) {
        if self.feed.has_little_after(after, LOOK_BYTES) != Some(false) {
            return self.look_for(&[ticket]);
        }
        let mut table = self.table();
        table.to_look.push(ticket);
        if std::mem::replace(&mut table.is_looking, true) {
            return;
        }
        drop(table);
        let watch = Arc::clone(self);
        let look = move || watch.look_for_all();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(look)),
            Err(_) => look(),
        }
    }

    /// Looks through the past until nobody is left who came while it was looked through.
    fn look_for_all(&self) {
        loop {
            let mut table = self.table();
            let tickets = std::mem::take(&mut table.to_look);
            if tickets.is_empty() {
                table.is_looking = false;
                return;
            }
            drop(table);
            self.look_for(&tickets);
        }
    }

    /// Looks through the past once, for all of these.
    fn look_for(&self, tickets: &[Ticket]) {
        let mut past = Past::default();
        let table = self.table();
        for ticket in tickets {
            if let Some(waiter) = table.waiters.get(ticket) {
                past.add(*ticket, waiter);
            }
        }
        let end = table.matched;
        drop(table);
        past.look(&self.feed, end, &self.work);
        let mut raised = Vec::new();
        let mut table = self.table();
        let is_stopping = table.is_stopping;
        for ticket in tickets {
            let Some(waiter) = table.waiters.get_mut(ticket) else { continue };
            waiter.is_past_unknown = false;
            let found = past.found.get(ticket).copied().or(waiter.came);
            if let Some(from) = found {
                table.settle(*ticket, WaitOutcome::Changes { from }, &mut raised);
            } else if !waiter.waits || is_stopping {
                table.settle(*ticket, WaitOutcome::Nothing { next: end }, &mut raised);
            } else {
                // Its time may be up.
                raised.push(Arc::clone(&waiter.caller));
            }
        }
        drop(table);
        self.raise(&raised);
    }

    fn raise(&self, callers: &[Arc<Caller>]) {
        self.work.woken.fetch_add(callers.len() as u64, Ordering::Relaxed);
        callers.iter().for_each(|caller| caller.signal.raise());
    }

    /// Matches what was committed.
    pub(crate) fn committed(&self, record: &Record) {
        let mut table = self.table();
        if table.waiters.is_empty() {
            table.matched = record.last_seq;
            return;
        }
        let (mut raised, mut hits, mut nodes) = (Vec::new(), Vec::new(), 0);
        for change in record.changes() {
            table.awake_before(change.seq);
            nodes += table.index.matches(change.key, |_, ticket| hits.push(ticket));
            for ticket in hits.drain(..) {
                table.hit(ticket, change.seq, &mut raised);
            }
        }
        table.matched = record.last_seq;
        table.awake_before(record.last_seq + 1);
        drop(table);
        self.work.nodes.fetch_add(nodes as u64, Ordering::Relaxed);
        self.raise(&raised);
    }

    /// The time of a request is up: whether that is its outcome. It is not while the past is looked
    /// through for it, which is soon done.
    pub(super) fn give_up(&self, ticket: Ticket) -> bool {
        let mut table = self.table();
        let Some(waiter) = table.waiters.get(&ticket) else { return true };
        if waiter.is_past_unknown {
            return false;
        }
        let next = waiter.after.max(table.matched);
        table.settle(ticket, WaitOutcome::Nothing { next }, &mut Vec::new());
        true
    }

    /// Forgets a request.
    pub(super) fn forget(&self, ticket: Ticket) {
        self.table().take(ticket);
    }

    /// The broker stops: nobody waits any more.
    pub(crate) fn stop(&self) {
        let mut raised = Vec::new();
        let mut table = self.table();
        table.is_stopping = true;
        let waiting: Vec<_> =
            table.waiters.iter().map(|(ticket, one)| (*ticket, one.after)).collect();
        for (ticket, next) in waiting {
            table.settle(ticket, WaitOutcome::Nothing { next }, &mut raised);
        }
        drop(table);
        self.raise(&raised);
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let table = self.table();
        assert!(table.sleeping.len() <= table.waiters.len());
        table.waiters.len()
    }
}

impl Table {
    /// Those that wait for changes after an earlier seq than this are in the index from now on.
    fn awake_before(&mut self, seq: Seq) {
        while let Some((after, ticket)) = self.sleeping.first().copied()
            && after < seq
        {
            self.sleeping.pop_first();
            let Self { index, waiters, .. } = self;
            if let Some(waiter) = waiters.get_mut(&ticket) {
                waiter.node = Some(index.insert(&waiter.prefix, ticket));
            }
        }
    }

    /// A change that a request waits for.
    fn hit(&mut self, ticket: Ticket, seq: Seq, raised: &mut Vec<Arc<Caller>>) {
        let Some(waiter) = self.waiters.get_mut(&ticket) else { return };
        if !waiter.is_past_unknown {
            return self.settle(ticket, WaitOutcome::Changes { from: seq }, raised);
        }
        waiter.came = Some(seq);
        if let Some(node) = waiter.node.take() {
            self.index.remove(node, ticket);
        }
    }

    fn settle(&mut self, ticket: Ticket, awaited: WaitOutcome, raised: &mut Vec<Arc<Caller>>) {
        if let Some(waiter) = self.take(ticket) {
            let _ = waiter.outcome.set(awaited);
            raised.push(waiter.caller);
        }
    }

    fn take(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.waiters.remove(&ticket)?;
        match waiter.node {
            Some(node) => self.index.remove(node, ticket),
            None => drop(self.sleeping.remove(&(waiter.after, ticket))),
        }
        Some(waiter)
    }
}

/// One look through the past, for several requests.
#[derive(Default)]
struct Past {
    index: PrefixIndex,
    /// Those that are not in the index yet.
    to_come: BTreeSet<(Seq, Ticket)>,
    prefixes: HashMap<Ticket, (Box<[u8]>, Seq)>,
    found: HashMap<Ticket, Seq>,
}

impl Past {
    fn add(&mut self, ticket: Ticket, waiter: &Waiter) {
        self.to_come.insert((waiter.after, ticket));
        self.prefixes.insert(ticket, (waiter.prefix.clone(), waiter.after));
    }

    /// Finds for each the first change, or the beginning of what is no longer in memory, up to
    /// `end`.
    fn look(&mut self, feed: &Feed, end: Seq, work: &Work) {
        let Some((mut at, _)) = self.to_come.first().copied() else { return };
        let mut looked_at = 0;
        while at < end && !self.prefixes.is_empty() {
            let Some(records) = feed.later_than(at, CHUNK_BYTES) else {
                // Those that are asked for from later on have another chance.
                at = self.miss_before(feed.dropped_seq(), at).unwrap_or(end);
                continue;
            };
            for change in records.iter().flat_map(|record| record.changes()) {
                if self.prefixes.is_empty() {
                    break;
                }
                looked_at += 1;
                self.add_before(change.seq);
                let mut hits = Vec::new();
                self.index.matches(change.key, |node, ticket| hits.push((node, ticket)));
                for (node, ticket) in hits {
                    self.index.remove(node, ticket);
                    self.find(ticket, change.seq);
                }
            }
            at = records.last().map_or(end, |record| record.last_seq.max(at));
        }
        work.looked_at.fetch_add(looked_at, Ordering::Relaxed);
    }

    fn find(&mut self, ticket: Ticket, from: Seq) {
        self.prefixes.remove(&ticket);
        self.found.insert(ticket, from);
    }

    fn add_before(&mut self, seq: Seq) {
        while let Some((after, ticket)) = self.to_come.first().copied()
            && after < seq
        {
            self.to_come.pop_first();
            if let Some((prefix, _)) = self.prefixes.get(&ticket) {
                self.index.insert(prefix, ticket);
            }
        }
    }

    /// What comes after `first` is in memory; everything up to `at` has been looked at. Returns
    /// where to go on.
    fn miss_before(&mut self, first: Seq, at: Seq) -> Option<Seq> {
        let missed = self.prefixes.iter().filter(|(_, (_, after))| *after < first);
        let missed: Vec<_> = missed.map(|(ticket, (_, after))| (*ticket, *after)).collect();
        for (ticket, after) in missed {
            self.to_come.remove(&(after, ticket));
            self.find(ticket, after.max(at) + 1);
        }
        self.index = PrefixIndex::default();
        self.to_come.first().map(|(after, _)| *after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::PeerAddress;
    use crate::protocol::change::Op;
    use crate::protocol::{ChangeBuffer, Level};
    use std::task::{Context, Poll, Waker};

    /// A write of each key, committed together.
    fn commit(watch: &ChangeWatch, first_seq: Seq, keys: &[&[u8]]) {
        let mut pending = ChangeBuffer::default();
        for (seq, key) in (first_seq..).zip(keys) {
            let mark = pending.begin(seq, Level::Queued, 0);
            pending.push(Op::Set, false, None, key, b"\x01");
            pending.end(mark);
        }
        let record = Arc::new(Record::new(pending));
        watch.feed.push(Arc::clone(&record));
        watch.committed(&record);
    }

    fn watch() -> Arc<ChangeWatch> {
        ChangeWatch::new(Arc::new(Feed::new(64 << 20, 0)))
    }

    fn caller() -> Arc<Caller> {
        Caller::new(PeerAddress::Local)
    }

    fn is_raised(caller: &Caller) -> bool {
        let context = Context::from_waker(Waker::noop());
        caller.signal.poll_raised(&context) == Poll::Ready(())
    }

    fn begin(
        watch: &Arc<ChangeWatch>,
        prefix: &[u8],
        after: Seq,
        caller: &Arc<Caller>,
    ) -> (Ticket, Outcome) {
        watch.begin(&Wanted { prefix, after, waits: true }, caller)
    }

    fn count(counter: &AtomicU64) -> u64 {
        counter.swap(0, Ordering::Relaxed)
    }

    #[test]
    fn a_commit_costs_what_its_keys_cost_however_many_wait_and_wakes_those_it_is_for() {
        let watch = watch();
        let callers: Vec<_> = (0..3_000).map(|_| caller()).collect();
        let mut outcomes = Vec::new();
        for (number, one) in callers.iter().enumerate() {
            let prefix = format!("{}{number:04}", "p".repeat(number % 7));
            outcomes.push(begin(&watch, prefix.as_bytes(), 0, one).1);
        }
        let far = caller();
        let asleep = begin(&watch, b"", Seq::MAX - 1, &far).1;
        for seq in 1..=50 {
            commit(&watch, seq, &[b"nobody waits for it"]);
        }
        assert!(count(&watch.work.nodes) <= 50 * 20 && count(&watch.work.woken) == 0);
        commit(&watch, 51, &[b"0007:x", b"ppp0010", b"0007:y"]);
        assert!(count(&watch.work.nodes) <= 6 + 7 + 6 + 3);
        assert_eq!(count(&watch.work.woken), 2);
        let woken: Vec<_> =
            (0..callers.len()).filter(|number| is_raised(&callers[*number])).collect();
        assert_eq!(woken, [7, 10]);
        let from = |seq| Some(WaitOutcome::Changes { from: seq });
        assert_eq!((outcomes[7].get().copied(), outcomes[10].get().copied()), (from(51), from(52)));
        assert!(asleep.get().is_none() && !is_raised(&far));
        assert_eq!(watch.len(), 2_999);
    }

    #[test]
    fn the_past_is_looked_through_once_for_all_who_came_meanwhile() {
        let watch = watch();
        let past = 2_000;
        for seq in 1..=past {
            commit(&watch, seq, &[format!("{:03}", seq % 1_000).as_bytes()]);
        }
        // As if somebody looked already.
        watch.table().is_looking = true;
        let one = caller();
        let outcomes: Vec<_> =
            (0..2_000).map(|n| begin(&watch, format!("{n:03}").as_bytes(), 0, &one).1).collect();
        assert_eq!(count(&watch.work.looked_at), 0);
        commit(&watch, past + 1, &[b"1999"]);
        watch.look_for_all();
        let looked_at = count(&watch.work.looked_at);
        assert!((past..=past + 1).contains(&looked_at), "{looked_at} of {past}");
        let from = |n: usize| match outcomes[n].get() {
            Some(WaitOutcome::Changes { from }) => *from,
            other => panic!("{n}: {other:?}"),
        };
        assert_eq!((from(0), from(1), from(999), from(1_999)), (1_000, 1, 999, past + 1));
        assert!(outcomes[1_500].get().is_none(), "it waits");
    }

    #[test]
    fn the_outcome_is_the_first_change_whenever_it_came() {
        let mut random = fastrand::Rng::with_seed(9);
        for _ in 0..300 {
            let watch = watch();
            let mut keys: Vec<Vec<u8>> = Vec::new();
            let mut waiting = Vec::new();
            let one = caller();
            let word = |random: &mut fastrand::Rng, most| -> Vec<u8> {
                (0..random.usize(..most)).map(|_| b"abc"[random.usize(..3)]).collect()
            };
            for _ in 0..random.usize(1..30) {
                if random.bool() {
                    let new: Vec<_> =
                        (0..random.usize(1..4)).map(|_| word(&mut random, 5)).collect();
                    let refs: Vec<_> = new.iter().map(Vec::as_slice).collect();
                    commit(&watch, keys.len() as Seq + 1, &refs);
                    keys.extend(new);
                } else {
                    let (prefix, after) = (word(&mut random, 4), random.u64(..30));
                    let (ticket, outcome) = begin(&watch, &prefix, after, &one);
                    waiting.push((prefix, after, ticket, outcome));
                }
            }
            for (prefix, after, ticket, outcome) in waiting {
                let seqs = (1..).zip(&keys);
                let mut matching = seqs.filter(|(_, key)| key.starts_with(&prefix));
                let first = matching.find(|(seq, _)| *seq > after).map(|(seq, _)| seq);
                assert!(watch.give_up(ticket));
                let next = after.max(keys.len() as Seq);
                let nothing = WaitOutcome::Nothing { next };
                let expected = first.map_or(nothing, |from| WaitOutcome::Changes { from });
                assert_eq!(outcome.get(), Some(&expected), "{prefix:?} after {after}: {keys:?}");
            }
            assert_eq!(watch.len(), 0);
        }
    }

    #[test]
    fn what_is_no_longer_in_memory_is_told_and_a_stop_ends_all_waits() {
        let feed = Arc::new(Feed::new(1, 7));
        let watch = ChangeWatch::new(feed);
        commit(&watch, 8, &[b"a"]);
        commit(&watch, 9, &[b"a"]);
        let one = caller();
        let past = begin(&watch, b"zz", 7, &one).1;
        assert_eq!(past.get(), Some(&WaitOutcome::Changes { from: 8 }), "it is to be read");
        let held = begin(&watch, b"zz", 8, &one).1;
        assert!(held.get().is_none());
        is_raised(&one);
        watch.stop();
        assert!(is_raised(&one));
        assert_eq!(held.get(), Some(&WaitOutcome::Nothing { next: 8 }));
        let after = begin(&watch, b"", 9, &one).1;
        assert_eq!(after.get(), Some(&WaitOutcome::Nothing { next: 9 }));
    }
}
