//! A ZMTP peer made of bytes: it sends exactly the bytes of a test, and none that a library would
//! add.

use super::commands::request;
use rmpv::Value;
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long an answer may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub const MORE: u8 = 1;
pub const LONG: u8 = 2;
pub const COMMAND: u8 = 4;

/// The greeting of ZMTP 3.`minor` with the NULL mechanism.
pub fn greeting(minor: u8) -> [u8; 64] {
    let mut greeting = [0; 64];
    greeting[0] = 0xFF;
    greeting[8] = 1;
    greeting[9] = 0x7F;
    greeting[10] = 3;
    greeting[11] = minor;
    greeting[12..16].copy_from_slice(b"NULL");
    greeting
}

/// A frame.
pub fn frame(flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = match u8::try_from(payload.len()) {
        Ok(len) => vec![flags, len],
        Err(_) => header(flags | LONG, payload.len() as u64),
    };
    bytes.extend_from_slice(payload);
    bytes
}

/// The header of a long frame with any declared length.
pub fn header(flags: u8, len: u64) -> Vec<u8> {
    let mut bytes = vec![flags];
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes
}

/// A message of these frames.
pub fn message(frames: &[&[u8]]) -> Vec<u8> {
    let last = frames.len() - 1;
    let flags = |index| if index < last { MORE } else { 0 };
    frames.iter().enumerate().flat_map(|(index, body)| frame(flags(index), body)).collect()
}

/// A command's frame.
pub fn command(name: &str, body: &[u8]) -> Vec<u8> {
    let mut payload = vec![u8::try_from(name.len()).unwrap()];
    payload.extend_from_slice(name.as_bytes());
    payload.extend_from_slice(body);
    frame(COMMAND, &payload)
}

/// READY with a socket type and perhaps an identity.
pub fn ready(socket_type: &str, identity: Option<&[u8]>) -> Vec<u8> {
    let mut body = Vec::new();
    let mut property = |name: &str, value: &[u8]| {
        body.push(u8::try_from(name.len()).unwrap());
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend_from_slice(value);
    };
    property("Socket-Type", socket_type.as_bytes());
    if let Some(identity) = identity {
        property("Identity", identity);
    }
    command("READY", &body)
}

/// A connected socket.
pub struct Peer {
    stream: TcpStream,
}

impl Peer {
    /// Connects and sends nothing.
    pub fn silent(endpoint: &str) -> Self {
        Self::over(TcpStream::connect(endpoint.strip_prefix("tcp://").unwrap()).unwrap())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    /// The same with a handshake, and with a receive buffer of about `bytes`.
    pub fn connect_with_buffer(endpoint: &str, socket_type: &str, bytes: usize) -> Self {
        let address: SocketAddr = endpoint.strip_prefix("tcp://").unwrap().parse().unwrap();
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut peer = Self::over(socket.into());
        peer.shake_hands(1, &ready(socket_type, None));
        peer
    }

    /// Connects and does the handshake.
    pub fn connect(endpoint: &str, socket_type: &str) -> Self {
        Self::connect_as(endpoint, 1, &ready(socket_type, None))
    }

    /// Connects and does the handshake of ZMTP 3.`minor` with its own READY.
    pub fn connect_as(endpoint: &str, minor: u8, ready: &[u8]) -> Self {
        let mut peer = Self::silent(endpoint);
        peer.shake_hands(minor, ready);
        peer
    }

    fn shake_hands(&mut self, minor: u8, ready: &[u8]) {
        self.send(&greeting(minor)).unwrap();
        self.send(ready).unwrap();
        let mut theirs = [0; 64];
        self.stream.read_exact(&mut theirs).unwrap();
        let (flags, body) = self.receive_frame().unwrap();
        assert!(flags == COMMAND && body.starts_with(b"\x05READY"), "{flags} {body:?}");
    }

    /// Ends its side of the connection; it can still read.
    pub fn end_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends `bytes` again and again until the broker has cut the connection; fails when it does
    /// not.
    pub fn send_until_cut(&mut self, bytes: &[u8]) {
        let deadline = Instant::now() + PATIENCE;
        while self.send(bytes).is_ok() {
            assert!(Instant::now() < deadline, "the broker takes it for ever");
        }
    }

    /// Sends `bytes` again and again until the socket is full; returns how many bytes it took.
    pub fn send_until_blocked(&mut self, bytes: &[u8]) -> usize {
        self.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut taken = 0;
        loop {
            match self.stream.write(bytes) {
                Ok(count) => taken += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return taken,
                Err(error) => panic!("cut instead of blocked: {error}"),
            }
            assert!(taken < 1 << 30, "the broker takes it for ever");
        }
    }

    /// Reads exactly this many bytes.
    pub fn receive_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.stream.read_exact(bytes)
    }

    /// Whether the broker's greeting begins within `time`.
    pub fn is_greeted_within(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let greeted = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        matches!(greeted, Ok(1))
    }

    /// Reads one frame.
    pub fn receive_frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        let len = if head[0] & LONG == 0 {
            usize::from(head[1])
        } else {
            let mut rest = [0; 8];
            rest[0] = head[1];
            self.stream.read_exact(&mut rest[1..])?;
            usize::try_from(u64::from_be_bytes(rest)).unwrap()
        };
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body)?;
        Ok((head[0] & !LONG, body))
    }

    /// Reads one message; skips commands before it.
    pub fn receive(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        loop {
            let (flags, body) = self.receive_frame()?;
            if flags & COMMAND != 0 {
                assert!(frames.is_empty(), "a command within a message");
                continue;
            }
            frames.push(body);
            if flags & MORE == 0 {
                return Ok(frames);
            }
        }
    }

    /// Sends one request, and returns its response as DEALER.
    pub fn call(&mut self, id: u64, method: &str, params: Vec<Value>) -> Response {
        self.send(&message(&[&request(id, method, params).0])).unwrap();
        self.response()
    }

    /// Reads a message of one response.
    pub fn response(&mut self) -> Response {
        let frames = self.receive().unwrap();
        assert_eq!(frames.len(), 1);
        Response::decode(&frames[0])
    }

    /// Whether the broker ends the connection within `time`, whatever it sends before.
    pub fn is_cut_within(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut rest = [0; 4096];
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            match self.stream.read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => return true,
                },
            }
        }
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        false
    }
}

/// A decoded response.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub id: Option<u64>,
    /// The result, or the code of the error.
    pub result: Result<Value, String>,
}

impl Response {
    /// Decodes `[1, id, error, result]`.
    pub fn decode(mut bytes: &[u8]) -> Self {
        let value = rmpv::decode::read_value(&mut bytes).unwrap();
        assert!(bytes.is_empty(), "bytes follow a response");
        let [kind, id, error, result] = <[Value; 4]>::try_from(array(value)).unwrap();
        assert_eq!(kind, Value::from(1));
        let result = match error {
            Value::Nil => Ok(result),
            error => Err(array(error)[0].as_str().unwrap().to_owned()),
        };
        Self { id: id.as_u64(), result }
    }
}

fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(elements) => elements,
        other => panic!("not an array: {other}"),
    }
}
