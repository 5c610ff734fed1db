//! `batch`.

use super::{Command, Weight, shown};
use crate::wire::Level;
use crate::wire::options;
use crate::wire::params::Params;
use crate::wire::reader::{Fault, Reader};
use crate::wire::refusal::Refusal;

/// `batch [[[method, params]…], {durability}]`: `[results]`, all or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<'a> {
    /// The commands, in the order in which they apply.
    pub commands: Vec<Command<'a>>,
    /// When the reply may be sent.
    pub durability: Option<Level>,
}

impl<'a> Batch<'a> {
    pub(super) fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let (mut index, mut items, items_max) = (0, 0, params.items_max());
        let commands = params.list("commands", |reader| {
            let command = decode_one(reader, index, &mut items, items_max)?;
            index += 1;
            Ok(command)
        })?;
        let mut durability = None;
        params.options(&["durability"], |_, reader| {
            durability = Some(options::durability(reader)?);
            Ok(())
        })?;
        Ok(Self { commands, durability })
    }

    pub(super) fn weight(&self) -> Option<Weight> {
        self.commands.iter().filter_map(Command::weight).reduce(Weight::plus)
    }
}

/// Decodes the command at `index`, and adds what is in it to the `items` of those before.
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
    command.map_err(|refusal| refusal.in_batch(index, &shown(method)))
}
