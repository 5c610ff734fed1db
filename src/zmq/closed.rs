//! Why a connection ended.

use super::bounds::Violation;
use std::io;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    /// The peer closed it.
    #[error("the peer closed the connection")]
    ByPeer,
    /// The operating system closed it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer broke the protocol, or a bound.
    #[error("cut: {0}")]
    Violation(#[from] Violation),
    /// The handshake took longer than `--handshake-ms`.
    #[error("cut: the handshake was not done in time")]
    HandshakeLate,
    /// Nothing that waited was read for `--write-timeout-ms`.
    #[error("cut: the peer does not read what waits for it")]
    Stalled,
    /// A message was begun and not continued for `--write-timeout-ms`.
    #[error("cut: the peer does not finish the message it began")]
    Unfinished,
    /// No answer to PING.
    #[error("cut: the peer has been silent for too long")]
    Silent,
    /// Other connections wait for the memory that its messages or unread replies take.
    #[error("cut: others wait for memory, and the peer moves less than --min-transfer-rate")]
    Slow,
    /// A new connection needed its slot.
    #[error("closed: it was idle, and a new connection needed its place (--max-connections)")]
    Evicted,
    /// Over `--max-subscriptions` or `--max-subscription-bytes`.
    #[error("cut: too many subscriptions ({0})")]
    Subscriptions(&'static str),
    /// The broker stops.
    #[error("the broker stops")]
    Stopped,
}
