//! The first step of a call: what is known of each request without the lock, and what may refuse it
//! or make it wait for long.

use super::Engine;
use super::replies::{Admitted, Replies};
use crate::commands::{Access, Command, Request};
use crate::net::Caller;

impl Engine {
    /// Walks once over all that each request touches: checks its caller's rights, hashes its key,
    /// and adds up what it costs. Takes no lock, so it is also the place for what takes long: to
    /// bring values into memory that are not there.
    pub(super) fn admit(
        &self,
        caller: &Caller,
        requests: &[Request<'_>],
        replies: &mut Replies,
    ) -> Batch {
        replies.admitted.clear();
        let has_all = self.rights.are_all(caller.user);
        let mut batch = Batch { is_shared: true };
        for request in requests {
            let admitted = match &request.command {
                Err(_) => Err(None),
                Ok(command) if has_all => self.admit_open(command),
                Ok(command) => self.admit_checked(caller, command),
            };
            if let Ok(admission) = &admitted {
                batch.is_shared &= admission.effects.is_shared();
            }
            replies.admitted.push(admitted);
        }
        batch
    }

    /// One whose caller may do everything.
    #[inline]
    fn admit_open(&self, command: &Command<'_>) -> Admitted {
        command.admit(|key| self.hasher.hash(key), None)
    }

    fn admit_checked(&self, caller: &Caller, command: &Command<'_>) -> Admitted {
        let mut check = |access: Access<'_>| self.rights.check(caller.user, access).map_err(Some);
        command.admit(|key| self.hasher.hash(key), Some(&mut check))
    }
}

/// What is known of all requests of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    /// None of them changes anything, so they may share the lock.
    pub(super) is_shared: bool,
}
