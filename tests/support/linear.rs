//! A checker of histories: is there an order of the operations, each at a moment between its call
//! and its return, in which a single copy would have given the same answers?
//!
//! Wing and Gong's search with Lowe's memory of the states already tried: operations that were
//! called are tried one after the other, and a state reached before with the same operations is not
//! tried again. Operations that never returned may have happened at any time after their call, or
//! not at all.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// The specification that a history is checked against.
pub trait Model {
    type State: Clone + Eq + Hash + Debug;
    type Action: Clone + Debug;

    /// The state after the action; `None` when this state does not allow the action.
    fn step(state: &Self::State, action: &Self::Action) -> Option<Self::State>;
}

/// One operation, with its answer in its action.
#[derive(Debug, Clone)]
pub struct Operation<A> {
    pub action: A,
    pub called: u64,
    /// `None` when it was never answered.
    pub returned: Option<u64>,
}

/// The states in which a history may have ended; empty when no order explains it.
pub fn endings<M: Model>(
    starts: &[M::State],
    history: &[Operation<M::Action>],
) -> HashSet<M::State> {
    let mut operations = history.to_vec();
    operations.sort_by_key(|operation| operation.called);
    let required: Vec<bool> = operations.iter().map(|one| one.returned.is_some()).collect();
    let mut search =
        Search::<M> { operations, required, tried: HashSet::new(), found: HashSet::new() };
    for start in starts {
        search.visit(start.clone(), Done::default());
    }
    search.found
}

/// Which operations have been done: all below `all_below`, and those in `others`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Done {
    all_below: usize,
    others: Vec<usize>,
}

impl Done {
    fn has(&self, index: usize) -> bool {
        index < self.all_below || self.others.binary_search(&index).is_ok()
    }

    fn with(&self, index: usize) -> Self {
        let mut next = self.clone();
        let place = next.others.binary_search(&index).unwrap_err();
        next.others.insert(place, index);
        while next.others.first() == Some(&next.all_below) {
            next.others.remove(0);
            next.all_below += 1;
        }
        next
    }
}

struct Search<M: Model> {
    operations: Vec<Operation<M::Action>>,
    required: Vec<bool>,
    tried: HashSet<(M::State, Done)>,
    found: HashSet<M::State>,
}

impl<M: Model> Search<M> {
    fn visit(&mut self, start: M::State, done: Done) {
        let mut stack = vec![(start, done)];
        while let Some((state, done)) = stack.pop() {
            if !self.tried.insert((state.clone(), done.clone())) {
                continue;
            }
            let left = (done.all_below..self.operations.len()).filter(|index| !done.has(*index));
            let left: Vec<usize> = left.collect();
            if left.iter().all(|index| !self.required[*index]) {
                self.found.insert(state.clone());
            }
            // No operation may come before another that had returned before its call.
            let first_return =
                left.iter().filter_map(|index| self.operations[*index].returned).min();
            for index in left {
                let operation = &self.operations[index];
                if first_return.is_some_and(|returned| operation.called > returned) {
                    break;
                }
                if let Some(next) = M::step(&state, &operation.action) {
                    stack.push((next, done.with(index)));
                }
            }
        }
    }
}
