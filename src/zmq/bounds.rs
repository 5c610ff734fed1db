//! The bounds of a message, and the error of a peer that breaks them.

/// The bounds of a message.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most bytes of a message, all frames together.
    pub bytes: usize,
    /// Most frames of a message.
    pub frames: usize,
}

/// Why a peer is cut.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// Not ZMTP, not our mechanism, not a socket type that fits ours.
    #[error("{0}")]
    Protocol(String),
    /// Over `--max-message-bytes`.
    #[error("a message of more than {max} bytes")]
    MessageTooLarge {
        /// The bound.
        max: usize,
    },
    /// Over `--max-frames`.
    #[error("a message of more than {max} frames")]
    TooManyFrames {
        /// The bound.
        max: usize,
    },
}
