//! `range` and `count`.

use crate::wire::options;
use crate::wire::params::Params;
use crate::wire::reader::Reader;
use crate::wire::refusal::Refusal;

/// `range [{from, after, to, prefix, limit, reverse, keys_only, meta}]`: `[[[key, value]…], next or
/// nil]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Range<'a> {
    /// The first key, inclusive.
    pub from: Option<&'a [u8]>,
    /// A cursor: only keys strictly beyond it, in the direction of travel.
    pub after: Option<&'a [u8]>,
    /// The end, exclusive.
    pub to: Option<&'a [u8]>,
    /// Only keys that begin with this.
    pub prefix: &'a [u8],
    /// Most items in the reply; `None` for the broker's cap.
    pub limit: Option<usize>,
    /// From the last key to the first.
    pub reverse: bool,
    /// Keys without their values.
    pub keys_only: bool,
    /// Values with what is known of them, as `get` with `meta` shows it.
    pub meta: bool,
}

impl<'a> Range<'a> {
    pub(super) fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let mut range = Self::default();
        let known = ["from", "after", "to", "prefix", "limit", "reverse", "keys_only", "meta"];
        params.options(&known, |name, reader| {
            match name {
                "limit" => range.limit = Some(limit(reader)?),
                "reverse" => range.reverse = options::flag(name, reader)?,
                "meta" => range.meta = options::flag(name, reader)?,
                "keys_only" => range.keys_only = options::flag(name, reader)?,
                bound => {
                    let bytes = reader.bytes().map_err(|fault| fault.at(name))?;
                    match bound {
                        "from" => range.from = Some(bytes),
                        "after" => range.after = Some(bytes),
                        "to" => range.to = Some(bytes),
                        _ => range.prefix = bytes,
                    }
                }
            }
            Ok(())
        })?;
        if range.meta && range.keys_only {
            return Err(Refusal::argument(
                "meta",
                "tells of values, and keys_only leaves them out",
            ));
        }
        Ok(range)
    }
}

/// Reads a `limit` option, at least 1.
pub(super) fn limit(reader: &mut Reader<'_>) -> Result<usize, Refusal> {
    match reader.uint().map_err(|fault| fault.at("limit"))? {
        0 => Err(Refusal::argument("limit", "must be at least 1")),
        limit => Ok(usize::try_from(limit).unwrap_or(usize::MAX)),
    }
}

/// `count [{prefix}]`: how many keys begin with the prefix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Count<'a> {
    /// The prefix; empty counts all.
    pub prefix: &'a [u8],
}

impl<'a> Count<'a> {
    pub(super) fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let mut count = Self::default();
        params.options(&["prefix"], |name, reader| {
            count.prefix = reader.bytes().map_err(|fault| fault.at(name))?;
            Ok(())
        })?;
        Ok(count)
    }
}
