//! `changes` and `wait`.

use crate::clock::Millis;
use crate::limits::KEY_BYTES_MAX;
use crate::wire::params::Params;
use crate::wire::refusal::Refusal;
use crate::wire::{Level, Reader, Seq};

/// `changes [after_seq, {prefix, limit, wait_ms}]`: `[[change…], next_seq]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes<'a> {
    /// Only changes of writes later than this.
    pub after: Seq,
    /// Only changes of keys that begin with this.
    pub prefix: &'a [u8],
    /// Most changes in the reply; `None` for the broker's cap. A write's changes stay together.
    pub limit: Option<usize>,
    /// How long to wait for a change when there is none yet.
    pub wait_ms: Millis,
}

impl<'a> Changes<'a> {
    pub(super) fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let after = params.required("after_seq", Reader::uint)?;
        let mut changes = Self { after, prefix: &[], limit: None, wait_ms: 0 };
        params.options(&["prefix", "limit", "wait_ms"], |name, reader| {
            match name {
                "prefix" => {
                    changes.prefix = reader.bytes().map_err(|fault| fault.at(name))?;
                    // It is kept while the request waits, and no longer one can match.
                    if changes.prefix.len() > KEY_BYTES_MAX {
                        let what = format!("must have at most {KEY_BYTES_MAX} bytes, as a key");
                        return Err(Refusal::argument(name, what));
                    }
                }
                "limit" => {
                    let limit = reader.uint().map_err(|fault| fault.at(name))?;
                    if limit == 0 {
                        return Err(Refusal::argument(name, "must be at least 1"));
                    }
                    changes.limit = Some(usize::try_from(limit).unwrap_or(usize::MAX));
                }
                _ => changes.wait_ms = reader.uint().map_err(|fault| fault.at(name))?,
            }
            Ok(())
        })?;
        Ok(changes)
    }
}

/// `wait [seq, level, {timeout_ms}]`: true when that seq has reached that level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// The seq.
    pub seq: Seq,
    /// The level it must reach.
    pub level: Level,
    /// How long to wait; then the answer is false. `None` waits as long as it takes.
    pub timeout_ms: Option<Millis>,
}

impl Wait {
    pub(super) fn decode(params: &mut Params<'_, '_>) -> Result<Self, Refusal> {
        let seq = params.required("seq", Reader::uint)?;
        let level = params.with("level", |reader, _| {
            let name = reader.bytes().map_err(|fault| fault.at("level"))?;
            let wanted = "must be one of memory, queued, stored, synced";
            Level::from_name(name).ok_or_else(|| Refusal::argument("level", wanted))
        })?;
        let mut timeout_ms = None;
        params.options(&["timeout_ms"], |name, reader| {
            timeout_ms = Some(reader.uint().map_err(|fault| fault.at(name))?);
            Ok(())
        })?;
        Ok(Self { seq, level, timeout_ms })
    }
}
