//! `incr` and `decr`.

use super::Store;
use super::write::Write;
use crate::wire::change::Op;
use crate::wire::command::Incr;
use crate::wire::refusal::Code;
use crate::wire::{Reader, Refusal, Reply, writer};

impl Store {
    pub(super) fn incr(
        &mut self,
        incr: &Incr<'_>,
        write: &mut Write<'_>,
    ) -> Result<Reply<'static>, Refusal> {
        let key = self.hashed(&incr.key, write.hash);
        let (number, expires_at) = match self.current(key, write) {
            Some(entry) => {
                let number = Reader::new(entry.value).int();
                let (level, seq, expires_at) =
                    (entry.head.level, entry.head.seq, entry.head.expires_at);
                // The new number tells the old one, and a refusal that it is none.
                write.gate.require(level, seq);
                let number = number.map_err(|_| not_a_number())?;
                (incr.step(number).ok_or_else(overflow)?, expires_at)
            }
            None => {
                write.gate.join(self.removals);
                (incr.initial.ok_or_else(not_found)?, 0)
            }
        };
        let expires_at =
            if incr.ttl_ms.is_some() { write.deadline(incr.ttl_ms) } else { expires_at };
        let mut value = Vec::with_capacity(9);
        writer::int(&mut value, number);
        self.put(Op::Set, key, &value, expires_at, write);
        Ok(Reply::Int(number))
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
