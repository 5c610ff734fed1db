//! The envelope: one frame is one request, `[0, id, method, params]` or `[2, method, params]`.

use super::Command;
use crate::limits::COMMAND_ITEMS;
use crate::protocol::params::Params;
use crate::protocol::{Code, Reader, Refusal};

/// Type byte of a request.
const REQUEST: i128 = 0;
/// Type byte of a notification.
const NOTIFICATION: i128 = 2;
/// The first bytes of nearly all requests: an array of four, and its type.
const USUAL_BEGIN: [u8; 2] = [0x94, 0x00];

/// One request, decoded and checked as far as possible.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The id to echo; `None` where it could not be read.
    pub id: Option<u64>,
    /// A notification gets no reply at all, not even an error.
    pub notification: bool,
    /// The command, or why there is none.
    pub command: Result<Command<'a>, Refusal>,
}

impl<'a> Request<'a> {
    /// Decodes one frame with at most the default number of items.
    pub fn decode(frame: &'a [u8]) -> Self {
        Self::decode_within(frame, COMMAND_ITEMS)
    }

    /// Decodes one frame; more than `items_max` keys, pairs and commands are refused.
    pub fn decode_within(frame: &'a [u8], items_max: usize) -> Self {
        let (mut reader, mut envelope) = (Reader::new(frame), Envelope::default());
        let opened = envelope.open(&mut reader, items_max);
        let Envelope { id, notification } = envelope;
        // Passed on whole: a command is large, so moving it out and back costs each time.
        let (method, mut params) = match opened {
            Ok(opened) => opened,
            Err(refusal) => return Self { id, notification, command: Err(refusal) },
        };
        let command = Command::decode(method, &mut params);
        if command.is_ok() && !reader.is_empty() {
            let refusal = malformed("bytes follow the request in its frame");
            return Self { id, notification, command: Err(refusal) };
        }
        Self { id, notification, command }
    }

    /// Whether a frame is a notification, malformed or not; the rest of it is not read.
    pub fn is_notification(frame: &[u8]) -> bool {
        let mut envelope = Envelope::default();
        let _ = envelope.begin(&mut Reader::new(frame));
        envelope.notification
    }
}

/// The envelope of a request, known even if the rest is malformed.
#[derive(Default)]
struct Envelope {
    id: Option<u64>,
    notification: bool,
}

impl Envelope {
    /// Reads up to the params, and their head.
    #[inline]
    fn open<'r, 'a>(
        &mut self,
        reader: &'r mut Reader<'a>,
        items_max: usize,
    ) -> Result<(&'a [u8], Params<'r, 'a>), Refusal> {
        if reader.pass(&USUAL_BEGIN) {
            self.id = Some(reader.uint().map_err(|fault| fault.in_envelope("the id"))?);
        } else {
            self.begin(reader)?;
        }
        let method = reader.bytes().map_err(|fault| fault.in_envelope("the method"))?;
        let params =
            Params::open(reader, items_max).map_err(|fault| fault.in_envelope("params"))?;
        Ok((method, params))
    }

    /// Reads the head, the type and the id.
    fn begin(&mut self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        let len = reader.array_len().map_err(|fault| fault.in_envelope("the request"))?;
        let kind = reader.int().map_err(|fault| fault.in_envelope("the type"))?;
        self.notification = kind == NOTIFICATION;
        if kind == REQUEST && len > 1 {
            // Also the id of a request with too few or too many elements, so that its client gets
            // an error.
            self.id = Some(reader.uint().map_err(|fault| fault.in_envelope("the id"))?);
        }
        match (kind, len) {
            (REQUEST, 4) | (NOTIFICATION, 3) => Ok(()),
            (REQUEST, _) => Err(malformed("a request is [0, id, method, params]")),
            (NOTIFICATION, _) => Err(malformed("a notification is [2, method, params]")),
            _ => Err(malformed("the type must be 0 (request) or 2 (notification)")),
        }
    }
}

#[cold]
fn malformed(what: &str) -> Refusal {
    Refusal::new(Code::BadRequest, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_truncation_of_a_request_is_refused() {
        // [0, 7, "set", ["k", {"a": [1, 2.5, nil]}, {"durability": "queued"}]]
        let frame = [
            b"\x94\x00\x07\xa3set\x93\xa1k\x81\xa1a\x93\x01\xcb\x40\x04\0\0\0\0\0\0\xc0".as_slice(),
            b"\x81\xaadurability\xa6queued",
        ]
        .concat();
        assert!(Request::decode(&frame).command.is_ok());
        for end in 0..frame.len() {
            let request = Request::decode(&frame[..end]);
            let code = request.command.map_err(|refusal| refusal.code());
            assert_eq!(code, Err(Code::BadRequest), "cut at {end}");
            assert_eq!(request.id, (end > 2).then_some(7));
        }
        let longer = [frame.as_slice(), b"\xc0"].concat();
        assert!(Request::decode(&longer).command.is_err());
    }

    #[test]
    fn a_notification_is_recognized_by_its_head() {
        let frames: [&[u8]; 8] = [
            b"\x93\x02\xa4ping\x90",
            b"\x94\x00\x01\xa4ping\x90",
            b"\x93\x02",
            b"\x91\x02",
            b"\x94\x02\x01\xa4ping\x90",
            b"\xdc\x00\x03\xcc\x02\xa4ping\x90",
            b"",
            b"\x93",
        ];
        for frame in frames {
            assert_eq!(Request::is_notification(frame), Request::decode(frame).notification);
        }
    }

    #[test]
    fn an_unknown_option_is_refused_by_name() {
        let frame = b"\x94\x00\x01\xa3get\x92\xa1k\x81\xa4mata\xc3";
        let refusal = Request::decode(frame).command.unwrap_err();
        assert_eq!(refusal.code(), Code::BadArgument);
        assert!(refusal.message().contains("mata"), "{refusal}");
    }
}
