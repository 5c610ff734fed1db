//! The connection that a request came by, as far as a view needs to know it.

use super::stream::Shared;
use crate::net::{Account, Activity, Caller};
use std::sync::Arc;
use std::time::Instant;

/// Goes with every request.
#[derive(Debug, Clone)]
pub struct Connection(pub(super) Arc<Shared>);

impl Connection {
    /// It, as the engine knows it.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.0.caller
    }

    /// What it has of the memory for answers.
    pub fn account(&self) -> &Arc<Account> {
        &self.0.account
    }

    /// It waits for what may come, and nothing has since then: its slot may go to another
    /// connection meanwhile.
    pub fn follows(&self, since: Instant) {
        self.0.slot.note(Activity::Following, since);
    }

    /// It is sent something. The last that it asked for, or that came for it, was at that time: to
    /// hear that nothing has come makes it no younger.
    pub fn is_served(&self, since: Instant) {
        self.0.slot.note(Activity::Busy, since);
    }
}
