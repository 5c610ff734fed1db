//! The connection that a request came by, as far as a view needs to know it.

use super::stream::Shared;
use crate::net::{Account, Activity};
use std::sync::Arc;

/// Goes with every request.
#[derive(Debug, Clone)]
pub struct Caller(pub(super) Arc<Shared>);

impl Caller {
    /// What it has of the memory for answers.
    pub fn account(&self) -> &Arc<Account> {
        &self.0.account
    }

    /// It waits for what may come: its slot may go to another connection meanwhile.
    pub fn follows(&self) {
        self.0.note(Activity::Following);
    }

    /// Something has come for it.
    pub fn is_served(&self) {
        self.0.note(Activity::Busy);
    }
}
