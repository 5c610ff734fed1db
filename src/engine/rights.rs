//! What a caller may touch.

use crate::commands::Access;
use crate::net::User;
use crate::protocol::Refusal;

/// Who may do what. Nobody is restricted yet: where users come, they are looked up here.
#[derive(Debug, Default)]
pub(super) struct Rights;

impl Rights {
    /// Whether a user may do everything, so that nothing needs to be checked.
    pub(super) fn are_all(&self, user: User) -> bool {
        match user {
            User::Anonymous => true,
        }
    }

    /// Whether a user may touch this; where not, nothing of the request is executed.
    pub(super) fn check(&self, user: User, _: Access<'_>) -> Result<(), Refusal> {
        match user {
            User::Anonymous => Ok(()),
        }
    }
}
