//! Requests encoded once and copied, so that the load costs little.

use bytes::BytesMut;

use super::mix::Operation;
use super::{NUMBER_PREFIX, VALUE_PREFIX};
use crate::client::{Level, fast};
use crate::protocol::writer;

const MORE: u8 = 1;

/// A request of one operation, encoded once with its ZMTP header; each send copies it and
/// overwrites the id and the key's digits.
#[derive(Debug)]
pub(super) struct Template {
    bytes: Vec<u8>,
    id_at: usize,
    digits_at: usize,
}

impl Template {
    pub(super) fn new(operation: Operation, value_size: usize, level: Option<Level>) -> Self {
        // The id is always five bytes, so that it can be overwritten.
        let mut content = vec![0x94, 0, 0xce, 0, 0, 0, 0];
        let mut options = Vec::new();
        let mut count = 0;
        let level = level.filter(|_| operation != Operation::Get);
        if let Some(level) = level {
            writer::str(&mut options, "durability");
            writer::str(&mut options, level.name());
            count += 1;
        }
        if operation == Operation::Incr {
            writer::str(&mut options, "initial");
            writer::int(&mut options, 0);
            count += 1;
        }
        writer::str(&mut content, operation.name());
        let arguments = if operation == Operation::Set { 2 } else { 1 };
        writer::array_len(&mut content, arguments + usize::from(count > 0));
        let prefix = if operation == Operation::Incr { NUMBER_PREFIX } else { VALUE_PREFIX };
        writer::str(&mut content, &format!("{prefix}{:010}", 0));
        let digits_end = content.len();
        if operation == Operation::Set {
            writer::bin(&mut content, &vec![b'x'; value_size]);
        }
        if count > 0 {
            writer::map_len(&mut content, count);
            content.extend_from_slice(&options);
        }
        let mut bytes = fast::frame_head(content.len());
        let head = bytes.len();
        bytes.extend_from_slice(&content);
        Template { bytes, id_at: head + 3, digits_at: head + digits_end - 10 }
    }

    /// Appends one request; `more` means that another one of the same message follows.
    pub(super) fn append(&self, out: &mut BytesMut, id: u32, mut key: u64, more: bool) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let Some(request) = out.get_mut(start..) else { return };
        if let Some(flags) = request.first_mut().filter(|_| more) {
            *flags |= MORE;
        }
        if let Some(place) = request.get_mut(self.id_at..self.id_at + 4) {
            place.copy_from_slice(&id.to_be_bytes());
        }
        if let Some(digits) = request.get_mut(self.digits_at..self.digits_at + 10) {
            for digit in digits.iter_mut().rev() {
                *digit = b'0' + (key % 10) as u8;
                key /= 10;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{RawValue, Request};

    fn appended(template: &Template, id: u32, key: u64, more: bool) -> BytesMut {
        let mut out = BytesMut::new();
        template.append(&mut out, id, key, more);
        out
    }

    fn framed(request: &Request) -> Vec<u8> {
        let frame = request.encode(70_000);
        [fast::frame_head(frame.len()).as_slice(), &frame].concat()
    }

    #[test]
    fn a_template_encodes_the_same_frames_as_the_client() {
        let get = Template::new(Operation::Get, 9, Some(Level::Stored));
        let request = Request::new("get").key(b"bench:v:0000000042");
        assert_eq!(appended(&get, 70_000, 42, false), framed(&request));

        let set = Template::new(Operation::Set, 300, Some(Level::Stored));
        let request = Request::new("set")
            .key(b"bench:v:9876543210")
            .argument(&RawValue::bin(&[b'x'; 300]))
            .option("durability", "stored");
        assert_eq!(appended(&set, 70_000, 9_876_543_210, false), framed(&request));

        let incr = Template::new(Operation::Incr, 9, None);
        let request = Request::new("incr").key(b"bench:n:0000000001").option("initial", 0);
        assert_eq!(appended(&incr, 70_000, 1, false), framed(&request));
        assert_eq!(appended(&incr, 70_000, 1, true)[0], MORE);
    }
}
