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
            self.roll_back(write);
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
        let mut results = begin(batch);
        for (index, command) in batch.commands.iter().enumerate() {
            let refused = |refusal: Refusal| refusal.in_batch(index, command.method());
            let context = write.context;
            write.charge(1, 0);
            let done = if command.may_write() {
                self.write(command, write)
            } else {
                let mut sight = Sight::default();
                let read = self.read(command.into(), context, &mut sight);
                write.saw(&sight);
                write.looks += sight.cost.entries;
                read
            };
            let done = done.map_err(refused)?;
            // Nobody else gets through while it runs. Checked before the result is copied.
            within(results.len() + done.bytes(), write.looks, context).map_err(refused)?;
            if write.is_over() {
                let over = Refusal::too_large("write_bytes", context.write_bytes);
                return Err(refused(over));
            }
            let before = results.copied();
            done.encode(&mut results);
            write.charge(0, results.copied() - before);
        }
        Ok(results)
    }

    /// Runs commands that only read. Nothing is copied before it is known that all of it fits.
    pub(super) fn read_batch(
        &self,
        batch: &Batch<'_>,
        context: &Context,
        sight: &mut Sight,
    ) -> Result<ReplyBuffer, Refusal> {
        let (mut replies, mut bytes, mut passed) = (Vec::new(), 0, 0);
        for (index, command) in batch.commands.iter().enumerate() {
            let refused = |refusal: Refusal| refusal.in_batch(index, command.method());
            let before = sight.cost.entries;
            let reply = self.read(command.into(), context, sight).map_err(refused)?;
            passed += sight.cost.entries - before;
            sight.pass(1);
            bytes += reply.bytes();
            within(bytes, passed, context).map_err(refused)?;
            replies.push(reply);
        }
        let mut results = begin(batch);
        replies.iter().for_each(|reply| reply.encode(&mut results));
        sight.cost.bytes += results.copied();
        Ok(results)
    }
}

fn begin(batch: &Batch<'_>) -> ReplyBuffer {
    let mut results = ReplyBuffer::after(Vec::with_capacity(5 + batch.commands.len() * 2));
    writer::array_len(results.bytes(), batch.commands.len());
    results
}

/// Checks how long the results are so far, and how many entries were passed over for them.
fn within(bytes: usize, passed: usize, context: &Context) -> Result<(), Refusal> {
    let Context { reply_bytes, command_items, .. } = *context;
    if bytes > reply_bytes {
        return Err(Refusal::too_large(REPLY_LIMIT, reply_bytes));
    }
    if passed > command_items {
        return Err(Refusal::too_large("command_items", command_items));
    }
    Ok(())
}
