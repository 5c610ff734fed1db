//! The client's errors, each with the details that help to correct the cause.

use std::fmt;
use std::time::Duration;

use rmpv::Value;

use crate::protocol::endpoint::EndpointError;

/// An error between a client and its broker.
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
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A process listens there, and it is not the socket that this client needs.
    #[error("{endpoint} does not answer as a broker: {reason}")]
    NoHandshake {
        /// The endpoint tried.
        endpoint: String,
        /// What the client received instead.
        reason: String,
    },
    /// The reply did not come in time. Whether a write took place is not known.
    #[error("no reply from {endpoint} within {after:?}")]
    Timeout {
        /// The endpoint of the request.
        endpoint: String,
        /// How long the client waited.
        after: Duration,
    },
    /// The connection ended. Whether a write still unanswered took place is not known.
    #[error("{endpoint} closed the connection")]
    Closed {
        /// The endpoint of the connection.
        endpoint: String,
    },
    /// The broker's reply does not follow this protocol.
    #[error("{endpoint} sent what is not a reply: {reason}")]
    Protocol {
        /// The endpoint of the request.
        endpoint: String,
        /// The violation.
        reason: String,
    },
    /// The message is larger than the broker accepts; it was not sent.
    #[error(
        "a message of {bytes} bytes is more than the {most} that {endpoint} takes: send less at a \
         time, or serve with a larger --max-message-bytes"
    )]
    TooLarge {
        /// The endpoint of the request.
        endpoint: String,
        /// The size of the message, in bytes.
        bytes: u64,
        /// The most bytes that the broker accepts.
        most: u64,
    },
    /// The broker's history is not the one that was being followed.
    #[error(
        "{endpoint} has another history: it is at seq {seq}, and what was followed at {after}; \
         the store was replaced, so take the state anew"
    )]
    AnotherHistory {
        /// The endpoint of the request.
        endpoint: String,
        /// The broker's last sequence number.
        seq: u64,
        /// The last sequence number that the client knows of the other history.
        after: u64,
    },
    /// The broker refused the request.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl ClientError {
    /// The broker's error code, if the error is a refusal.
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

    /// Whether another try over a new connection may succeed: the broker is unreachable or
    /// stopping.
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
    /// The meaning in this case, as text.
    pub message: String,
    /// The meaning in this case, as data; each code has its own.
    pub details: Vec<(String, Value)>,
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}
