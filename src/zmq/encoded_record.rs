//! A change as it is sent to a subscriber: a message of three frames.
//!
//! Subscribers get the same bytes, except for `prev` where one did not get the change before. So a
//! record is encoded once for all subscribers of one thread that get most of it, and each copies
//! its part.

use super::zmtp::{FRAME_HEAD_BYTES, write_frame, write_frame_head};
use crate::protocol::Seq;
use crate::protocol::change::{Change, Header};
use crate::wal::Record;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// Longer records are not kept encoded: they have few changes, and each is mostly its value.
const RECORD_BYTES_MAX: usize = 256 * 1024;
/// How many encoded records are kept: subscribers of one thread read on at about the same time.
/// They take a few MiB of each thread.
const KEPT: usize = 8;

thread_local! {
    static NEWEST: RefCell<VecDeque<Rc<EncodedRecord>>> = RefCell::default();
}

/// The encoded messages of a record, for subscribers that get all of it.
#[derive(Debug)]
pub(super) struct EncodedRecord {
    record: Arc<Record>,
    bytes: Vec<u8>,
    /// The end of each change's message.
    ends: Vec<u32>,
}

impl EncodedRecord {
    /// Returns the encoded record, encoded now or before for another subscriber; `None` for a long
    /// one.
    pub(super) fn of(record: &Arc<Record>) -> Option<Rc<Self>> {
        if record.len() > RECORD_BYTES_MAX {
            return None;
        }
        NEWEST.with_borrow_mut(|newest| {
            if let Some(encoded) =
                newest.iter().find(|encoded| Arc::ptr_eq(&encoded.record, record))
            {
                return Some(Rc::clone(encoded));
            }
            let encoded = Rc::new(Self::encode(record));
            newest.truncate(KEPT - 1);
            newest.push_front(Rc::clone(&encoded));
            Some(encoded)
        })
    }

    fn encode(record: &Arc<Record>) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(record.items));
        let mut prev = before(record);
        for change in record.changes() {
            append(&mut bytes, &change, prev);
            prev = change.seq;
            // A record is never that long.
            ends.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        }
        Self { record: Arc::clone(record), bytes, ends }
    }

    /// Each change with its message, and the `prev` that its message has.
    pub(super) fn each(&self) -> impl Iterator<Item = (Change<'_>, Seq, &[u8])> {
        let (mut start, mut prev) = (0, before(&self.record));
        self.record.changes().zip(&self.ends).map(move |(change, end)| {
            let message = self.bytes.get(start..*end as usize).unwrap_or_default();
            start = *end as usize;
            (change, std::mem::replace(&mut prev, change.seq), message)
        })
    }
}

/// The change before the first one of a record, in nearly all cases.
fn before(record: &Record) -> Seq {
    record.first_seq.saturating_sub(1)
}

/// The longest second frame.
const HEADER_BYTES: usize = 80;

/// The longest message of a change, in bytes.
pub(super) fn bytes_max(change: &Change<'_>) -> usize {
    change.key.len() + change.value.len() + 3 * FRAME_HEAD_BYTES + HEADER_BYTES
}

/// The longest messages of a record's changes together, in bytes.
pub(super) fn record_bytes_max(record: &Record) -> usize {
    record.len() + record.items * (3 * FRAME_HEAD_BYTES + HEADER_BYTES)
}

/// Appends a change as a message of three frames: key, header, value.
pub(super) fn append(out: &mut Vec<u8>, change: &Change<'_>, prev: Seq) {
    write_frame(out, true, change.key);
    write_header(out, &change.header(prev));
    write_frame(out, false, change.value);
}

/// Appends the second frame.
pub(super) fn write_header(out: &mut Vec<u8>, header: &Header<'_>) {
    write_frame_head(out, true, 0);
    let start = out.len();
    header.encode(out);
    // Seven short elements never need the long form of a frame.
    let len = out.len() - start;
    if let Some(slot) = out.get_mut(start - 1) {
        *slot = len as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::change::Op;
    use crate::protocol::{ChangeBuffer, Level};

    /// A record of a write of two changes, and of one with a value of `value_bytes`.
    fn record(first_seq: Seq, value_bytes: usize) -> Arc<Record> {
        let mut pending = ChangeBuffer::default();
        let mark = pending.begin(first_seq, Level::Synced, 10);
        pending.push(Op::Set, false, Some(99), b"a", b"\x01");
        pending.push(Op::Delete, false, None, b"b", b"");
        pending.end(mark);
        let mark = pending.begin(first_seq + 1, Level::Memory, 11);
        pending.push(Op::Set, true, None, b"c", &vec![7; value_bytes]);
        pending.end(mark);
        Arc::new(Record::new(pending))
    }

    #[test]
    fn a_shared_message_equals_the_one_encoded_for_each_subscriber() {
        let record = record(5, 300);
        let encoded = EncodedRecord::of(&record).unwrap();
        let mut prevs = Vec::new();
        for (change, prev, message) in encoded.each() {
            let mut alone = Vec::new();
            append(&mut alone, &change, prev);
            assert_eq!(message, alone);
            assert!(message.len() <= bytes_max(&change));
            prevs.push(prev);
        }
        assert_eq!(prevs, [4, 5, 5]);
    }

    #[test]
    fn a_record_is_encoded_once_and_never_taken_for_another() {
        let (one, other) = (record(5, 1), record(5, 1));
        let encoded = EncodedRecord::of(&one).unwrap();
        assert!(Rc::ptr_eq(&encoded, &EncodedRecord::of(&one).unwrap()));
        assert!(
            !Rc::ptr_eq(&encoded, &EncodedRecord::of(&other).unwrap()),
            "of the same seqs, elsewhere"
        );
        for seq in 0..KEPT as Seq {
            EncodedRecord::of(&record(seq, 1));
        }
        assert!(
            !Rc::ptr_eq(&encoded, &EncodedRecord::of(&one).unwrap()),
            "only the newest are kept"
        );
        assert!(EncodedRecord::of(&record(5, RECORD_BYTES_MAX)).is_none());
    }
}
