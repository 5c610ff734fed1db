//! The sending side of a connection that does not block.

use crate::Fallible;
use socket2::Socket;
use std::io::{ErrorKind, Write};

/// A connection, as its sender sees it.
pub struct Outgoing {
    stream: Socket,
    /// Bytes that the socket has not taken yet.
    pub rest: Vec<u8>,
}

impl Outgoing {
    /// `stream` does not block.
    pub fn new(stream: Socket) -> Self {
        Outgoing { stream, rest: Vec::new() }
    }

    /// Writes as many bytes as the socket takes.
    pub fn flush(&mut self) -> Fallible<()> {
        let mut written = 0;
        while let Some(rest) = self.rest.get(written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.rest.drain(..written);
        Ok(())
    }
}
