//! A blocking connection: bytes out, whole replies in.

use crate::Fallible;
use crate::protocol::{Protocol, Shape};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::ToSocketAddrs;
use std::path::Path;

const READ_BYTES: usize = 256 * 1024;

/// A connection that has shaken hands.
pub struct Wire {
    protocol: Protocol,
    stream: Socket,
    input: Vec<u8>,
    /// The start of the next reply in `input`, and the end of the bytes read.
    start: usize,
    end: usize,
}

impl Wire {
    pub fn connect(protocol: Protocol, address: &str, socket_type: &str) -> Fallible<Self> {
        let stream = open(address)?;
        let input = vec![0; READ_BYTES];
        let mut wire = Wire { protocol, stream, input, start: 0, end: 0 };
        wire.shake_hands(socket_type)?;
        Ok(wire)
    }

    /// Another handle of the same connection, to write with while this one reads.
    pub fn writer(&self) -> Fallible<Socket> {
        Ok(self.stream.try_clone()?)
    }

    /// The same, and no call on either waits from now on.
    pub fn split(&self) -> Fallible<Socket> {
        self.stream.set_nonblocking(true)?;
        self.writer()
    }

    /// The socket, to wait for.
    pub fn stream(&self) -> &Socket {
        &self.stream
    }

    pub fn send(&mut self, bytes: &[u8]) -> Fallible<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// The next reply, waited for; it stays where it is until the next call.
    pub fn reply(&mut self) -> Fallible<(&[u8], Shape)> {
        let (length, shape) = loop {
            if let Some(found) = self.protocol.reply(self.unread())? {
                break found;
            }
            self.read_more()?;
        };
        let start = self.start;
        self.start += length;
        Ok((self.input.get(start..self.start).unwrap_or_default(), shape))
    }

    /// Calls `each` with the replies that are here, at least one and at most `most`; returns how
    /// many that were.
    pub fn replies(
        &mut self,
        most: u64,
        mut each: impl FnMut(&[u8], Shape) -> Fallible<()>,
    ) -> Fallible<u64> {
        let mut count = 0;
        while count < most {
            match self.protocol.reply(self.unread())? {
                Some((length, shape)) => {
                    each(self.input.get(self.start..self.start + length).unwrap_or(&[]), shape)?;
                    self.start += length;
                    count += 1;
                }
                None if count > 0 => break,
                None => self.read_more()?,
            }
        }
        Ok(count)
    }

    /// Shows `each` all replies that are here, and reads what there is; does not wait. For a
    /// connection that was split.
    pub fn replies_here(&mut self, mut each: impl FnMut(Shape) -> Fallible<()>) -> Fallible<()> {
        let mut has_more = true;
        while has_more {
            match self.read_more() {
                // Less than there was room for is all there is.
                Ok(()) => has_more = self.end == self.input.len(),
                Err(error) if is_wait(error.as_ref()) => has_more = false,
                Err(error) => return Err(error),
            }
            while let Some((length, shape)) = self.protocol.reply(self.unread())? {
                self.start += length;
                each(shape)?;
            }
        }
        Ok(())
    }

    fn unread(&self) -> &[u8] {
        self.input.get(self.start..self.end).unwrap_or_default()
    }

    fn read_more(&mut self) -> Fallible<()> {
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.input.len() {
            self.input.resize(self.input.len() * 2, 0);
        }
        let read = self.stream.read(self.input.get_mut(self.end..).unwrap_or_default())?;
        if read == 0 {
            return Err("the server closed the connection".into());
        }
        self.end += read;
        Ok(())
    }

    /// ZMTP 3.0 with the NULL mechanism; redis needs none.
    fn shake_hands(&mut self, socket_type: &str) -> Fallible<()> {
        if self.protocol == Protocol::Redis {
            return Ok(());
        }
        let mut greeting = b"\xff\0\0\0\0\0\0\0\0\x7f\x03\0NULL".to_vec();
        greeting.resize(64, 0);
        let mut ready = b"\x05READY\x0bSocket-Type".to_vec();
        ready.extend((socket_type.len() as u32).to_be_bytes());
        ready.extend(socket_type.as_bytes());
        greeting.extend([4, ready.len() as u8]);
        greeting.extend(ready);
        self.send(&greeting)?;
        while self.end < 64 {
            self.read_more()?;
        }
        self.start = 64;
        // The peer's READY: a short command.
        loop {
            match self.unread() {
                [4, length, rest @ ..] if rest.len() >= usize::from(*length) => {
                    self.start += 2 + usize::from(*length);
                    return Ok(());
                }
                [] | [4, ..] => self.read_more()?,
                _ => return Err("the peer did not answer with READY".into()),
            }
        }
    }
}

/// Connects to HOST:PORT, or to the Unix socket of a path, which has a slash.
fn open(address: &str) -> Fallible<Socket> {
    if address.contains('/') {
        let stream = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        stream.connect(&SockAddr::unix(Path::new(address))?)?;
        return Ok(stream);
    }
    let address = address.to_socket_addrs()?.next().ok_or("the host has no address")?;
    let stream = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    stream.connect(&address.into())?;
    stream.set_tcp_nodelay(true)?;
    Ok(stream)
}

/// Whether a call on a split connection would have had to wait.
fn is_wait(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::WouldBlock)
}
