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

/// Room that was set aside for an answer that is yet to be made.
#[derive(Debug)]
pub struct Room(OwnedSemaphorePermit);

impl Budget {
    /// Room for `bytes` of answers.
    pub fn new(bytes: usize) -> Self {
        let total = units(bytes).max(1);
        Self { units: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Sets room aside for an answer of at most about `bytes`, in turn with others who wait for it.
    pub async fn reserve(&self, bytes: usize) -> Result<Room, Refused> {
        let wanted = units(bytes).min(self.total);
        let room = timeout(PATIENCE, Arc::clone(&self.units).acquire_many_owned(wanted)).await;
        room.ok().and_then(Result::ok).map(Room).ok_or_else(full)
    }

    /// Holds a finished answer; its room is free again when the last of it is written or dropped.
    pub fn hold(&self, answer: Vec<u8>) -> Result<Bytes, Refused> {
        if answer.len() <= FREE_BYTES {
            return Ok(Bytes::from(answer));
        }
        let wanted = units(answer.len()).min(self.total);
        let room = Arc::clone(&self.units).try_acquire_many_owned(wanted).map_err(|_| full())?;
        Ok(Bytes::from_owner(Held { answer, _room: room }))
    }
}

impl Room {
    /// Holds a finished answer in this room, and gives back what it does not need.
    pub fn hold(self, answer: Vec<u8>) -> Bytes {
        let Self(mut room) = self;
        if answer.len() <= FREE_BYTES {
            return Bytes::from(answer);
        }
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

    #[test]
    fn large_answers_share_the_budget_and_small_ones_are_free() {
        let budget = Budget::new(300 * 1024);
        let first = budget.hold(vec![1; 200 * 1024]).expect("there is room");
        let part = first.slice(..10);
        assert!(budget.hold(vec![1; 101 * 1024]).is_err());
        assert!(budget.hold(vec![1; FREE_BYTES]).is_ok());
        drop(first);
        assert!(budget.hold(vec![1; 101 * 1024]).is_err(), "a part of the first is still held");
        drop(part);
        assert!(budget.hold(vec![1; 101 * 1024]).is_ok());
    }

    #[tokio::test]
    async fn a_reservation_gives_back_what_it_does_not_need() {
        let budget = Budget::new(1024 * 1024);
        let room = budget.reserve(1024 * 1024).await.expect("there is room");
        assert!(budget.hold(vec![1; 100 * 1024]).is_err());
        let held = room.hold(vec![1; 100 * 1024]);
        assert!(budget.hold(vec![1; 900 * 1024]).is_ok());
        drop(held);
        assert!(budget.hold(vec![1; 1024 * 1024]).is_ok());
    }

    #[tokio::test]
    async fn an_answer_larger_than_the_budget_takes_all_of_it() {
        let budget = Budget::new(100 * 1024);
        let held = budget.hold(vec![1; 200 * 1024]).expect("alone, it passes");
        assert!(budget.hold(vec![1; 65 * 1024]).is_err());
        drop(held);
        let room = budget.reserve(usize::MAX).await.expect("alone, it passes");
        assert_eq!(room.hold(vec![1; 200 * 1024]).len(), 200 * 1024);
    }
}
