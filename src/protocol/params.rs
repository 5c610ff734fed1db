//! The arguments of one request: positional ones in order, then at most one map of options.

use super::Key;
use super::reader::{Fault, Read, Reader};
use super::refusal::{self, Code, Refusal};
use crate::limits::{KEY_BYTES_MAX, KEY_RESERVED};
use std::borrow::Cow;

/// A cursor over the params array of a request.
#[derive(Debug)]
pub struct Params<'r, 'a> {
    reader: &'r mut Reader<'a>,
    left: usize,
    in_batch: bool,
    /// The keys, pairs and commands so far, and their maximum.
    items: usize,
    items_max: usize,
}

impl<'r, 'a> Params<'r, 'a> {
    /// Reads the head of the params array.
    #[inline]
    pub fn open(reader: &'r mut Reader<'a>, items_max: usize) -> Read<Self> {
        let left = reader.array_len()?;
        Ok(Self { reader, left, in_batch: false, items: 0, items_max })
    }

    /// Reads the params array's head of a command inside a batch, after `items` items.
    pub fn open_in_batch(reader: &'r mut Reader<'a>, items: usize, items_max: usize) -> Read<Self> {
        Ok(Self { in_batch: true, items, ..Self::open(reader, items_max)? })
    }

    /// The maximum number of items.
    pub fn items_max(&self) -> usize {
        self.items_max
    }

    /// The number of keys, pairs and commands so far.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Counts one more.
    pub fn count_item(&mut self) -> Result<(), Refusal> {
        self.items += 1;
        if self.items > self.items_max {
            return Err(Refusal::too_large("command_items", self.items_max));
        }
        Ok(())
    }

    /// Whether these are the params of a command inside a batch.
    pub fn in_batch(&self) -> bool {
        self.in_batch
    }

    /// Reads one positional argument with `read`.
    #[inline]
    pub fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Reader<'a>) -> Read<T>,
    ) -> Result<T, Refusal> {
        let Some(left) = self.left.checked_sub(1) else {
            return Err(Refusal::argument(name, "is missing"));
        };
        self.left = left;
        read(self.reader).map_err(|fault| fault.at(name))
    }

    /// Reads one positional argument with a `read` that writes its own refusals.
    pub fn with<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Reader<'a>, bool) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let Some(left) = self.left.checked_sub(1) else {
            return Err(Refusal::argument(name, "is missing"));
        };
        self.left = left;
        read(self.reader, self.in_batch)
    }

    /// Reads one key.
    #[inline]
    pub fn key(&mut self) -> Result<&'a [u8], Refusal> {
        self.required("key", Reader::bytes)
    }

    /// Reads one value, kept as its bytes.
    #[inline]
    pub fn value(&mut self) -> Result<&'a [u8], Refusal> {
        self.required("value", Reader::value)
    }

    /// Reads a value that may be absent.
    pub fn optional_value(&mut self, name: &'static str) -> Result<Option<&'a [u8]>, Refusal> {
        if self.left == 0 { Ok(None) } else { self.required(name, Reader::value).map(Some) }
    }

    /// Reads a list: an array whose elements `read` reads one by one.
    pub fn list<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&mut Reader<'a>) -> Result<T, Refusal>,
    ) -> Result<Vec<T>, Refusal> {
        let len = self.required(name, Reader::array_len)?;
        // Each element takes at least one byte, so the bytes present bound what a length may
        // reserve.
        let mut items = Vec::with_capacity(len.min(self.reader.rest().len()).min(1024));
        for _ in 0..len {
            self.count_item()?;
            items.push(read(self.reader)?);
        }
        Ok(items)
    }

    /// Reads the options, if there are any, and checks that nothing else follows.
    ///
    /// `known` names the options of this command; `read` is called with the name of each option
    /// that has a value other than nil. An unknown or repeated option is refused, so that none is
    /// silently ignored.
    #[inline]
    pub fn options(
        &mut self,
        known: &[&'static str],
        mut read: impl FnMut(&'static str, &mut Reader<'a>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        if self.left == 0 {
            return Ok(());
        }
        let pairs = self.required("options", Reader::map_len)?;
        let mut seen = 0_u32;
        for _ in 0..pairs {
            let name = self.reader.bytes().map_err(|fault| fault.at("options"))?;
            let (position, name) = self.lookup(known, name)?;
            if seen & (1 << position) != 0 {
                return Err(Refusal::argument(name, "is given twice"));
            }
            seen |= 1 << position;
            if !self.reader.nil().map_err(|fault| fault.at(name))? {
                read(name, self.reader)?;
            }
        }
        self.finish()
    }

    #[inline]
    fn lookup(
        &self,
        known: &[&'static str],
        name: &[u8],
    ) -> Result<(usize, &'static str), Refusal> {
        let found = known.iter().enumerate().find(|(_, known)| known.as_bytes() == name);
        if let Some((position, name)) = found {
            if self.in_batch && *name == "durability" {
                let what = "belongs to the batch, not to a command in it";
                return Err(Refusal::argument(name, what));
            }
            return Ok((position, name));
        }
        Err(unknown(known, name))
    }

    /// Checks that every param has been read.
    #[inline]
    pub fn finish(&self) -> Result<(), Refusal> {
        match self.left {
            0 => Ok(()),
            left => Err(too_many(left)),
        }
    }
}

#[cold]
fn unknown(known: &[&str], name: &[u8]) -> Refusal {
    let shown = refusal::shown(name, Refusal::NAME_CHARS);
    let options = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Refusal::argument(&shown, format!("is not an option here; the options are: {options}"))
}

#[cold]
fn too_many(left: usize) -> Refusal {
    Refusal::argument("params", format!("{left} too many"))
}

/// Checks a key's length and first byte.
#[inline]
pub fn check_key(key: &[u8]) -> Result<(), Refusal> {
    check(key.len(), key.first())
}

/// Checks the key made of `prefix` and `key`.
#[inline]
pub fn check_joined(prefix: &[u8], key: &[u8]) -> Result<(), Refusal> {
    check(prefix.len() + key.len(), prefix.first().or(key.first()))
}

#[inline]
fn check(bytes: usize, first: Option<&u8>) -> Result<(), Refusal> {
    if bytes > KEY_BYTES_MAX || first == Some(&KEY_RESERVED) {
        return Err(bad_key(bytes));
    }
    Ok(())
}

#[cold]
fn bad_key(bytes: usize) -> Refusal {
    let message = if bytes > KEY_BYTES_MAX {
        format!("the key has {bytes} bytes; at most {KEY_BYTES_MAX} are allowed")
    } else {
        "keys that begin with the byte 0xFF are reserved".to_owned()
    };
    Refusal::new(Code::BadKey, message)
}

/// The checked key made of `prefix` and `key`.
#[inline]
pub fn join_key<'a>(prefix: &'a [u8], key: &'a [u8]) -> Result<Key<'a>, Refusal> {
    check_joined(prefix, key)?;
    if prefix.is_empty() {
        return Ok(Cow::Borrowed(key));
    }
    Ok(Cow::Owned([prefix, key].concat()))
}

/// Reads one key of a list and checks it.
pub fn list_key<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Refusal> {
    reader.bytes().map_err(|fault: Fault| fault.at("keys"))
}
