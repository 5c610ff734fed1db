//! How long a sync waits for company.
//!
//! Those whom a sync released come back with their next writes one after the other. If the next
//! sync began with the first of them, the others would wait for it, and then for one more: two
//! groups that take turns, and each has every second sync. So a sync may wait for those whom the
//! last one released, for a part of what a sync takes. That pays where they come back sooner than a
//! sync takes, and costs where they come back later or not at all: so both ways are tried again and
//! again, and the better one is kept. PostgreSQL has the wait as `commit_delay`, MySQL as
//! `binlog_group_commit_sync_delay`: settings there, measured here.

use super::{Core, Engine};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A sync waits for so much of what syncs take, at the most: one part of so many.
const SHARE: u32 = 2;
/// One of so many may stay away: the last ones may have left.
const ABSENT: usize = 16;
/// The newest sync's part of the average: one of so many.
const NEWEST: u32 = 8;
/// Each way is tried for so many syncs, of which the first ones still show the other way.
const TRIED: u32 = 16;
const SHOWS_OTHER: u32 = 4;
/// To wait has to be so many times as good, and so often in a row: nobody's write is held up for
/// nothing, and a host whose speed changes makes either look better at times.
const GAIN_MIN: f64 = 1.08;
const WINS_MIN: u32 = 3;
/// What was found is kept for so many syncs.
const KEPT: u32 = 500;
/// What takes longer than so many syncs counts as so many: a medium that paused once, or the time
/// in which there was nothing to sync, says nothing of either way.
const PAUSE: u32 = 4;

/// What is known of the syncs so far. Time is an argument; writes are counted in changes.
#[derive(Debug, Default)]
pub(super) struct CommitDelay {
    /// How long syncs take, on average.
    sync: Duration,
    last: Option<Ended>,
    way: Way,
    /// How many syncs have gone this way.
    syncs: u32,
    /// What was counted of them: the time, and the writes.
    time: Duration,
    writes: usize,
    /// How often in a row it was better to wait.
    wins: u32,
}

/// What is done at the moment.
#[derive(Debug, Default)]
enum Way {
    #[default]
    TryAtOnce,
    /// With the rate of writes that the other way had, in writes a second.
    TryWaiting {
        at_once: f64,
    },
    Keep {
        waits: bool,
    },
}

/// The end of a sync.
#[derive(Debug)]
struct Ended {
    at: Instant,
    /// How many writes are enough for the next one to begin.
    enough: usize,
}

impl CommitDelay {
    /// Whether syncs wait at the moment.
    fn waits(&self) -> bool {
        matches!(self.way, Way::TryWaiting { .. } | Way::Keep { waits: true })
    }

    /// A sync has ended, which took so long: of the writes on their way, so many are `released`,
    /// and so many are `left` that came too late for it.
    fn ended(&mut self, now: Instant, took: Duration, released: usize, left: usize) {
        let average = (self.sync * (NEWEST - 1) + took.min(self.sync * PAUSE)) / NEWEST;
        self.sync = if self.sync.is_zero() { took } else { average };
        let all = released + left;
        let ended = Ended { at: now, enough: all - all / ABSENT };
        if let Some(last) = self.last.replace(ended) {
            self.count((now - last.at).min(self.sync * PAUSE), released);
        }
    }

    fn count(&mut self, time: Duration, released: usize) {
        self.syncs += 1;
        if self.syncs > SHOWS_OTHER {
            self.time += time;
            self.writes += released;
        }
        if self.syncs < if matches!(self.way, Way::Keep { .. }) { KEPT } else { TRIED } {
            return;
        }
        let rate = self.writes as f64 / self.time.as_secs_f64();
        self.way = match self.way {
            Way::TryAtOnce => Way::TryWaiting { at_once: rate },
            Way::TryWaiting { at_once } => {
                let is_won = rate > at_once * GAIN_MIN;
                self.wins = if is_won { self.wins + 1 } else { 0 };
                tracing::debug!("writes a second: {at_once:.0} at once, {rate:.0} waiting");
                let is_open = is_won && self.wins < WINS_MIN;
                if is_open { Way::TryAtOnce } else { Way::Keep { waits: is_won } }
            }
            Way::Keep { .. } => Way::TryAtOnce,
        };
        (self.syncs, self.time, self.writes) = (0, Duration::ZERO, 0);
    }

    /// Until when the next sync should wait, and for how many writes at the most, if it could begin
    /// now with so many.
    fn wait(&self, now: Instant, writes: usize) -> Option<(Instant, usize)> {
        let Ended { at, enough } = self.last.as_ref().filter(|_| self.waits())?;
        let until = *at + self.sync / SHARE;
        (writes < *enough && now < until).then_some((until, *enough))
    }
}

impl Engine {
    fn commit_delay(&self) -> MutexGuard<'_, CommitDelay> {
        self.commit_delay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long what is due for a sync waits for more; whoever brings enough wakes the committer.
    pub(super) fn gather(&self, core: &mut Core) -> Option<Duration> {
        let writes = core.pending.items();
        if !core.wants_sync || core.is_stopping || core.is_full() || writes == 0 {
            return None;
        }
        let now = Instant::now();
        let (until, enough) = self.commit_delay().wait(now, writes)?;
        core.enough_items = enough;
        Some(until - now)
    }

    /// A sync has ended that began at `began` and releases so many writes.
    pub(super) fn gathered(&self, began: Instant, released: usize) {
        let now = Instant::now();
        // Only who waits asks for it: those who write have the core.
        let left = if self.commit_delay().waits() { self.core().pending.items() } else { 0 };
        self.commit_delay().ended(now, now - began, released, left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::BarrierStatus;
    use crate::engine::append_lock::tests::{engine, set};
    use crate::protocol::Level;
    use std::sync::Arc;

    /// No test waits longer than this for anything.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_sync_that_waits_begins_when_enough_have_come_and_at_the_stop() {
        let (engine, log) = engine(&Arc::default());
        let last = Some(Ended { at: Instant::now(), enough: 2 });
        let (sync, way) = (200 * PATIENCE, Way::Keep { waits: true });
        *engine.commit_delay() = CommitDelay { sync, last, way, ..CommitDelay::default() };
        let committing = Arc::clone(&engine);
        let committer = std::thread::spawn(move || committing.commit(log));
        let first = set(&engine, Level::Synced);
        let second = set(&engine, Level::Synced);
        wait_until(|| engine.barrier_status(second) == BarrierStatus::Ready);
        assert_eq!(engine.barrier_status(first), BarrierStatus::Ready);
        assert_eq!(engine.counters.commits.get(), 1, "one for both");
        let third = set(&engine, Level::Synced);
        engine.stop();
        wait_until(|| committer.is_finished());
        assert_eq!(engine.barrier_status(third), BarrierStatus::Ready);
    }

    fn wait_until(is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
    }

    /// Clients that write, wait for the sync, and write again. Times in microseconds.
    struct Trial {
        sync_us: u64,
        /// How long each client takes from its release to its next write.
        back_us: Vec<u64>,
    }

    impl Trial {
        /// How many writes are synced in a microsecond, with the company of `gathering` or without.
        fn run(&self, mut commit_delay: Option<CommitDelay>) -> f64 {
            let start = Instant::now();
            let at = |us| start + Duration::from_micros(us);
            let (mut due_us, mut now_us, mut synced) = (self.back_us.clone(), 0, 0);
            for _ in 0..2_000 {
                let mut sorted = due_us.clone();
                sorted.sort_unstable();
                let writes = |now_us| sorted.partition_point(|due| *due <= now_us);
                now_us = now_us.max(sorted[0]);
                while let Some(commit_delay) = &commit_delay
                    && let Some((until, enough)) = commit_delay.wait(at(now_us), writes(now_us))
                {
                    now_us = sorted[enough - 1].min((until - start).as_micros() as u64);
                }
                let (began_us, released) = (now_us, writes(now_us));
                now_us += self.sync_us;
                if let Some(commit_delay) = &mut commit_delay {
                    let took = Duration::from_micros(self.sync_us);
                    commit_delay.ended(at(now_us), took, released, writes(now_us) - released);
                }
                for (due, back) in due_us.iter_mut().zip(&self.back_us) {
                    if *due <= began_us {
                        *due = now_us + back;
                    }
                }
                synced += released;
            }
            synced as f64 / now_us as f64
        }

        /// How many times as many are synced with company.
        fn gain(&self) -> f64 {
            self.run(Some(CommitDelay::default())) / self.run(None)
        }
    }

    #[test]
    fn those_who_come_back_soon_are_one_group_and_not_two() {
        for (clients, sync_us, gain_min) in [(50, 1_000, 1.4), (50, 4_000, 1.7), (2, 1_000, 1.7)] {
            let gain =
                Trial { sync_us, back_us: (0..clients).map(|n| 50 + 5 * n).collect() }.gain();
            assert!(gain > gain_min, "{clients} clients, {sync_us} us: {gain}");
        }
    }

    #[test]
    fn where_it_does_not_pay_it_costs_next_to_nothing() {
        let trials: [(&str, u64, Vec<u64>); 5] = [
            ("one client", 200, vec![100]),
            ("later than a sync takes", 200, (0..50).map(|n| 300 + 4 * n).collect()),
            ("about as late", 200, (0..50).map(|n| 100 + 4 * n).collect()),
            ("evenly", 1_000, (0..50).map(|n| 2_000 + 211 * n).collect()),
            ("one soon", 500, (0..50).map(|n| if n == 0 { 40 } else { 9_000 + 97 * n }).collect()),
        ];
        for (what, sync_us, back_us) in trials {
            let gain = Trial { sync_us, back_us }.gain();
            println!("{what}: {gain}");
            assert!(gain > 0.97, "{what}: {gain}");
        }
    }
}
