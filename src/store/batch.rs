//! `batch`: several commands as one write, all or nothing.

use super::read::Sight;
use super::write::Write;
use super::{Context, REPLY_LIMIT, Store};
use crate::wire::command::Batch;
use crate::wire::reply_buffer::Sink;
use crate::wire::{Refusal, ReplyBuffer, writer};

impl Store {
    /// Runs the commands; returns the array of their results, encoded. When one is refused,
    /// everything before it is taken back.
    pub(super) fn batch(
        &mut self,
        batch: &Batch<'_>,
        write: &mut Write<'_>,
    ) -> Result<ReplyBuffer, Refusal> {
        let (removals, writes) = (self.removals, self.writes);
        write.keeps_all = true;
        let done = self.run(batch, write);
        if done.is_err() {
            self.roll_back();
            (self.removals, self.writes) = (removals, writes);
            write.undo();
            // The error may tell of what earlier writes made; nothing of this one remains to wait
            // for.
            write.gate = writes;
            write.gate.join(removals);
        }
        done
    }

    fn run(&mut self, batch: &Batch<'_>, write: &mut Write<'_>) -> Result<ReplyBuffer, Refusal> {
        let results = Vec::with_capacity(1 + batch.commands.len() * 2);
        let mut results = ReplyBuffer::after(results);
        writer::array_len(results.bytes(), batch.commands.len());
        for (index, command) in batch.commands.iter().enumerate() {
            let done = if command.may_write() {
                self.write(command, write)
            } else {
                let mut sight = Sight::default();
                let read = self.read(command.into(), write.context, &mut sight);
                write.gate.join(sight.gate);
                write.looks += sight.looks;
                read
            };
            let refused = |refusal: Refusal| refusal.in_batch(index, command.method());
            done.map_err(refused)?.encode(&mut results);
            let Context { reply_bytes, write_bytes, command_items, .. } = *write.context;
            if results.len() > reply_bytes {
                return Err(refused(Refusal::too_large(REPLY_LIMIT, reply_bytes)));
            }
            // Nobody else gets through while it runs.
            if write.looks > command_items {
                return Err(refused(Refusal::too_large("command_items", command_items)));
            }
            if write.is_over() {
                return Err(refused(Refusal::too_large("write_bytes", write_bytes)));
            }
        }
        Ok(results)
    }
}
