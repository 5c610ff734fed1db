//! Memory for an answer, from its connection's account, until the peer has read it.

use super::json::{EXPANSION_MAX, SLICE_BYTES, STEP_BYTES_MAX};
use super::refuse::Refused;
use crate::net::{Account, Category, Reservation};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a request waits for room before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often an answer is made anew that turned out longer than there was room for.
const TRIES_MAX: usize = 4;
/// The text of an answer that is rendered and not written yet: a slice here, and what hyper takes
/// before it has to write.
const TEXT_BYTES_MAX: usize = 2 * SLICE_BYTES + STEP_BYTES_MAX;

/// Room for one answer: what the store answered, and that part of its text which is rendered.
#[derive(Debug)]
pub struct Room {
    reservation: Reservation,
    /// What the answer takes, when there was no room for it.
    lacked: Option<usize>,
    tries: usize,
}

impl Room {
    /// None yet.
    pub fn of(account: &Arc<Account>) -> Self {
        Self { reservation: account.reservation(), lacked: None, tries: 0 }
    }

    /// Waits for room for an answer of about `packed` bytes of the store's, in turn with others.
    /// To be called with nothing in hand.
    pub async fn wait(&mut self, packed: usize) -> Result<(), Refused> {
        self.cover(with_text(packed)).await
    }

    /// Says that the store's answer has `packed` bytes. What is missing is taken if it is there,
    /// and not waited for: an answer that waits while it holds something might wait for another
    /// such one. One that is larger than the whole quota passes when it is alone.
    pub fn grow(&mut self, packed: usize) -> Result<(), Refused> {
        let bytes = with_text(packed);
        if self.reservation.try_cover(bytes) {
            return Ok(());
        }
        self.lacked = Some(bytes);
        Err(full())
    }

    /// After an answer was `refused`, and is gone: if that was for want of room, waits for what it
    /// lacked, with nothing in hand.
    pub async fn again(&mut self, refused: Refused) -> Result<(), Refused> {
        let Some(lacked) = self.lacked.take() else { return Err(refused) };
        self.tries += 1;
        if self.tries > TRIES_MAX {
            return Err(refused);
        }
        self.reservation.settle_exactly(0);
        self.cover(lacked).await
    }

    async fn cover(&mut self, bytes: usize) -> Result<(), Refused> {
        if timeout(PATIENCE, self.reservation.wait(bytes)).await.is_err() {
            self.reservation.leave_line();
            return Err(full());
        }
        Ok(())
    }

    /// Gives back what an answer of `packed` bytes does not need.
    pub fn settle(&mut self, packed: usize) {
        self.reservation.settle_exactly(with_text(packed));
    }

    /// Holds the finished text until the last of it is written or dropped.
    pub fn hold(mut self, text: Vec<u8>) -> Bytes {
        self.reservation.settle_exactly(text.len());
        if self.reservation.covered() <= Category::Outgoing.free_bytes() {
            return Bytes::from(text);
        }
        Bytes::from_owner(Held { text, _room: self })
    }
}

/// What an answer takes with as much of its text as is ever rendered ahead.
fn with_text(packed: usize) -> usize {
    packed.saturating_add(packed.saturating_mul(EXPANSION_MAX).min(TEXT_BYTES_MAX))
}

struct Held {
    text: Vec<u8>,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

fn full() -> Refused {
    Refused::busy("BUSY", "too many large answers wait for their readers; try again")
}
