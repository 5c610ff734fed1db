//! The connection of a request, as far as a view needs to know it.

use super::stream::Shared;
use crate::net::{Account, Activity, Caller};
use std::sync::Arc;
use std::time::Instant;

/// Is attached to every request.
#[derive(Debug, Clone)]
pub struct Connection(pub(super) Arc<Shared>);

impl Connection {
    /// The connection, as the engine knows it.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.0.caller
    }

    /// Its account of the memory for answers.
    pub fn account(&self) -> &Arc<Account> {
        &self.0.account
    }

    /// Marks that it waits for future changes, and that nothing happened since the wait began: its
    /// slot may go to another connection meanwhile.
    pub fn follows(&self, since: Instant) {
        self.0.slot.note(Activity::Following, since);
    }

    /// Marks that it is sent bytes. `since` is the time of its last request or change; a
    /// comment that nothing has come does not count as activity.
    pub fn is_served(&self, since: Instant) {
        self.0.slot.note(Activity::Busy, since);
    }
}
