//! What can go wrong, each with what is needed to put it right.

use std::fmt;
use std::time::Duration;

use rmpv::Value;

use crate::protocol::endpoint::EndpointError;

/// What can go wrong between a client and its broker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The text is not an endpoint.
    #[error(transparent)]
    BadEndpoint(#[from] EndpointError),
    /// The connection was refused, or there is no such socket file.
    #[error("nothing listens on {endpoint}: is `vatn serve` running?")]
    NothingListens {
        /// The endpoint tried.
        endpoint: String,
    },
    /// The endpoint could not be reached for another reason, such as an unknown host name.
    #[error("cannot reach {endpoint}: {source}")]
    Unreachable {
        /// The endpoint tried.
        endpoint: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Something listens there, and it is not the socket this client wants.
    #[error("{endpoint} does not answer as a broker: {reason}")]
    NoHandshake {
        /// The endpoint tried.
        endpoint: String,
        /// What was seen instead.
        reason: String,
    },
    /// The reply did not come in time. Whether a write took place is not known.
    #[error("no reply from {endpoint} within {after:?}")]
    Timeout {
        /// The endpoint asked.
        endpoint: String,
        /// How long was waited.
        after: Duration,
    },
    /// The connection ended. Whether a write still unanswered took place is not known.
    #[error("{endpoint} closed the connection")]
    Closed {
        /// The endpoint that was connected.
        endpoint: String,
    },
    /// The broker answered with something that is not this protocol.
    #[error("{endpoint} sent what is not a reply: {reason}")]
    Protocol {
        /// The endpoint asked.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The message is larger than the broker takes; it was not sent.
    #[error(
        "a message of {bytes} bytes is more than the {most} that {endpoint} takes: send less at a \
         time, or serve with a larger --max-message-bytes"
    )]
    TooLarge {
        /// The endpoint asked.
        endpoint: String,
        /// The bytes of the message.
        bytes: u64,
        /// The most that the broker takes.
        most: u64,
    },
    /// The broker's history is not the one that was followed.
    #[error(
        "{endpoint} has another history: it is at seq {seq}, and what was followed at {after}; \
         the store was replaced, so take the state anew"
    )]
    AnotherHistory {
        /// The endpoint asked.
        endpoint: String,
        /// Its last sequence number.
        seq: u64,
        /// The sequence number up to which another one is known.
        after: u64,
    },
    /// The broker understood, and said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl ClientError {
    /// The broker's error code, when it was the broker that said no.
    ///
    /// ```no_run
    /// use vatn::client::{Client, ClientError, Condition, RawValue, WriteOptions};
    ///
    /// /// Whether this client took the lock.
    /// async fn try_lock(client: &mut Client) -> Result<bool, ClientError> {
    ///     let condition = Some(Condition::Absent);
    ///     let options = WriteOptions { condition, ttl_ms: Some(5_000), ..Default::default() };
    ///     match client.set(b"lock", &RawValue::nil(), &options).await {
    ///         Ok(_seq) => Ok(true),
    ///         Err(error) if error.code() == Some("CONFLICT") => Ok(false),
    ///         Err(error) => Err(error),
    ///     }
    /// }
    /// ```
    pub fn code(&self) -> Option<&str> {
        match self {
            ClientError::Refused(refusal) => Some(&refusal.code),
            _ => None,
        }
    }

    /// Whether another try over a new connection may succeed: the broker is not there, or going.
    pub fn is_passing(&self) -> bool {
        match self {
            ClientError::NothingListens { .. }
            | ClientError::Unreachable { .. }
            | ClientError::Timeout { .. }
            | ClientError::Closed { .. } => true,
            other => other.code() == Some("STOPPING"),
        }
    }
}

/// An error reply of the broker: `[CODE, message, {details}]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The code, such as `CONFLICT`.
    pub code: String,
    /// What it means here, for people.
    pub message: String,
    /// What it means here, for programs; each code has its own.
    pub details: Vec<(String, Value)>,
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}
