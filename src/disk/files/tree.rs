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
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

pub(super) const CURRENT: &str = "current";
/// The bytes after the list of sections.
const TRAILER_BYTES: usize = 4 + 1 + 1 + 16 + 8 + 8;

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
    let mut fields = Fields(&bytes);
    let read = (fields.take().map(u64::from_le_bytes), fields.take().map(u128::from_le_bytes));
    let (Some(id), Some(checksum), [0]) = (read.0, read.1, fields.0) else {
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
            Depth::Start => std::fs::metadata(path.join(&table)).err(),
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
    let mut section = Fields(section(list, b"tables")?);
    let mut found = Vec::new();
    let [levels] = section.take()?;
    for _ in 0..levels {
        let [runs] = section.take()?;
        for _ in 0..runs {
            let count = u32::from_le_bytes(section.take()?);
            for _ in 0..count {
                let id = u64::from_le_bytes(section.take()?);
                let [0] = section.take()? else { return None };
                let checksum = u128::from_le_bytes(section.take()?);
                let _seqno: [u8; 8] = section.take()?;
                found.push((id, checksum));
            }
        }
    }
    section.0.is_empty().then_some(found)
}

/// The section of a file that has this name.
fn section<'f>(file: &'f [u8], name: &[u8]) -> Option<&'f [u8]> {
    let mut trailer = Fields(file.get(file.len().checked_sub(TRAILER_BYTES)?..)?);
    let (b"SFA!", [1, 0]) = (&trailer.take()?, trailer.take()?) else { return None };
    let _checksum: [u8; 16] = trailer.take()?;
    let (at, len) = (u64::from_le_bytes(trailer.take()?), u64::from_le_bytes(trailer.take()?));
    let mut list = Fields(part(file, at, len)?);
    let b"TOC!" = &list.take()? else { return None };
    let count = u32::from_le_bytes(list.take()?);
    for _ in 0..count {
        let (at, len) = (u64::from_le_bytes(list.take()?), u64::from_le_bytes(list.take()?));
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

/// Bytes of fields, from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}
