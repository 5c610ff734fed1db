//! `incr` and `decr`.

use super::access::{Access, Right, Visited};
use super::cost::CommandCost;
use super::method::{Effects, Method, WriteMethod};
use super::options::{self, Expiry, WriteOptions};
use super::outcome::Outcome;
use crate::budget::Cost;
use crate::protocol::params::{Params, join_key};
use crate::protocol::reader::Fault;
use crate::protocol::refusal::Code;
use crate::protocol::{Key, Level, Reader, Refusal, Reply, WriteCost, writer};
use crate::state::Store;
use crate::state::write::Write;

/// The longest encoding of a number.
const NUMBER_BYTES: usize = 9;

/// `incr [key, {delta, initial, ttl_ms, expires_at_ms, durability, key_prefix}]`: the new number.
pub type Incr<'a> = Step<'a, false>;

/// `decr`: the same, but it subtracts.
pub type Decr<'a> = Step<'a, true>;

/// `incr`, or `decr` where it goes `DOWN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<'a, const DOWN: bool> {
    /// The key.
    pub key: Key<'a>,
    /// The amount to add.
    pub delta: u64,
    /// The value that a missing key gets (LeakDB's: this number itself, with no delta added).
    pub initial: Option<i128>,
    /// When the value expires; without it a time to live is unchanged.
    pub expiry: Option<Expiry>,
    /// When the reply may be sent.
    pub durability: Option<Level>,
}

impl<'a, const DOWN: bool> Method<'a> for Step<'a, DOWN> {
    const NAME: &'static str = if DOWN { "decr" } else { "incr" };
    const EFFECTS: Effects = Effects::ADDS;

    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let key = params.key()?;
        let (mut delta, mut initial, mut given) = (1, None, WriteOptions::default());
        let known = ["delta", "initial", "ttl_ms", "expires_at_ms", "durability", "key_prefix"];
        params.options(&known, |name, reader| {
            let at = |fault: Fault| fault.at(name);
            match name {
                "delta" => delta = reader.uint().map_err(at)?,
                "initial" => initial = Some(reader.int().map_err(at)?),
                _ => given.read(name, reader)?,
            }
            Ok(())
        })?;
        let WriteOptions { expiry, durability, key_prefix, .. } = given;
        Ok(Self { key: join_key(key_prefix, key)?, delta, initial, expiry, durability })
    }

    #[inline]
    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        visit(Access::key(Right::Write, &self.key))
    }

    fn cost(&self) -> CommandCost {
        CommandCost { work: Cost::new(1, 0), write: WriteCost::of(self.key.len(), NUMBER_BYTES) }
    }

    fn durability(&self) -> Option<Level> {
        self.durability
    }
}

impl<'a, const DOWN: bool> WriteMethod<'a> for Step<'a, DOWN> {
    fn run(&self, store: &mut Store, write: &mut Write<'_>) -> Result<Outcome<'static>, Refusal> {
        let key = store.hashed(&self.key, write.hash);
        let (number, kept) = match store.current(key, write) {
            Some(entry) => {
                let number = Reader::new(entry.value).int();
                let head = entry.head;
                // The new number shows the old one, and a refusal shows that there is no number.
                write.barrier.require(head.level, head.seq);
                let number = number.map_err(|_| not_a_number())?;
                (self.step(number).ok_or_else(overflow)?, head.expires_at)
            }
            None => {
                write.barrier.join(store.removals());
                (self.initial.ok_or_else(not_found)?, 0)
            }
        };
        let mut value = Vec::with_capacity(NUMBER_BYTES);
        writer::int(&mut value, number);
        options::put(store, key, &value, self.expiry, kept, write);
        Ok(Reply::Int(number).into())
    }
}

impl<const DOWN: bool> Step<'_, DOWN> {
    /// `number` after this command; `None` outside -2^63 to 2^64-1.
    fn step(&self, number: i128) -> Option<i128> {
        let delta = i128::from(self.delta);
        let next = if DOWN { number - delta } else { number + delta };
        (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&next).then_some(next)
    }
}

fn not_a_number() -> Refusal {
    Refusal::new(Code::NotANumber, "the value is not an integer")
}

fn overflow() -> Refusal {
    Refusal::new(Code::Overflow, "the result does not fit -2^63 to 2^64-1")
}

fn not_found() -> Refusal {
    Refusal::new(Code::NotFound, "the key does not exist; give `initial` to create it")
}
