//! HTTP by hand, over a plain socket: the test controls every byte sent and sees every byte
//! received.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

/// One answer, its header names in lower case.
#[derive(Debug)]
pub struct Response {
    pub version: String,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Connection {
    /// To `http://host:port`.
    pub fn open(endpoint: &str) -> Self {
        let stream = TcpStream::connect(endpoint.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// Sends `line` with `HTTP/1.1` and a `Host`, and reads the answer.
    pub fn ask(&mut self, line: &str) -> Response {
        self.send(format!("{line} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").as_bytes());
        self.response(line.starts_with("HEAD "))
    }

    /// Reads one answer; an answer to HEAD has no body, whatever its length says.
    pub fn response(&mut self, is_head: bool) -> Response {
        let line = self.line();
        let mut words = line.splitn(3, ' ');
        let version = words.next().unwrap().to_owned();
        let status = words.next().unwrap_or_else(|| panic!("no status in {line:?}"));
        let status = status.parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut response = Response { version, status, headers, body: Vec::new() };
        response.body = if is_head { Vec::new() } else { self.body(&response) };
        response
    }

    /// Ends our side of the connection.
    pub fn close_our_side(&mut self) {
        self.stream.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Whether the broker has closed, with no byte sent before.
    pub fn is_closed(&mut self) -> bool {
        self.stream.fill_buf().is_ok_and(<[u8]>::is_empty)
    }

    /// Whether the broker closes before it has sent this many more lines.
    pub fn is_closed_within(&mut self, lines: usize) -> bool {
        let mut line = Vec::new();
        (0..lines).any(|_| match self.stream.read_until(b'\n', &mut line) {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        })
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.strip_suffix("\r\n").unwrap_or_else(|| panic!("cut off in {line:?}")).to_owned()
    }

    fn body(&mut self, response: &Response) -> Vec<u8> {
        if response.header("transfer-encoding") == Some("chunked") {
            return self.chunks();
        }
        let len = response.header("content-length").map_or(0, |len| len.parse().unwrap());
        self.exactly(len)
    }

    /// Sends `line` and further headers, and reads the head of an answer that is chunked.
    pub fn open_stream(&mut self, line: &str, headers: &[&str]) -> Response {
        let headers = headers.iter().map(|header| format!("{header}\r\n")).collect::<String>();
        self.send(format!("{line} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n").as_bytes());
        let response = self.response(true);
        assert_eq!(response.header("transfer-encoding"), Some("chunked"), "{response:?}");
        response
    }

    /// The next chunk of such an answer; `None` after the last.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let len = usize::from_str_radix(&self.line(), 16).unwrap();
        let bytes = self.exactly(len);
        assert_eq!(self.line(), "");
        (len > 0).then_some(bytes)
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk() {
            body.extend(chunk);
        }
        body
    }

    fn exactly(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }
}

impl Response {
    /// The value of a header that may come at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(given, _)| given == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} comes twice");
        value
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
