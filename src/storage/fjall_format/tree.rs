//! fjall's sorted files: the list of them, and whether each is unchanged.
//!
//! ```text
//! current  id u64 | xxh3 u128 of the file v<id> | 0
//! v<id>    sections, then their list: "TOC!" | count u32 | (at u64 | len u64 | name_len u16
//!          | name)*, then "SFA!" | 1 | 0 | xxh3 u128 of the list | at u64 | len u64 of the list
//! tables   a section: levels u8 | (runs u8 | (count u32 | (id u64 | 0 | xxh3 u128 of the file
//!          tables/<id> | u64)*)*)*
//! ```

use crate::protocol::Fields;
use crate::storage::file_fault::{Depth, FileFault, MISSING, STRAY, names};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

pub(in crate::storage) const CURRENT: &str = "current";
pub(in crate::storage) const TABLES: &str = "tables";
/// The bytes after the list of sections.
const TRAILER_BYTES: usize = 4 + 1 + 1 + 16 + 8 + 8;
/// The most bytes of a list of sections: a file has about ten.
const LIST_BYTES_MAX: u64 = 1 << 16;

/// The offsets and lengths of sections, by their names.
type Sections = BTreeMap<Vec<u8>, (u64, u64)>;

/// A table file, as its list describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) struct Listed {
    pub(in crate::storage) id: u64,
    pub(in crate::storage) checksum: u128,
    /// The offset added to the number of each item in the file.
    pub(in crate::storage) seqno: u64,
}

/// Inspects the tree in `name`, relative to `path`.
pub(in crate::storage) fn inspect(
    path: &Path,
    name: &Path,
    depth: Depth,
    faults: &mut Vec<FileFault>,
    report: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let listed = match list(path, name)? {
        Ok(listed) => listed.unwrap_or_default(),
        Err(fault) => {
            faults.push(fault);
            return Ok(());
        }
    };
    // fjall refuses a name that is no number, and removes an unlisted file.
    for stray in names(&path.join(name).join(TABLES))? {
        if stray.parse::<u64>().is_err() && !stray.starts_with("._") && stray != ".DS_Store" {
            faults.push(FileFault::new(name.join(TABLES).join(stray), STRAY));
        }
    }
    for Listed { id, checksum, .. } in listed {
        let table = name.join(TABLES).join(id.to_string());
        let fault = match depth {
            Depth::Start => match has_whole_list(&path.join(&table)) {
                Ok(true) => None,
                Ok(false) => Some("its list of sections is damaged".to_owned()),
                Err(error) => Some(unread(&error)),
            },
            Depth::Whole => match hash(&path.join(&table), report) {
                Ok(found) if found == checksum => None,
                Ok(_) => Some("its checksum does not match: its bytes changed".to_owned()),
                Err(error) => Some(unread(&error)),
            },
        };
        faults.extend(fault.map(|fault| FileFault::new(table, fault)));
    }
    Ok(())
}

fn unread(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => MISSING.to_owned(),
        _ => error.to_string(),
    }
}

/// The table files of the tree in `name`, relative to `path`; `None` where there is no list, since
/// the tree was never finished.
pub(in crate::storage) fn list(
    path: &Path,
    name: &Path,
) -> io::Result<Result<Option<Vec<Listed>>, FileFault>> {
    let current = name.join(CURRENT);
    if !path.join(&current).exists() {
        // fjall treats such a tree as unfinished or being removed, and removes it.
        return Ok(match has_tables(&path.join(name))? {
            true => Err(FileFault::new(current, MISSING)),
            false => Ok(None),
        });
    }
    let bytes = std::fs::read(path.join(&current))?;
    let mut fields = Fields::new(&bytes);
    let read = (fields.number(), fields.take().map(u128::from_le_bytes));
    let (Some(id), Some(checksum), [0]) = (read.0, read.1, fields.rest()) else {
        return Ok(Err(FileFault::new(current, "it cannot be read")));
    };
    let list = name.join(format!("v{id}"));
    let bytes = match std::fs::read(path.join(&list)) {
        Ok(bytes) => bytes,
        Err(error) => {
            let what =
                format!("{}; or {} is damaged, which names it", unread(&error), current.display());
            return Ok(Err(FileFault::new(list, what)));
        }
    };
    if xxh3_128(&bytes) != checksum {
        let what = format!("its checksum is not the one that {} has", current.display());
        return Ok(Err(FileFault::new(list, what)));
    }
    let unreadable = || FileFault::new(list, "its list of tables cannot be read");
    Ok(tables(&bytes).map(Some).ok_or_else(unreadable))
}

/// All readable lists of table files in `folder`, complete or not.
pub(in crate::storage) fn any_lists(folder: &Path) -> io::Result<Vec<Listed>> {
    let mut found = Vec::new();
    for name in names(folder)? {
        if name.strip_prefix('v').is_some_and(|id| id.parse::<u64>().is_ok()) {
            let bytes = std::fs::read(folder.join(name))?;
            found.extend(tables(&bytes).unwrap_or_default());
        }
    }
    Ok(found)
}

fn has_tables(folder: &Path) -> io::Result<bool> {
    Ok(!names(&folder.join(TABLES))?.is_empty())
}

/// Whether a file's list of sections is unchanged. fjall allocates memory for as many sections as
/// the list claims before it verifies the checksum.
fn has_whole_list(path: &Path) -> io::Result<bool> {
    Ok(sections(&File::open(path)?)?.is_some())
}

/// The position of each section of a file, by its name; `None` where the list of sections has
/// changed.
pub(in crate::storage) fn sections(file: &File) -> io::Result<Option<Sections>> {
    let length = file.metadata()?.len();
    let Some(end) = length.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
    let mut trailer = [0; TRAILER_BYTES];
    file.read_exact_at(&mut trailer, end)?;
    let Some(list) = list_place(&trailer) else { return Ok(None) };
    if list.len > LIST_BYTES_MAX || list.at.checked_add(list.len) != Some(end) {
        return Ok(None);
    }
    let mut bytes = vec![0; list.len as usize];
    file.read_exact_at(&mut bytes, list.at)?;
    Ok(if xxh3_128(&bytes) == list.checksum { named(&bytes) } else { None })
}

/// The sections in a list of them.
fn named(list: &[u8]) -> Option<Sections> {
    let (mut fields, mut found) = (Fields::new(list), Sections::new());
    let b"TOC!" = &fields.take()? else { return None };
    let count = u32::from_le_bytes(fields.take()?);
    for _ in 0..count {
        let place = (fields.number()?, fields.number()?);
        let name_len = u16::from_le_bytes(fields.take()?);
        found.insert(fields.slice(usize::from(name_len))?.to_vec(), place);
    }
    Some(found)
}

/// The position of the list of sections, and its checksum.
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

pub(in crate::storage) fn hash(path: &Path, report: &mut dyn FnMut(u64)) -> io::Result<u128> {
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
fn tables(list: &[u8]) -> Option<Vec<Listed>> {
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
                let seqno = section.number()?;
                found.push(Listed { id, checksum, seqno });
            }
        }
    }
    section.is_empty().then_some(found)
}

/// The section of a file with this name.
fn section<'f>(file: &'f [u8], name: &[u8]) -> Option<&'f [u8]> {
    let place = list_place(file.get(file.len().checked_sub(TRAILER_BYTES)?..)?)?;
    let (at, len) = *named(part(file, place.at, place.len)?)?.get(name)?;
    part(file, at, len)
}

fn part(file: &[u8], at: u64, len: u64) -> Option<&[u8]> {
    file.get(usize::try_from(at).ok()?..usize::try_from(at.checked_add(len)?).ok()?)
}
