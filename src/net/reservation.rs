//! A reserved part of the memory quota.

use super::account::Account;
use super::memory_quota::{UNIT_BYTES, units};
use super::quota_line::Line;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A shrinking reservation keeps this much more than it needs, so that a connection with changing
/// needs does not go back to the quota each time.
const SLACK_BYTES: usize = 64 * 1024;

/// Reserved memory; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    account: Arc<Account>,
    held: Option<OwnedSemaphorePermit>,
    /// The units that count as large-holder units.
    much: Option<OwnedSemaphorePermit>,
    line: Option<Line>,
}

impl Reservation {
    pub(super) fn empty(account: Arc<Account>) -> Self {
        Self { account, held: None, much: None, line: None }
    }

    /// The account that holds it.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// The number of bytes that it covers.
    pub fn covered(&self) -> usize {
        self.account.free + self.held() as usize * UNIT_BYTES
    }

    /// Reserves `bytes`, if they are free. More bytes than the whole quota are granted when no
    /// other account holds any.
    pub fn try_cover(&mut self, bytes: usize) -> bool {
        let wanted = self.wanted(bytes);
        let missing = wanted.saturating_sub(self.held());
        if missing == 0 {
            self.leave_line();
            return true;
        }
        let part = &self.account.part;
        let much_missing = self.much_missing(wanted);
        let try_acquire =
            |units: &Arc<Semaphore>, count| Arc::clone(units).try_acquire_many_owned(count).ok();
        let Some(much) = try_acquire(&part.much, much_missing) else { return false };
        let Some(more) = try_acquire(&part.all, missing) else { return false };
        self.take(much, more);
        self.leave_line();
        true
    }

    /// Reserves `bytes`; where some are missing, enters the line for them and returns false.
    pub fn cover(&mut self, bytes: usize) -> bool {
        if self.try_cover(bytes) {
            return true;
        }
        let wanted = self.wanted(bytes);
        let missing = wanted.saturating_sub(self.held());
        let part = Arc::clone(&self.account.part);
        self.line = Some(Line::join(part, self.much_missing(wanted), missing));
        self.account.stand_in_line(true);
        false
    }

    /// Waits until it covers `bytes`. Call it while holding nothing, or something that shrinks by
    /// itself: two tasks that wait for each other's memory would wait for ever.
    pub async fn wait(&mut self, bytes: usize) {
        if !self.cover(bytes) {
            std::future::poll_fn(|context| self.poll_turn(context)).await;
        }
    }

    /// Whether the account is in line.
    pub fn is_in_line(&self) -> bool {
        self.line.is_some()
    }

    /// Leaves the line.
    pub fn leave_line(&mut self) {
        if self.line.take().is_some() {
            self.account.stand_in_line(false);
        }
    }

    /// Ready when the memory is granted: then it covers the bytes that it waited for.
    pub fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(line) = &mut self.line else { return Poll::Pending };
        let Poll::Ready((much, more)) = line.poll(context) else { return Poll::Pending };
        self.leave_line();
        self.take(much, more);
        Poll::Ready(())
    }

    /// Gives back memory above `bytes`, except a little, so as not to come back to the quota soon.
    pub fn settle(&mut self, bytes: usize) {
        let needed = self.wanted(bytes.saturating_add(SLACK_BYTES));
        self.shrink(needed);
    }

    /// Gives back everything that `bytes` do not need.
    pub fn settle_exactly(&mut self, bytes: usize) {
        self.shrink(self.wanted(bytes));
    }

    fn shrink(&mut self, needed: u32) {
        let spare = self.held().saturating_sub(needed);
        if spare == 0 {
            return;
        }
        let is_much = needed > self.account.part.little_max;
        let much_needed = if is_much { needed.min(self.account.part.much_total) } else { 0 };
        split_off(&mut self.much, much_needed);
        split_off(&mut self.held, needed);
        self.account.sub(spare);
    }

    fn held(&self) -> u32 {
        permits(self.held.as_ref())
    }

    fn wanted(&self, bytes: usize) -> u32 {
        units(bytes.saturating_sub(self.account.free)).min(self.account.part.total)
    }

    /// The missing large-holder units, when it holds `wanted`.
    fn much_missing(&self, wanted: u32) -> u32 {
        let part = &self.account.part;
        if wanted <= part.little_max {
            return 0;
        }
        wanted.min(part.much_total).saturating_sub(permits(self.much.as_ref()))
    }

    fn take(&mut self, much: OwnedSemaphorePermit, more: OwnedSemaphorePermit) {
        self.account.add(permits(Some(&more)));
        merge(&mut self.much, much);
        merge(&mut self.held, more);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.leave_line();
        self.account.sub(self.held());
    }
}

fn permits(held: Option<&OwnedSemaphorePermit>) -> u32 {
    held.map_or(0, |held| u32::try_from(held.num_permits()).unwrap_or(u32::MAX))
}

fn merge(held: &mut Option<OwnedSemaphorePermit>, more: OwnedSemaphorePermit) {
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
}

/// Keeps `needed` units of those held.
fn split_off(held: &mut Option<OwnedSemaphorePermit>, needed: u32) {
    let spare = permits(held.as_ref()).saturating_sub(needed) as usize;
    if let Some(held) = held {
        drop(held.split(spare));
    }
}
