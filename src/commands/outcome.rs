//! The result of a command: a reply, now or later.

use super::deferred::Deferred;
use crate::protocol::Reply;

/// The result of a command that was not refused.
#[derive(Debug, PartialEq)]
pub enum Outcome<'s> {
    /// The reply.
    Reply(Reply<'s>),
    /// The reply is made later.
    Deferred(Deferred),
}

impl<'s> From<Reply<'s>> for Outcome<'s> {
    #[inline]
    fn from(reply: Reply<'s>) -> Self {
        Self::Reply(reply)
    }
}

impl<'s> Outcome<'s> {
    /// The reply, if there is one.
    pub fn reply(self) -> Option<Reply<'s>> {
        match self {
            Self::Reply(reply) => Some(reply),
            Self::Deferred(_) => None,
        }
    }
}
