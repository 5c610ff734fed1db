//! One set of timeouts for the connections of all edges.

use crate::limits::Limits;
use std::time::Duration;

/// An unfinished message may take longer while its bytes arrive at this rate.
const MESSAGE_BYTES_PER_SECOND: u64 = 1024;

/// How long a connection may be in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionTimeouts {
    /// From the accept to the end of the handshake, for the head or body of an HTTP request, and
    /// from the last byte of the last answer to the peer's close.
    pub handshake: Duration,
    /// Between two HTTP requests.
    pub idle: Duration,
    /// Without any progress while the peer is to read, or to finish a message.
    pub write: Duration,
    /// Without a byte from a ZMTP 3.1 peer, until it gets a PING; after three times that it is
    /// closed.
    pub heartbeat: Duration,
}

impl ConnectionTimeouts {
    /// The timeouts that an operator set.
    pub fn new(limits: &Limits) -> Self {
        Self {
            handshake: Duration::from_millis(limits.handshake_ms),
            idle: Duration::from_millis(limits.http_idle_ms),
            write: Duration::from_millis(limits.write_timeout_ms),
            heartbeat: Duration::from_millis(limits.heartbeat_ms),
        }
    }

    /// How often a ZeroMQ connection should be checked.
    pub fn look_period(&self) -> Duration {
        let shortest = self.heartbeat.min(self.write);
        (shortest / 4).clamp(Duration::from_millis(20), Duration::from_secs(1))
    }

    /// How often an HTTP connection should be checked.
    pub fn http_look_period(&self) -> Duration {
        let shortest = self.idle.min(self.handshake).min(self.write);
        (shortest / 4).clamp(Duration::from_millis(10), Duration::from_millis(500))
    }

    /// Whether an unfinished message of age `age`, with `received` bytes so far, takes too long.
    pub fn is_message_late(&self, age: Duration, received: u64) -> bool {
        let earned = received / MESSAGE_BYTES_PER_SECOND;
        age >= self.write.saturating_add(Duration::from_secs(earned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_earns_time_by_its_bytes() {
        let timeouts = ConnectionTimeouts::new(&Limits::default());
        let second = Duration::from_secs(1);
        assert!(!timeouts.is_message_late(29 * second, 0));
        assert!(timeouts.is_message_late(30 * second, 1_023));
        assert!(!timeouts.is_message_late(30 * second, 1_024));
        assert!(!timeouts.is_message_late(600 * second, 60 << 20), "100 KB a second is enough");
        assert!(timeouts.is_message_late(600 * second, 100_000));
    }
}
