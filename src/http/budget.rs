//! A bound on the memory that answers take while their peers read them, all connections together.

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
#[derive(Debug, Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
    total: u32,
}

/// Room that was set aside for an answer that is yet to be made; none is needed for a small one.
#[derive(Debug)]
pub struct Room(Option<OwnedSemaphorePermit>);

impl Budget {
    /// Room for `bytes` of answers.
    pub fn new(bytes: usize) -> Self {
        let total = units(bytes).max(1);
        Self { units: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Sets room aside for an answer of about `bytes`, in turn with others who wait for it.
    pub async fn wait(&self, bytes: usize) -> Result<Room, Refused> {
        let wanted = units(bytes).min(self.total);
        let room = timeout(PATIENCE, Arc::clone(&self.units).acquire_many_owned(wanted)).await;
        room.ok().and_then(Result::ok).map(|room| Room(Some(room))).ok_or_else(full)
    }

    /// Sets room aside for an answer of about `bytes`, if there is any now.
    pub fn take(&self, bytes: usize) -> Result<Room, Refused> {
        if bytes <= FREE_BYTES {
            return Ok(Room(None));
        }
        let wanted = units(bytes).min(self.total);
        let room = Arc::clone(&self.units).try_acquire_many_owned(wanted).map_err(|_| full())?;
        Ok(Room(Some(room)))
    }
}

impl Room {
    /// Holds the finished answer, and gives back what it does not need; the rest is free again when
    /// the last of the answer is written or dropped.
    pub fn hold(self, answer: Vec<u8>) -> Bytes {
        let Some(mut room) = self.0.filter(|_| answer.len() > FREE_BYTES) else {
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

    fn held(budget: &Budget, bytes: usize) -> Option<Bytes> {
        budget.take(bytes).ok().map(|room| room.hold(vec![1; bytes]))
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
}
