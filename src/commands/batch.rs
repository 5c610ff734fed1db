//! `batch`: several commands as one write, all or nothing.

use super::Command;
use super::access::{Access, Visited};
use super::cost::CommandCost;
use super::method::{Effects, Method, ReadMethod, WriteMethod};
use super::options::WriteOptions;
use super::outcome::Outcome;
use crate::protocol::params::Params;
use crate::protocol::reader::{Fault, Reader};
use crate::protocol::refusal;
use crate::protocol::reply_buffer::Sink;
use crate::protocol::{Level, Refusal, Reply, ReplyBuffer, writer};
use crate::state::read_set::ReadSet;
use crate::state::write::Write;
use crate::state::{Context, REPLY_LIMIT, Store};

/// `batch [[[method, params]…], {durability}]`: `[results]`, all or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<'a> {
    /// The commands, in the order in which they apply.
    pub commands: Vec<Command<'a>>,
    /// When the reply may be sent.
    pub durability: Option<Level>,
}

impl<'a> Method<'a> for Batch<'a> {
    const NAME: &'static str = "batch";
    const EFFECTS: Effects = Effects::READS;
    const IN_BATCH: bool = false;

    fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let (mut index, mut items, items_max) = (0, 0, params.items_max());
        let commands = params.list("commands", |reader| {
            let command = decode_one(reader, index, &mut items, items_max)?;
            index += 1;
            Ok(command)
        })?;
        let mut given = WriteOptions::default();
        params.options(&["durability"], |name, reader| given.read(name, reader))?;
        Ok(Self { commands, durability: given.durability })
    }

    fn access<'s>(&'s self, visit: &mut impl FnMut(Access<'s>) -> Visited) -> Visited {
        self.commands.iter().try_for_each(|command| command.access(visit))
    }

    fn values<'s>(&'s self, visit: &mut dyn FnMut(&'s [u8])) {
        self.commands.iter().for_each(|command| command.values(visit));
    }

    /// The cost of its commands on the state before it. Commands that find keys of earlier ones may
    /// cost more; the changes are measured again after each of them.
    fn cost_on(&self, store: &Store, _: Option<u64>) -> CommandCost {
        let own = CommandCost::read(1 + self.commands.len(), 0);
        self.commands.iter().map(|one| one.cost_on(store, None)).fold(own, CommandCost::plus)
    }

    fn cost(&self) -> CommandCost {
        let own = CommandCost::read(1 + self.commands.len(), 0);
        self.commands.iter().map(Command::cost).fold(own, CommandCost::plus)
    }

    fn effects(&self) -> Effects {
        self.commands.iter().map(Command::effects).fold(Self::EFFECTS, Effects::plus)
    }

    fn durability(&self) -> Option<Level> {
        self.durability
    }
}

impl<'a> WriteMethod<'a> for Batch<'a> {
    /// The result is the array of the commands' encoded results. When one is refused, all commands
    /// before it are rolled back.
    fn run(&self, store: &mut Store, write: &mut Write<'_>) -> Result<Outcome<'static>, Refusal> {
        let before = store.barriers();
        write.keeps_all = true;
        let done = self.run_each(store, write);
        if done.is_err() {
            store.roll_back(write, before);
        }
        done.map(|results| Reply::Results(results).into())
    }

    /// A batch of level `memory` gets level `queued` where one of its commands needs that.
    fn level(&self, requested: Level, store: &Store, _: Option<u64>) -> Level {
        let needs_more = |command: &Command<'_>| command.level(requested, store, None) > requested;
        let is_raised = requested == Level::Memory && self.commands.iter().any(needs_more);
        if is_raised { Level::Queued } else { requested }
    }
}

impl<'a> ReadMethod<'a> for Batch<'a> {
    /// Runs reading commands. Copies nothing before it is known that all results fit.
    fn run<'s>(
        &self,
        store: &'s Store,
        context: &Context,
        seen: &mut ReadSet,
    ) -> Result<Reply<'s>, Refusal> {
        let (mut replies, mut bytes, mut passed) = (Vec::new(), 0, 0);
        for (index, command) in self.commands.iter().enumerate() {
            let refused = |refusal: Refusal| refusal.in_batch(index, command.method());
            let before = seen.cost.entries;
            let reply = command.read(store, context, seen).map_err(refused)?;
            passed += seen.cost.entries - before;
            seen.pass(1);
            bytes += reply.bytes();
            within(bytes, passed, context).map_err(refused)?;
            replies.push(reply);
        }
        let mut results = self.begin();
        replies.iter().for_each(|reply| reply.encode(&mut results));
        seen.cost.bytes += results.copied();
        Ok(Reply::Results(results))
    }
}

impl Batch<'_> {
    fn run_each(&self, store: &mut Store, write: &mut Write<'_>) -> Result<ReplyBuffer, Refusal> {
        let mut results = self.begin();
        for (index, command) in self.commands.iter().enumerate() {
            let refused = |refusal: Refusal| refusal.in_batch(index, command.method());
            let context = write.context;
            write.charge(1, 0);
            let reply = match command.run_within(store, write).map_err(refused)? {
                Outcome::Reply(reply) => reply,
                Outcome::Deferred(_) => {
                    return Err(refused(Refusal::argument("commands", "none may wait")));
                }
            };
            // No other command runs meanwhile, so the size is checked before the result is copied.
            within(results.len() + reply.bytes(), write.looks, context).map_err(refused)?;
            if write.is_over() {
                let over = Refusal::too_large("write_bytes", context.write_bytes);
                return Err(refused(over));
            }
            let before = results.copied();
            reply.encode(&mut results);
            write.charge(0, results.copied() - before);
        }
        Ok(results)
    }

    fn begin(&self) -> ReplyBuffer {
        let mut results = ReplyBuffer::after(Vec::with_capacity(5 + self.commands.len() * 2));
        writer::array_len(results.bytes(), self.commands.len());
        results
    }
}

/// Decodes the command at `index`, and adds its items to the `items` of those before.
fn decode_one<'a>(
    reader: &mut Reader<'a>,
    index: usize,
    items: &mut usize,
    items_max: usize,
) -> Result<Command<'a>, Refusal> {
    let shape = |fault: Fault| fault.at("commands").in_batch(index, "?");
    if reader.array_len().map_err(shape)? != 2 {
        return Err(
            Refusal::argument("commands", "each must be [method, params]").in_batch(index, "?")
        );
    }
    let method = reader.bytes().map_err(shape)?;
    let mut params = Params::open_in_batch(reader, *items, items_max).map_err(shape)?;
    let command = params.count_item().and_then(|()| Command::decode(method, &mut params));
    *items = params.items();
    command.map_err(|refusal| refusal.in_batch(index, &refusal::shown(method, Refusal::NAME_CHARS)))
}

/// Checks the length of the results so far, and the number of entries passed for them.
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
