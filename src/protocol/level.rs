//! The durability of a write at the time of its reply.

use std::fmt;
use std::str::FromStr;

/// A durability level, weakest first; the order of the variants is the order of strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Level {
    /// Applied in memory and never persisted (LeakDB's `DefaultStorage`).
    Memory = 0,
    /// Applied and in the write queue (LeakDB's `PersistentQueueStorage`).
    Queued = 1,
    /// Handed to the operating system: survives `kill -9` of the broker.
    Stored = 2,
    /// Fsynced: survives a loss of power.
    #[default]
    Synced = 3,
}

impl Level {
    /// All levels, weakest first.
    pub const ALL: [Self; 4] = [Self::Memory, Self::Queued, Self::Stored, Self::Synced];

    /// The level's name on the wire and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Queued => "queued",
            Self::Stored => "stored",
            Self::Synced => "synced",
        }
    }

    /// The level of a log record's `byte`; `None` for a byte that no version wrote.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|level| *level as u8 == byte)
    }

    /// The level with this name on the wire.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            b"memory" => Some(Self::Memory),
            b"queued" => Some(Self::Queued),
            b"stored" => Some(Self::Stored),
            b"synced" => Some(Self::Synced),
            _ => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::from_name(text.as_bytes())
            .ok_or_else(|| format!("'{text}' is none of memory, queued, stored, synced"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_the_level_that_has_it() {
        for level in Level::ALL {
            assert_eq!(Level::from_name(level.name().as_bytes()), Some(level));
        }
        assert_eq!(Level::from_name(b"Stored"), None);
    }
}
