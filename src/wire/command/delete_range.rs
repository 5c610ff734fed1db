//! `delete_range`.

use super::Weight;
use super::range::limit;
use crate::wire::Level;
use crate::wire::options;
use crate::wire::params::Params;
use crate::wire::refusal::Refusal;

/// `delete_range [{from, to, prefix, after, limit, durability}]`: `[count, next or nil]`, one
/// atomic write.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteRange<'a> {
    /// The first key, inclusive.
    pub from: Option<&'a [u8]>,
    /// The end, exclusive.
    pub to: Option<&'a [u8]>,
    /// Only keys that begin with this.
    pub prefix: Option<&'a [u8]>,
    /// A cursor: only keys above it.
    pub after: Option<&'a [u8]>,
    /// Most keys to delete; `None` for the broker's cap.
    pub limit: Option<usize>,
    /// When the reply may be sent.
    pub durability: Option<Level>,
}

impl<'a> DeleteRange<'a> {
    pub(super) fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let mut range = Self::default();
        let known = ["from", "to", "prefix", "after", "limit", "durability"];
        params.options(&known, |name, reader| {
            match name {
                "limit" => range.limit = Some(limit(reader)?),
                "durability" => range.durability = Some(options::durability(reader)?),
                bound => {
                    let bytes = Some(reader.bytes().map_err(|fault| fault.at(name))?);
                    match bound {
                        "from" => range.from = bytes,
                        "to" => range.to = bytes,
                        "prefix" => range.prefix = bytes,
                        _ => range.after = bytes,
                    }
                }
            }
            Ok(())
        })?;
        if range.from.or(range.to).or(range.prefix).is_none() {
            let what = "is missing, and so are from and to; give one of them (an empty prefix \
                        stands for all keys)";
            return Err(Refusal::argument("prefix", what));
        }
        Ok(range)
    }

    /// The weight of one change; those that the range holds are known only when the command runs.
    pub(super) fn weight(&self) -> Weight {
        Weight::of(&[], &[])
    }
}
