//! The rows in fjall's journals; `journal` describes the format.

use super::journal::{CLEAR, COMPRESSIONS, END, ITEM, MAGIC, START};
use crate::protocol::Fields;
use std::io;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

const VALUE: u8 = 0;
const LZ4: u8 = 1;

/// A row in a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Journaled {
    pub(super) tree: u64,
    pub(super) seqno: u64,
    pub(super) key: Vec<u8>,
    /// `None` for a deleted row.
    pub(super) value: Option<Vec<u8>>,
}

/// Reads the rows of the journal at `path`, in the order in which they were written, up to the
/// first incomplete batch; with `past_damage`, also the rows of whole batches after it.
pub(super) fn read(
    path: &Path,
    past_damage: bool,
    each: &mut dyn FnMut(Journaled),
) -> io::Result<()> {
    let bytes = std::fs::read(path)?;
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match batch(rest) {
            Some((rows, length)) => {
                rows.into_iter().for_each(&mut *each);
                at += length;
            }
            None if past_damage => {
                let next = rest.iter().skip(1).position(|byte| *byte == START);
                at = next.map_or(bytes.len(), |place| at + 1 + place);
            }
            None => return Ok(()),
        }
    }
    Ok(())
}

/// The batch at the start of `bytes`, and its length.
fn batch(bytes: &[u8]) -> Option<(Vec<Journaled>, usize)> {
    let mut fields = Fields::new(bytes);
    let [START] = fields.take()? else { return None };
    let count = u32::from_le_bytes(fields.take()?);
    let seqno = fields.number()?;
    let begin = fields.rest();
    let mut rows = Vec::new();
    for _ in 0..count {
        match fields.take()? {
            [ITEM] => rows.push(item(&mut fields, seqno)?),
            // vatn never clears a tree.
            [CLEAR] => drop(fields.number()?),
            _ => return None,
        }
    }
    let items = begin.get(..begin.len() - fields.rest().len())?;
    let [END] = fields.take()? else { return None };
    let checksum = fields.number()?;
    let is_whole = fields.take()? == *MAGIC && checksum == xxh3_64(items);
    is_whole.then(|| (rows, bytes.len() - fields.rest().len()))
}

fn item(fields: &mut Fields<'_>, seqno: u64) -> Option<Journaled> {
    let [kind, compression] = fields.take()?;
    let tree = fields.number()?;
    let key_length = u16::from_le_bytes(fields.take()?);
    let length = u32::from_le_bytes(fields.take()?);
    let stored = u32::from_le_bytes(fields.take()?);
    let key = fields.slice(usize::from(key_length))?.to_vec();
    let stored = fields.slice(stored as usize)?;
    let is_value = kind == VALUE && COMPRESSIONS.contains(&compression);
    let value = match is_value.then_some(compression) {
        None => None,
        Some(LZ4) => {
            // A length beyond LZ4's greatest ratio makes the item invalid.
            let is_possible = length as usize / 256 <= stored.len();
            let unpacked =
                is_possible.then(|| lz4_flex::block::decompress(stored, length as usize));
            Some(unpacked?.ok()?)
        }
        Some(_) => Some(stored.to_vec()),
    };
    Some(Journaled { tree, seqno, key, value })
}
