//! Turns of connections on an I/O thread, and how much work each allows.
//!
//! Connections of a thread wait for each other. In a pass, from one poll of its sockets to the
//! next, each has a turn for a share of the pass's cost: the more connections were active in the
//! pass before, the smaller the share. A request that costs more than a share is heavy: one heavy
//! request is executed in a pass, for one connection after the other, first come, first served. So
//! a light request waits for at most one heavy request, however many connections send them.

use crate::budget::{Cost, WorkBudget};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::yield_now;

pub mod bulk;

/// The cost of all light turns of a pass together, about.
const PASS: Cost = Cost::new(16 * 1024, 8 << 20);
/// The largest and the smallest share of one connection.
pub const SHARE_MAX: Cost = Cost::new(1024, 1 << 20);
const SHARE_MIN: Cost = Cost::new(16, 256 << 10);
/// A longer frame is heavy before it is decoded; so is a longer reply before it is copied.
pub const LIGHT_BYTES: usize = 64 << 10;

thread_local! {
    static PASSES: Arc<Mutex<Passes>> = Arc::default();
}

/// The passes of a thread.
#[derive(Debug, Default)]
struct Passes {
    /// The number of the current pass.
    number: u64,
    /// How many turns were taken in this pass, and in the one before.
    turns: usize,
    turns_before: usize,
    /// A heavy request was executed in this pass.
    is_heavy_done: bool,
    /// Connections that wait for a heavy turn, in order of arrival.
    line: BTreeSet<u64>,
    next_place: u64,
}

impl Passes {
    fn begin(&mut self) {
        self.number += 1;
        self.turns_before = std::mem::take(&mut self.turns);
        self.is_heavy_done = false;
    }

    fn share(&self) -> Cost {
        let turns = self.turns_before.max(self.turns).max(1);
        let part = |all: usize, least: usize, most: usize| (all / turns).clamp(least, most);
        let entries = part(PASS.entries, SHARE_MIN.entries, SHARE_MAX.entries);
        Cost::new(entries, part(PASS.bytes, SHARE_MIN.bytes, SHARE_MAX.bytes))
    }
}

fn lock(passes: &Mutex<Passes>) -> MutexGuard<'_, Passes> {
    passes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread has nothing to do, so the next event begins a new pass.
pub fn idle() {
    PASSES.with(|passes| lock(passes).begin());
    bulk::idle();
}

/// The work that a turn allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Requests that together cost no more than this.
    Light(WorkBudget),
    /// One request of any cost.
    Heavy,
    /// Nothing: another connection's heavy request comes first.
    Wait,
}

/// One connection's turns, on the thread that it was made on.
#[derive(Debug)]
pub struct Turns {
    passes: Arc<Mutex<Passes>>,
    /// The pass in which it last yielded.
    yielded_in: Option<u64>,
    /// Its place in the line for heavy turns.
    place: Option<u64>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { passes: PASSES.with(Arc::clone), yielded_in: None, place: None }
    }
}

impl Turns {
    /// Begins a turn.
    pub fn begin(&mut self) -> Turn {
        let mut passes = lock(&self.passes);
        if self.yielded_in.take() == Some(passes.number) {
            passes.begin();
        }
        passes.turns += 1;
        match self.place {
            None => Turn::Light(WorkBudget::of(passes.share())),
            Some(place) => heavy(&mut self.place, place, &mut passes),
        }
    }

    /// The next request is heavy: enters the line for it, unless it may be executed at once.
    pub fn begin_heavy(&mut self) -> Turn {
        let mut passes = lock(&self.passes);
        if self.yielded_in.take() == Some(passes.number) {
            passes.begin();
        }
        let next = passes.next_place;
        let place = *self.place.get_or_insert(next);
        if place == next {
            passes.next_place += 1;
            passes.line.insert(place);
        }
        heavy(&mut self.place, place, &mut passes)
    }

    /// Leaves the line: the connection waits for something else.
    pub fn leave_line(&mut self) {
        if let Some(place) = self.place.take() {
            lock(&self.passes).line.remove(&place);
        }
    }

    /// Records that other connections go on now.
    fn note_yield(&mut self) {
        self.yielded_in = Some(lock(&self.passes).number);
    }

    /// Yields: the thread polls its sockets, and other connections go on.
    pub async fn give_way(&mut self) {
        self.note_yield();
        yield_now().await;
    }

    /// Waits for a heavy turn.
    pub async fn wait_for_heavy(&mut self) {
        while self.begin_heavy() == Turn::Wait {
            self.give_way().await;
        }
    }
}

/// A heavy turn for the connection at `place`, if it is first in line and none was taken yet.
fn heavy(held: &mut Option<u64>, place: u64, passes: &mut Passes) -> Turn {
    if passes.is_heavy_done || passes.line.first() != Some(&place) {
        return Turn::Wait;
    }
    passes.line.pop_first();
    passes.is_heavy_done = true;
    *held = None;
    Turn::Heavy
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.leave_line();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(turn: Turn) -> Cost {
        let Turn::Light(budget) = turn else { panic!("{turn:?}") };
        budget.max()
    }

    #[test]
    fn one_heavy_request_is_executed_in_a_pass_first_come_first_served() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut all: Vec<Turns> = (0..20).map(|_| Turns::default()).collect();
        let mut done = vec![0; 20];
        for pass in 0..200 {
            // In any order in which the thread runs them.
            let mut order: Vec<usize> = (0..20).collect();
            random.shuffle(&mut order);
            let mut heavy = 0;
            for index in order {
                let turns = &mut all[index];
                let mut turn = turns.begin();
                if let Turn::Light(_) = turn {
                    turn = turns.begin_heavy();
                }
                if turn == Turn::Heavy {
                    heavy += 1;
                    done[index] += 1;
                }
                turns.note_yield();
            }
            assert_eq!(heavy, 1, "pass {pass}");
        }
        assert!(done.iter().all(|times| *times == 10), "{done:?}");
    }

    #[test]
    fn a_light_connection_has_a_turn_in_every_pass() {
        let (mut heavy, mut other, mut light) = <(Turns, Turns, Turns)>::default();
        assert_eq!((heavy.begin_heavy(), other.begin_heavy()), (Turn::Heavy, Turn::Wait));
        assert_eq!(share(light.begin()), SHARE_MAX);
        drop(other);
        idle();
        assert_eq!(heavy.begin_heavy(), Turn::Heavy, "a connection that is gone is not in line");
    }

    #[test]
    fn the_share_of_a_turn_shrinks_as_more_connections_are_active() {
        let mut all: Vec<Turns> = (0..2_000).map(|_| Turns::default()).collect();
        for _ in 0..2 {
            idle();
            for turns in &mut all {
                turns.begin();
            }
        }
        assert_eq!(share(all[0].begin()), SHARE_MIN);
        idle();
        idle();
        assert_eq!(share(all[0].begin()), SHARE_MAX);
    }
}
