//! Checks a request's head and prepares it for the HTTP parser behind it.
//!
//! hyper parses HTTP, but has no bound of its own for the request line, and refuses raw characters
//! in a query that FlatDB accepts (`curl 'http://…/put?a="x"'`). So a head is held back until it is
//! whole. Then its length and request line are checked, and raw characters escaped; or it is
//! refused with FlatDB's status.

use super::refuse::Refused;
use axum::http::StatusCode;

/// A request line of this many bytes, line end included, is too long (gevent's bound, which FlatDB
/// had).
pub const REQUEST_LINE_BYTES: usize = 8_192;
/// A head of this many bytes is too long.
pub const HEAD_BYTES: usize = 32 * 1024;

/// The fault of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Not `METHOD TARGET HTTP/1.x`.
    Garbage,
    /// CONNECT: the client expects a proxy.
    Tunnel,
    /// A request line of [`REQUEST_LINE_BYTES`] or more.
    LineTooLong,
    /// A head of [`HEAD_BYTES`] or more.
    HeadTooLong,
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        let refused = match fault {
            Fault::Garbage => Self::bad_request("not an HTTP/1.0 or HTTP/1.1 request"),
            Fault::Tunnel => {
                let message = "this is no proxy: CONNECT is not answered; the endpoints allow \
                               HEAD, OPTIONS and GET";
                return Self::method_not_allowed(message).and_close();
            }
            Fault::LineTooLong => {
                let message = format!("a request line has less than {REQUEST_LINE_BYTES} bytes");
                Self::new(StatusCode::URI_TOO_LONG, "TOO_LARGE", message)
            }
            Fault::HeadTooLong => {
                let message = format!("a request's head has less than {HEAD_BYTES} bytes");
                Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "TOO_LARGE", message)
            }
        };
        refused.and_close()
    }
}

/// The scan position in an unfinished head. Each byte is scanned once, however slowly bytes arrive.
#[derive(Debug, Default)]
pub struct Scan {
    /// Bytes already searched for the end of a line.
    searched: usize,
    /// Where the line being searched starts.
    line_start: usize,
    /// The end of the request line, once known.
    request_line: Option<(usize, usize)>,
    has_body: bool,
}

/// A complete head.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// The end of the head: just after the empty line.
    pub end: usize,
    /// The request line, without its line end.
    pub request_line: (usize, usize),
    /// Whether a body follows.
    pub has_body: bool,
}

impl Scan {
    /// Continues where the last call stopped; `input` begins with the head's first byte.
    pub fn advance(&mut self, input: &[u8]) -> Result<Option<Head>, Fault> {
        let unsearched = |scan: &Self| input.get(scan.searched..).unwrap_or_default();
        while let Some(at) = unsearched(self).iter().position(|byte| *byte == b'\n') {
            let (start, end) = (self.line_start, self.searched + at + 1);
            (self.searched, self.line_start) = (end, end);
            if end >= HEAD_BYTES {
                return Err(Fault::HeadTooLong);
            }
            let line = input.get(start..end).unwrap_or_default().trim_ascii_end();
            match (self.request_line, line) {
                // A client may send an empty line after the body of its last request.
                (None, []) => {}
                (None, line) => {
                    check_request_line(line, end - start)?;
                    self.request_line = Some((start, start + line.len()));
                }
                (Some(request_line), []) => {
                    return Ok(Some(Head { end, request_line, has_body: self.has_body }));
                }
                (Some(_), line) => self.has_body |= announces_body(line),
            }
        }
        self.searched = input.len();
        self.check_unfinished(input).map(|()| None)
    }

    /// Refuses a head that no further byte can complete.
    fn check_unfinished(&self, input: &[u8]) -> Result<(), Fault> {
        let line = input.get(self.line_start..).unwrap_or_default();
        if self.request_line.is_none() {
            if line.first().is_some_and(|byte| !byte.is_ascii_alphabetic() && *byte != b'\r') {
                return Err(Fault::Garbage);
            }
            if line.len() >= REQUEST_LINE_BYTES {
                return Err(Fault::LineTooLong);
            }
        }
        if input.len() >= HEAD_BYTES { Err(Fault::HeadTooLong) } else { Ok(()) }
    }
}

fn check_request_line(line: &[u8], len: usize) -> Result<(), Fault> {
    if len >= REQUEST_LINE_BYTES {
        return Err(Fault::LineTooLong);
    }
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let is_request = method.is_some_and(|method| !method.is_empty())
        && target.is_some_and(is_target)
        && version.is_some_and(|version| version == b"HTTP/1.1" || version == b"HTTP/1.0")
        && words.next().is_none();
    match is_request {
        true => Ok(()),
        false if line.starts_with(b"CONNECT ") => Err(Fault::Tunnel),
        false => Err(Fault::Garbage),
    }
}

/// A path, `*`, or a whole URL, as a proxy gets; not the bare host of CONNECT.
fn is_target(target: &[u8]) -> bool {
    let has_scheme = |scheme: &[u8]| {
        target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    target.starts_with(b"/") || target == b"*" || has_scheme(b"http://") || has_scheme(b"https://")
}

/// Whether a header line announces a body. A length of 0 does not.
fn announces_body(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return false };
    let (name, value) = line.split_at(colon);
    if name.eq_ignore_ascii_case(b"content-length") {
        return value != b":0" && value != b": 0";
    }
    name.eq_ignore_ascii_case(b"transfer-encoding")
}

/// Returns `head` with the raw characters of its request line escaped; `None` in the usual case
/// that it has none.
pub fn escaped(input: &[u8], head: &Head) -> Option<Vec<u8>> {
    let (start, end) = head.request_line;
    let line = input.get(start..end)?;
    if !line.iter().any(|byte| is_raw(*byte)) {
        return None;
    }
    let mut out = Vec::with_capacity(head.end + 2 * line.len());
    for byte in line {
        match byte {
            raw if is_raw(*raw) => {
                out.push(b'%');
                out.extend([raw >> 4, raw & 0xF].iter().filter_map(|digit| hex(*digit)));
            }
            other => out.push(*other),
        }
    }
    out.extend_from_slice(input.get(end..head.end)?);
    Some(out)
}

/// Characters that the parser would refuse, or in the case of `#` cut off, and FlatDB accepts.
fn is_raw(byte: u8) -> bool {
    matches!(byte, b'"' | b'#' | b'<' | b'>' | b'`' | 0x80..)
}

fn hex(digit: u8) -> Option<u8> {
    let letter = char::from_digit(u32::from(digit), 16)?;
    u8::try_from(letter.to_ascii_uppercase()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(input: &[u8]) -> Result<Option<Head>, Fault> {
        Scan::default().advance(input)
    }

    #[test]
    fn a_head_is_whole_at_its_empty_line() {
        let input = b"GET /get?key=a HTTP/1.1\r\nHost: x\r\n\r\nGET ";
        let head = Head { end: 36, request_line: (0, 23), has_body: false };
        assert_eq!(scan(input), Ok(Some(head)));
        assert_eq!(scan(&input[..35]), Ok(None));
        assert_eq!(scan(b"GET / HTTP/1.0\n\n").map(|head| head.map(|head| head.end)), Ok(Some(16)));
    }

    #[test]
    fn a_head_is_the_same_wherever_reads_end() {
        let input = b"\r\nGET / HTTP/1.1\r\nContent-Length: 3\r\n\r\n";
        let mut scan = Scan::default();
        for end in 0..input.len() {
            assert_eq!(scan.advance(&input[..end]), Ok(None), "{end} bytes");
        }
        let head = scan.advance(input).expect("well-formed").expect("whole");
        assert_eq!(head, Head { end: input.len(), request_line: (2, 16), has_body: true });
    }

    #[test]
    fn a_body_is_announced_by_a_length_or_an_encoding() {
        let has_body = |header: &str| {
            let input = format!("POST / HTTP/1.1\r\n{header}\r\n\r\n");
            scan(input.as_bytes()).expect("well-formed").expect("whole").has_body
        };
        assert!(has_body("content-LENGTH:5"));
        assert!(has_body("Transfer-Encoding: chunked"));
        assert!(has_body("Content-Length: 00"));
        assert!(!has_body("Content-Length: 0"));
        assert!(!has_body("X-Content-Length: 5"));
        assert!(!has_body("Host: content-length: 5"));
    }

    #[test]
    fn garbage_is_refused_as_early_as_possible() {
        let garbage: [&[u8]; 11] = [
            b"GET get HTTP/1.1\r\n",
            b"\x16\x03\x01",
            b"\xFF",
            b"{",
            b"hello\r\n",
            b"GET /\r\n",
            b"GET / HTTP/2.0\r\n",
            b"GET  HTTP/1.1\r\n",
            b"GET / x HTTP/1.1\r\n",
            b"GET / http/1.1\n",
            b"PRI * HTTP/2.0\r\n",
        ];
        for input in garbage {
            assert_eq!(scan(input), Err(Fault::Garbage), "{input:02x?}");
        }
    }

    #[test]
    fn a_client_that_expects_a_proxy_gets_an_error() {
        let request = b"CONNECT localhost:80 HTTP/1.1\r\n";
        assert_eq!(scan(request), Err(Fault::Tunnel));
        assert_eq!(scan(b"CONNECT / HTTP/1.1\r\n"), Ok(None), "a path is answered as any method");
    }

    #[test]
    fn a_request_line_ends_at_8191_bytes_and_a_head_at_32767() {
        let line = |len: usize| {
            let fixed = "GET / HTTP/1.1\r\n".len();
            format!("GET /{} HTTP/1.1\r\n", "x".repeat(len - fixed))
        };
        assert_eq!(scan(line(REQUEST_LINE_BYTES - 1).as_bytes()), Ok(None));
        assert_eq!(scan(line(REQUEST_LINE_BYTES).as_bytes()), Err(Fault::LineTooLong));
        let endless = "x".repeat(REQUEST_LINE_BYTES);
        assert_eq!(scan(&endless.as_bytes()[..REQUEST_LINE_BYTES - 1]), Ok(None));
        assert_eq!(scan(endless.as_bytes()), Err(Fault::LineTooLong));

        let head = |len: usize| {
            let start = "GET / HTTP/1.1\r\nX: ";
            format!("{start}{}\r\n\r\n", "x".repeat(len - start.len() - 4))
        };
        assert!(scan(head(HEAD_BYTES - 1).as_bytes()).is_ok_and(|head| head.is_some()));
        assert_eq!(scan(head(HEAD_BYTES).as_bytes()), Err(Fault::HeadTooLong));
        let blank_lines = "\r\n".repeat(HEAD_BYTES / 2);
        assert_eq!(scan(blank_lines.as_bytes()), Err(Fault::HeadTooLong));
    }

    #[test]
    fn raw_characters_of_the_request_line_are_escaped() {
        let escape = |text: &[u8]| {
            let head = scan(text).expect("well-formed").expect("whole");
            escaped(text, &head).map(|bytes| String::from_utf8(bytes).expect("ASCII"))
        };
        assert_eq!(escape(b"GET /put?a=b HTTP/1.1\r\nA: \"\r\n\r\n"), None);
        let raw = b"GET /put?a=\"<\xC3\xB8\xFF>#` HTTP/1.1\r\nA: \"\r\n\r\nGET /\"";
        let expected = "GET /put?a=%22%3C%C3%B8%FF%3E%23%60 HTTP/1.1\r\nA: \"\r\n\r\n";
        assert_eq!(escape(raw).as_deref(), Some(expected));
    }
}
