//! Memory for an answer, from its connection's account, until the peer has read it.

use super::json::{EXPANSION_MAX, SLICE_BYTES, STEP_BYTES_MAX};
use super::refuse::Refused;
use crate::net::{Account, Category, Reservation};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a request waits for memory before it is refused with 503.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often an answer is made again when it was longer than its reserved memory.
const TRIES_MAX: usize = 4;
/// The rendered text of an answer that is not written yet: one slice here, and the amount that
/// hyper takes before it has to write.
const TEXT_BYTES_MAX: usize = 2 * SLICE_BYTES + STEP_BYTES_MAX;

/// Memory for one answer: the store's reply, and the part of its text which is rendered.
#[derive(Debug)]
pub struct Room {
    reservation: Reservation,
    /// The memory that the answer needs, after a reservation failed.
    lacked: Option<usize>,
    tries: usize,
}

impl Room {
    /// Memory for no answer yet.
    pub fn of(account: &Arc<Account>) -> Self {
        Self { reservation: account.reservation(), lacked: None, tries: 0 }
    }

    /// Waits in line for memory for a reply of about `packed` bytes. Call it while holding no
    /// memory.
    pub async fn wait(&mut self, packed: usize) -> Result<(), Refused> {
        self.cover(with_text(packed)).await
    }

    /// Sets the size of the store's reply to `packed` bytes. Missing memory is reserved if it is
    /// free, and not waited for: an answer that waits while it holds memory might wait for another
    /// such one. An answer larger than the whole quota passes when it is the only one.
    pub fn grow(&mut self, packed: usize) -> Result<(), Refused> {
        let bytes = with_text(packed);
        if self.reservation.try_cover(bytes) {
            return Ok(());
        }
        self.lacked = Some(bytes);
        Err(full())
    }

    /// After an answer was `refused` and dropped: if memory was missing, waits for it while holding
    /// none.
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

    /// Gives back memory that an answer of `packed` bytes does not need.
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

/// The memory of an answer with as much of its text as is ever rendered ahead.
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
