//! `incr` and `decr`.

use crate::clock::Millis;
use crate::wire::options;
use crate::wire::params::{Params, join_key};
use crate::wire::reader::Fault;
use crate::wire::refusal::Refusal;
use crate::wire::{Key, Level};

/// `incr [key, {delta, initial, ttl_ms, durability, key_prefix}]`, and `decr`: the new number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incr<'a> {
    /// The key.
    pub key: Key<'a>,
    /// Subtract instead of add.
    pub down: bool,
    /// How much.
    pub delta: u64,
    /// What a missing key becomes (LeakDB: this number itself, with no delta added).
    pub initial: Option<i128>,
    /// The value expires after so long; without it a time to live stays as it was.
    pub ttl_ms: Option<Millis>,
    /// When the reply may be sent.
    pub durability: Option<Level>,
}

impl<'a> Incr<'a> {
    pub(super) fn decode(params: &mut Params<'_, 'a>, down: bool) -> Result<Self, Refusal> {
        let key = params.key()?;
        let (mut delta, mut initial, mut ttl_ms, mut durability) = (1, None, None, None);
        let mut prefix: &'a [u8] = &[];
        let known = ["delta", "initial", "ttl_ms", "durability", "key_prefix"];
        params.options(&known, |name, reader| {
            let at = |fault: Fault| fault.at(name);
            match name {
                "delta" => delta = reader.uint().map_err(at)?,
                "initial" => initial = Some(reader.int().map_err(at)?),
                "ttl_ms" => ttl_ms = Some(options::ttl_ms(reader)?),
                "durability" => durability = Some(options::durability(reader)?),
                _ => prefix = options::key_prefix(reader)?,
            }
            Ok(())
        })?;
        Ok(Self { key: join_key(prefix, key)?, down, delta, initial, ttl_ms, durability })
    }

    /// `number` after this command; `None` when that does not fit -2^63 to 2^64-1.
    pub fn step(&self, number: i128) -> Option<i128> {
        let delta = i128::from(self.delta);
        let next = if self.down { number - delta } else { number + delta };
        (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&next).then_some(next)
    }
}
