//! fjall's sorted files: which there are, and that each is as it was written.
//!
//! ```text
//! current  id u64 | xxh3 u128 of the file v<id> | 0
//! v<id>    sections, then their list: "TOC!" | count u32 | (at u64 | len u64 | name_len u16
//!          | name)*, then "SFA!" | 1 | 0 | xxh3 u128 of the list | at u64 | len u64 of the list
//! tables   a section: levels u8 | (runs u8 | (count u32 | (id u64 | 0 | xxh3 u128 of the file
//!          tables/<id> | u64)*)*)*
//! ```

use super::{Depth, FileFault};
use crate::wire::Fields;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

pub(super) const CURRENT: &str = "current";
/// The bytes after the list of sections.
const TRAILER_BYTES: usize = 4 + 1 + 1 + 16 + 8 + 8;
/// No list of sections is longer: a file has about ten.
const LIST_BYTES_MAX: u64 = 1 << 16;

/// Looks at the tree in `name`, seen from `path`.
pub(super) fn inspect(
    path: &Path,
    name: &Path,
    depth: Depth,
    faults: &mut Vec<FileFault>,
    report: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let current = name.join(CURRENT);
    if !path.join(&current).exists() {
        // fjall takes it for one that was never finished, or is being removed, and removes it.
        return Ok(());
    }
    let bytes = std::fs::read(path.join(&current))?;
    let mut fields = Fields::new(&bytes);
    let read = (fields.number(), fields.take().map(u128::from_le_bytes));
    let (Some(id), Some(checksum), [0]) = (read.0, read.1, fields.rest()) else {
        faults.push(FileFault::new(current, "it cannot be read"));
        return Ok(());
    };
    let list = name.join(format!("v{id}"));
    let bytes = match std::fs::read(path.join(&list)) {
        Ok(bytes) => bytes,
        Err(error) => {
            let what = format!("{error}; or {} is damaged, which names it", current.display());
            faults.push(FileFault::new(list, what));
            return Ok(());
        }
    };
    if xxh3_128(&bytes) != checksum {
        let what = format!("its checksum is not the one that {} has", current.display());
        faults.push(FileFault::new(list, what));
        return Ok(());
    }
    let Some(tables) = tables(&bytes) else {
        faults.push(FileFault::new(list, "its list of tables cannot be read"));
        return Ok(());
    };
    for (id, checksum) in tables {
        let table = name.join("tables").join(id.to_string());
        let fault = match depth {
            Depth::Start => match has_whole_list(&path.join(&table)) {
                Ok(true) => None,
                Ok(false) => Some(io::Error::other("its list of sections is damaged")),
                Err(error) => Some(error),
            },
            Depth::Whole => match hash(&path.join(&table), report) {
                Ok(found) if found == checksum => None,
                Ok(_) => Some(io::Error::other("its checksum does not match: its bytes changed")),
                Err(error) => Some(error),
            },
        };
        faults.extend(fault.map(|fault| FileFault::new(table, fault.to_string())));
    }
    Ok(())
}

/// Whether a file's list of sections is as it was written. fjall makes room for as many sections as
/// the list claims to have before it looks at the checksum.
fn has_whole_list(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let Some(end) = length.checked_sub(TRAILER_BYTES as u64) else { return Ok(false) };
    let mut trailer = [0; TRAILER_BYTES];
    file.seek(SeekFrom::Start(end))?;
    file.read_exact(&mut trailer)?;
    let Some(list) = list_place(&trailer) else { return Ok(false) };
    if list.len > LIST_BYTES_MAX || list.at.checked_add(list.len) != Some(end) {
        return Ok(false);
    }
    let mut bytes = vec![0; list.len as usize];
    file.seek(SeekFrom::Start(list.at))?;
    file.read_exact(&mut bytes)?;
    Ok(xxh3_128(&bytes) == list.checksum)
}

/// Where the list of sections is, and its checksum.
struct ListPlace {
    checksum: u128,
    at: u64,
    len: u64,
}

fn list_place(trailer: &[u8]) -> Option<ListPlace> {
    let mut trailer = Fields::new(trailer);
    let (b"SFA!", [1, 0]) = (&trailer.take()?, trailer.take()?) else { return None };
    let checksum = u128::from_le_bytes(trailer.take()?);
    let (at, len) = (trailer.number()?, trailer.number()?);
    Some(ListPlace { checksum, at, len })
}

fn hash(path: &Path, report: &mut dyn FnMut(u64)) -> io::Result<u128> {
    let mut file = File::open(path)?;
    let (mut hasher, mut buffer) = (Xxh3::new(), vec![0; 1 << 18]);
    loop {
        let count = file.read(&mut buffer)?;
        let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else {
            return Ok(hasher.digest128());
        };
        hasher.update(part);
        report(count as u64);
    }
}

/// The tables in a list, each with its checksum.
fn tables(list: &[u8]) -> Option<Vec<(u64, u128)>> {
    let mut section = Fields::new(section(list, b"tables")?);
    let mut found = Vec::new();
    let [levels] = section.take()?;
    for _ in 0..levels {
        let [runs] = section.take()?;
        for _ in 0..runs {
            let count = u32::from_le_bytes(section.take()?);
            for _ in 0..count {
                let id = section.number()?;
                let [0] = section.take()? else { return None };
                let checksum = u128::from_le_bytes(section.take()?);
                let _seqno: [u8; 8] = section.take()?;
                found.push((id, checksum));
            }
        }
    }
    section.is_empty().then_some(found)
}

/// The section of a file that has this name.
fn section<'f>(file: &'f [u8], name: &[u8]) -> Option<&'f [u8]> {
    let place = list_place(file.get(file.len().checked_sub(TRAILER_BYTES)?..)?)?;
    let mut list = Fields::new(part(file, place.at, place.len)?);
    let b"TOC!" = &list.take()? else { return None };
    let count = u32::from_le_bytes(list.take()?);
    for _ in 0..count {
        let (at, len) = (list.number()?, list.number()?);
        let name_len = u16::from_le_bytes(list.take()?);
        if list.slice(usize::from(name_len))? == name {
            return part(file, at, len);
        }
    }
    None
}

fn part(file: &[u8], at: u64, len: u64) -> Option<&[u8]> {
    file.get(usize::try_from(at).ok()?..usize::try_from(at.checked_add(len)?).ok()?)
}
