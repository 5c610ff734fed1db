//! One MessagePack value in its own bytes.

use bytes::Bytes;
use rmp::Marker;
use rmpv::Value;
use serde::{Serialize, de::DeserializeOwned};

use crate::protocol::{Reader, writer};

/// Exactly one MessagePack value, in the bytes it was written with.
///
/// The broker keeps a value byte for byte, so a client must be able to hold one without
/// rewriting it: a `RawValue` is decoded only where its content is needed.
///
/// ```
/// use vatn::client::RawValue;
///
/// let value = RawValue::of(&("Maren", 2)).unwrap();
/// let (name, oars): (String, u32) = value.decode().unwrap();
/// assert_eq!((name.as_str(), oars), ("Maren", 2));
/// assert_eq!(RawValue::from(7).as_bytes(), [0x07]);
/// assert!(RawValue::new(vec![0x93, 1, 2]).is_none(), "an array of three with two elements");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawValue(Bytes);

impl RawValue {
    /// Wraps bytes that hold one MessagePack value; `None` when they hold less, more or something
    /// else.
    pub fn new(bytes: impl Into<Bytes>) -> Option<Self> {
        let bytes = bytes.into();
        let mut rest = bytes.as_ref();
        split_value(&mut rest)?;
        rest.is_empty().then_some(RawValue(bytes))
    }

    /// Packs any serialisable value, structs as maps.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, rmp_serde::encode::Error> {
        rmp_serde::to_vec_named(value).map(|bytes| RawValue(bytes.into()))
    }

    /// nil.
    pub fn nil() -> Self {
        Self::written(writer::nil)
    }

    /// A byte string (`bin`).
    pub fn bin(bytes: &[u8]) -> Self {
        Self::written(|out| writer::bin(out, bytes))
    }

    /// A key or a part of one: `str` when the bytes are UTF-8, else `bin`.
    pub fn key(bytes: &[u8]) -> Self {
        Self::written(|out| writer::key(out, bytes))
    }

    /// An integer; a number outside -2^63 to 2^64-1 becomes the nearest one inside.
    pub fn integer(number: i128) -> Self {
        Self::written(|out| writer::int(out, number))
    }

    /// The number, when this is an integer.
    pub fn as_integer(&self) -> Option<i128> {
        Reader::new(&self.0).int().ok()
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, shared.
    pub(super) fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// The content, as a tree.
    pub fn value(&self) -> Value {
        let mut rest = self.as_bytes();
        rmpv::decode::read_value(&mut rest).unwrap_or(Value::Nil)
    }

    /// The content, as a type of the caller.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, rmp_serde::decode::Error> {
        rmp_serde::from_slice(&self.0)
    }

    /// Whether this is nil.
    pub fn is_nil(&self) -> bool {
        self.as_bytes() == [0xc0]
    }

    /// The elements of an array; `None` when this is no array.
    pub(super) fn elements(&self) -> Option<Vec<RawValue>> {
        let mut reader = Reader::new(self.as_bytes());
        let count = reader.array_len().ok()?;
        let mut rest = reader.rest();
        let element = |_| split_value(&mut rest).map(|bytes| RawValue(self.0.slice_ref(bytes)));
        (0..count).map(element).collect()
    }

    /// Packs the one value that `write` writes.
    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut out = Vec::new();
        write(&mut out);
        RawValue(out.into())
    }
}

impl From<u64> for RawValue {
    fn from(number: u64) -> Self {
        Self::written(|out| writer::uint(out, number))
    }
}

impl From<bool> for RawValue {
    fn from(flag: bool) -> Self {
        Self::written(|out| writer::bool(out, flag))
    }
}

impl From<&str> for RawValue {
    fn from(text: &str) -> Self {
        Self::written(|out| writer::str(out, text))
    }
}

impl From<&Value> for RawValue {
    fn from(value: &Value) -> Self {
        // Writing into memory cannot fail.
        Self::written(|out| drop(rmpv::encode::write_value(out, value)))
    }
}

/// Splits one whole value off the front; `None` when there is none.
///
/// A reply wraps values that may be as deep as the protocol allows, so the depth is not limited
/// here: values still to come are counted instead of recursed into.
pub(super) fn split_value<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let whole = *rest;
    let mut at: usize = 0;
    let mut pending: u64 = 1;
    while pending > 0 {
        let tail = whole.get(at..)?;
        let (bytes, values) = extent(tail)?;
        at = at.checked_add(bytes).filter(|&end| end <= whole.len())?;
        pending = pending - 1 + values;
    }
    let (value, left) = whole.split_at_checked(at)?;
    *rest = left;
    Some(value)
}

/// How many bytes the value at the front has without its members, and how many members follow.
fn extent(bytes: &[u8]) -> Option<(usize, u64)> {
    let marker = Marker::from_u8(*bytes.first()?);
    let length = |width: usize| {
        let digits = bytes.get(1..=width)?;
        Some(digits.iter().fold(0_u64, |number, digit| number << 8 | u64::from(*digit)))
    };
    let counted = |width: usize, extra: usize| {
        let content = usize::try_from(length(width)?).ok()?;
        Some((content.checked_add(1 + width + extra)?, 0))
    };
    match marker {
        Marker::Reserved => None,
        Marker::Null | Marker::True | Marker::False => Some((1, 0)),
        Marker::FixPos(_) | Marker::FixNeg(_) => Some((1, 0)),
        Marker::U8 | Marker::I8 => Some((2, 0)),
        Marker::U16 | Marker::I16 => Some((3, 0)),
        Marker::U32 | Marker::I32 | Marker::F32 => Some((5, 0)),
        Marker::U64 | Marker::I64 | Marker::F64 => Some((9, 0)),
        Marker::FixStr(length) => Some((1 + usize::from(length), 0)),
        Marker::Str8 | Marker::Bin8 => counted(1, 0),
        Marker::Str16 | Marker::Bin16 => counted(2, 0),
        Marker::Str32 | Marker::Bin32 => counted(4, 0),
        Marker::FixExt1 => Some((3, 0)),
        Marker::FixExt2 => Some((4, 0)),
        Marker::FixExt4 => Some((6, 0)),
        Marker::FixExt8 => Some((10, 0)),
        Marker::FixExt16 => Some((18, 0)),
        Marker::Ext8 => counted(1, 1),
        Marker::Ext16 => counted(2, 1),
        Marker::Ext32 => counted(4, 1),
        Marker::FixArray(count) => Some((1, u64::from(count))),
        Marker::Array16 => Some((3, length(2)?)),
        Marker::Array32 => Some((5, length(4)?)),
        Marker::FixMap(count) => Some((1, 2 * u64::from(count))),
        Marker::Map16 => Some((3, 2 * length(2)?)),
        Marker::Map32 => Some((5, 2 * length(4)?)),
    }
}

/// The bytes of a key in a reply, which is `str` or `bin`.
pub(super) fn key_bytes(packed: &RawValue) -> Option<Bytes> {
    let bytes = Reader::new(packed.as_bytes()).bytes().ok()?;
    Some(packed.0.slice_ref(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exactly_one_value_is_accepted() {
        assert!(RawValue::new(vec![0x01]).is_some());
        assert!(RawValue::new(vec![0x93, 1, 2, 3]).is_some());
        for bad in [vec![], vec![0x01, 0x02], vec![0x93, 1, 2], vec![0xc1], vec![0xdd, 255, 255]] {
            assert!(RawValue::new(bad.clone()).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn values_of_every_type_are_split_where_they_end() {
        let ext = |length: usize| Value::Ext(3, vec![9; length]);
        let text = |length: usize| Value::from("x".repeat(length));
        let mut values = vec![Value::Nil, true.into(), 1.5_f32.into(), 2.5_f64.into()];
        values.extend([-1, -32, -33, -129, -40_000, i64::MIN].map(Value::from));
        values.extend([0, 127, 128, 256, 70_000, u64::MAX].map(Value::from));
        values.extend([0, 1, 2, 4, 8, 16, 17, 300, 70_000].map(ext));
        values.extend([0, 31, 32, 300, 70_000].map(text));
        values.extend([0, 300, 70_000].map(|length| Value::Binary(vec![0; length])));
        values.extend([0, 15, 16, 70_000].map(|count| Value::Array(vec![Value::Nil; count])));
        let pair = (Value::from(1), Value::Array(vec![text(40)]));
        values.extend([0, 15, 16, 70_000].map(|count| Value::Map(vec![pair.clone(); count])));
        for value in values {
            let packed = RawValue::from(&value);
            let followed = [packed.as_bytes(), &[0xc0]].concat();
            let mut rest = followed.as_slice();
            assert_eq!(split_value(&mut rest), Some(packed.as_bytes()));
            assert_eq!(rest, [0xc0]);
            let cut = &packed.as_bytes()[..packed.as_bytes().len() - 1];
            assert_eq!(split_value(&mut &*cut), None);
            assert_eq!(packed.value(), value);
        }
    }

    #[test]
    fn a_value_keeps_its_bytes() {
        let wide_one = vec![0xcf, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(RawValue::new(wide_one.clone()).unwrap().as_bytes(), wide_one);
    }

    #[test]
    fn keys_are_text_where_they_can_be() {
        assert_eq!(RawValue::key(b"a").as_bytes(), [0xa1, b'a']);
        assert_eq!(RawValue::key(b"\xfe").as_bytes(), [0xc4, 1, 0xfe]);
        assert_eq!(key_bytes(&RawValue::key(b"\xfe")).unwrap().as_ref(), b"\xfe");
        assert_eq!(key_bytes(&RawValue::from(7)), None);
    }
}
