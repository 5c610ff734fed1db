//! A bound on the memory that answers take while their peers read them, all connections together.

use super::json::EXPANSION_MAX;
use super::refuse::Refused;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// What an answer may take without being counted: so much a connection is allowed anyway.
const FREE_BYTES: usize = 64 * 1024;
/// The unit of account.
const UNIT_BYTES: usize = 1024;
/// How long a request waits for room before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The room for answers, and what is left of it.
#[derive(Debug)]
pub struct Budget {
    units: Arc<Semaphore>,
    total: u32,
}

/// Room that was set aside for an answer; none is needed for a small one.
#[derive(Debug)]
pub struct Room<'b> {
    budget: &'b Budget,
    taken: Option<OwnedSemaphorePermit>,
    /// What the answer takes, when there was no room for it.
    lacked: Option<usize>,
}

impl Budget {
    /// Room for `bytes` of answers.
    pub fn new(bytes: usize) -> Self {
        let total = units(bytes).max(1);
        Self { units: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// No room yet.
    pub fn none(&self) -> Room<'_> {
        Room { budget: self, taken: None, lacked: None }
    }

    /// Sets room aside for an answer of about `bytes`, in turn with others who wait for it.
    pub async fn wait(&self, bytes: usize) -> Result<Room<'_>, Refused> {
        let wanted = units(bytes).min(self.total);
        let room = timeout(PATIENCE, Arc::clone(&self.units).acquire_many_owned(wanted)).await;
        let taken = room.ok().and_then(Result::ok).ok_or_else(full)?;
        Ok(Room { taken: Some(taken), ..self.none() })
    }
}

impl Room<'_> {
    /// Says that the answer takes `bytes` by now. What is missing is taken if it is there, and not
    /// waited for: an answer that waits while it holds something might wait for another such one.
    /// One that is larger than the whole budget passes when it is alone.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Refused> {
        let held = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = units(bytes).min(self.budget.total);
        let missing = wanted.saturating_sub(u32::try_from(held).unwrap_or(u32::MAX));
        if bytes <= FREE_BYTES || missing == 0 {
            return Ok(());
        }
        let Ok(more) = Arc::clone(&self.budget.units).try_acquire_many_owned(missing) else {
            self.lacked = Some(bytes);
            return Err(full());
        };
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        Ok(())
    }

    /// The same for an answer of `packed` bytes and for its JSON, before that is made; `length`
    /// tells how long it will be. Returns about that, where it is short enough not to be measured.
    pub fn grow_for_json(
        &mut self,
        packed: usize,
        length: impl FnOnce() -> Result<usize, Refused>,
    ) -> Result<usize, Refused> {
        if packed <= FREE_BYTES / EXPANSION_MAX {
            return Ok(packed + packed / 2);
        }
        let length = length()?;
        self.grow(packed.saturating_add(length))?;
        Ok(length)
    }

    /// After an answer was `refused`, and is gone: if that was for want of room, waits for what it
    /// lacked, with nothing in hand.
    pub async fn again(self, refused: Refused) -> Result<Self, Refused> {
        let Self { budget, taken, lacked } = self;
        drop(taken);
        budget.wait(lacked.ok_or(refused)?).await
    }

    /// Holds the finished answer, and gives back what it does not need; the rest is free again when
    /// the last of the answer is written or dropped.
    pub fn hold(self, answer: Vec<u8>) -> Bytes {
        let Some(mut room) = self.taken.filter(|_| answer.len() > FREE_BYTES) else {
            return Bytes::from(answer);
        };
        let spare = room.num_permits().saturating_sub(units(answer.len()) as usize);
        drop(room.split(spare));
        Bytes::from_owner(Held { answer, _room: room })
    }
}

struct Held {
    answer: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX >> 4).min(u32::MAX >> 4)
}

fn full() -> Refused {
    Refused::busy("BUSY", "too many large answers wait for their readers; try again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::pin::pin;

    fn held(budget: &Budget, bytes: usize) -> Option<Bytes> {
        let mut room = budget.none();
        room.grow(bytes).ok().map(|()| room.hold(vec![1; bytes]))
    }

    #[test]
    fn large_answers_share_the_budget_and_small_ones_are_free() {
        let budget = Budget::new(300 * 1024);
        let first = held(&budget, 200 * 1024).expect("there is room");
        let part = first.slice(..10);
        assert!(held(&budget, 101 * 1024).is_none());
        assert!(held(&budget, FREE_BYTES).is_some());
        drop(first);
        assert!(held(&budget, 101 * 1024).is_none(), "a part of the first is still held");
        drop(part);
        assert!(held(&budget, 101 * 1024).is_some());
    }

    #[tokio::test]
    async fn a_reservation_gives_back_what_it_does_not_need() {
        let budget = Budget::new(1024 * 1024);
        let room = budget.wait(1024 * 1024).await.expect("there is room");
        assert!(held(&budget, 100 * 1024).is_none());
        let answer = room.hold(vec![1; 100 * 1024]);
        assert!(held(&budget, 924 * 1024).is_some());
        assert!(held(&budget, 925 * 1024).is_none());
        drop(answer);
        assert!(held(&budget, 1024 * 1024).is_some());
    }

    #[tokio::test]
    async fn an_answer_larger_than_the_budget_takes_all_of_it() {
        let budget = Budget::new(100 * 1024);
        let answer = held(&budget, 200 * 1024).expect("alone, it passes");
        assert!(held(&budget, 65 * 1024).is_none());
        drop(answer);
        let room = budget.wait(usize::MAX).await.expect("alone, it passes");
        assert_eq!(room.hold(vec![1; 200 * 1024]).len(), 200 * 1024);
    }

    #[tokio::test]
    async fn an_answer_that_turns_out_longer_takes_more_or_lets_go_and_waits() {
        let budget = Budget::new(1024 * 1024);
        let mut one = budget.wait(300 * 1024).await.expect("there is room");
        let mut two = budget.wait(300 * 1024).await.expect("there is room");
        one.grow(600 * 1024).expect("there is room");
        assert!(two.grow(600 * 1024).is_err());
        // It lets go of what it has: otherwise both might wait for what the other holds.
        let mut waiting = pin!(two.again(full()));
        let first = one.hold(vec![1; 600 * 1024]);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        let mut two = waiting.await.expect("in time");
        two.grow(600 * 1024).expect("it has it");
        assert!(budget.none().again(full()).await.is_err(), "no room was missing");
    }
}
