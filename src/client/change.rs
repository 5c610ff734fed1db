//! The publisher's messages: changes, decoded from their frames.

use bytes::Bytes;
use rmpv::Value;

use super::Level;
use super::raw_value::RawValue;

pub use crate::protocol::Op;

/// One change of one key, as published.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The sequence number of the write.
    pub seq: u64,
    /// The operation.
    pub op: Op,
    /// The index of this change in its atomic write, from 0.
    pub index: u64,
    /// How many changes the write has.
    pub count: u64,
    /// The sequence number of the previous change that was sent to this subscriber.
    pub prev: u64,
    /// The time to live of the value, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// The level of the write.
    pub durability: Level,
    /// The key.
    pub key: Bytes,
    /// The value of a `set`; `None` for other ops. A `touch` keeps the value.
    pub value: Option<RawValue>,
}

/// A message of the publisher.
#[derive(Debug)]
pub(super) enum Publication {
    Change(Change),
    Beat { seq: u64, prev: u64 },
    Lost { seq: u64, prev: u64 },
}

impl Publication {
    pub(super) fn prev(&self) -> u64 {
        match self {
            Publication::Change(change) => change.prev,
            Publication::Beat { prev, .. } | Publication::Lost { prev, .. } => *prev,
        }
    }
}

/// Reads the three frames: key, header, value.
pub(super) fn decode(frames: &[Bytes]) -> Result<Publication, &'static str> {
    let [key, header, value] = frames else { return Err("a publication without three frames") };
    let header = RawValue::new(header.clone()).ok_or("a change's header is not MessagePack")?;
    let header = header.value();
    let fields = header.as_array().map(Vec::as_slice);
    let Some([seq, op, index, count, prev, ttl_ms, level, ..]) = fields else {
        return Err("a change's header has not seven elements");
    };
    let number = |value: &Value| value.as_u64().ok_or("a change's header has a bad number");
    let (seq, prev) = (number(seq)?, number(prev)?);
    let op = match op.as_str() {
        Some("beat") => return Ok(Publication::Beat { seq, prev }),
        Some("lost") => return Ok(Publication::Lost { seq, prev }),
        name => op_named(name).ok_or("a change of an unknown kind")?,
    };
    let value = match op {
        Op::Set => Some(RawValue::new(value.clone()).ok_or("a change's value is not MessagePack")?),
        Op::Touch | Op::Delete | Op::Expire => None,
    };
    let level =
        level.as_str().and_then(|name| name.parse().ok()).ok_or("a change of an unknown level")?;
    Ok(Publication::Change(Change {
        seq,
        op,
        index: number(index)?,
        count: number(count)?,
        prev,
        ttl_ms: if ttl_ms.is_nil() { None } else { Some(number(ttl_ms)?) },
        durability: level,
        key: key.clone(),
        value,
    }))
}

fn op_named(name: Option<&str>) -> Option<Op> {
    [Op::Set, Op::Delete, Op::Expire, Op::Touch].into_iter().find(|op| Some(op.name()) == name)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn change(seq: u64, prev: u64) -> Change {
        Change {
            seq,
            op: Op::Delete,
            index: 0,
            count: 1,
            prev,
            ttl_ms: None,
            durability: Level::Synced,
            key: Bytes::from_static(b"k"),
            value: None,
        }
    }

    fn frames(header: Vec<Value>, value: &'static [u8]) -> Vec<Bytes> {
        let header = RawValue::from(&Value::Array(header));
        let header = Bytes::copy_from_slice(header.as_bytes());
        vec![Bytes::from_static(b"k"), header, Bytes::from_static(value)]
    }

    fn header(op: &str) -> Vec<Value> {
        let numbers = [0, 1, 4].map(Value::from);
        let mut header = vec![Value::from(5), op.into()];
        header.extend(numbers);
        header.extend([Value::Nil, "synced".into()]);
        header
    }

    #[test]
    fn a_change_is_read_from_its_three_frames() {
        let Ok(Publication::Change(read)) = decode(&frames(header("delete"), b"")) else {
            panic!()
        };
        assert_eq!(read, change(5, 4));
        let Ok(Publication::Change(read)) = decode(&frames(header("set"), b"\x07")) else {
            panic!()
        };
        assert_eq!(read.value, Some(RawValue::from(7)));
    }

    #[test]
    fn frames_that_are_no_change_are_refused() {
        assert!(decode(&[]).is_err());
        assert!(decode(&frames(header("paint"), b"")).is_err());
        assert!(decode(&frames(header("set"), b"")).is_err());
        assert!(decode(&frames(vec![], b"")).is_err());
    }
}
