//! The note of an orderly close: the store's files, and the length of each.
//!
//! A truncated journal looks like the effect of a crash. After an orderly close no truncation is
//! normal: the note distinguishes the two, as long as nothing is written. The note is text, one
//! line per file, followed by a line with the checksum of the lines before it.

use crate::storage::file_fault::{FileFault, MISSING};
use crate::storage::fjall_format::journal::{self, Rest};
use crate::storage::fjall_format::{MARKER, TREES};
use crate::storage::log;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The note's name.
pub const CLOSED: &str = "closed";
const HEAD: &str = "vatn closed 1";

/// The lengths of the files, by their paths relative to the store's directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Closed {
    /// Journals: the end of their batches, without the preallocated space after them, and a
    /// checksum over the batches.
    journals: BTreeMap<String, (u64, u32)>,
    files: BTreeMap<String, u64>,
}

impl Closed {
    /// The end of a journal's batches, and the checksum over them.
    pub(super) fn journal(&self, name: &str) -> Option<(u64, u32)> {
        self.journals.get(name).copied()
    }

    /// Finds files that are missing or have another length.
    pub(super) fn compare(&self, path: &Path, faults: &mut Vec<FileFault>) -> io::Result<()> {
        for name in self.journals.keys().filter(|name| !path.join(name).exists()) {
            faults.push(FileFault::new(name, MISSING));
        }
        for (name, length) in &self.files {
            match std::fs::metadata(path.join(name)) {
                Ok(found) if found.len() == *length => {}
                Ok(found) => {
                    let what = format!("it has {} bytes, and had {length}", found.len());
                    faults.push(FileFault::new(name, what));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    faults.push(FileFault::new(name, MISSING));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn encode(&self) -> String {
        let mut text = format!("{HEAD}\n");
        for (name, (end, checksum)) in &self.journals {
            text.push_str(&format!("journal {end} {checksum:08x} {name}\n"));
        }
        for (name, length) in &self.files {
            text.push_str(&format!("file {length} {name}\n"));
        }
        let checksum = crc32fast::hash(text.as_bytes());
        text.push_str(&format!("crc32 {checksum:08x}\n"));
        text
    }

    fn decode(text: &str) -> Option<Self> {
        let lines = text.get(..text.len().checked_sub("crc32 00000000\n".len())?)?;
        let sum = format!("crc32 {:08x}\n", crc32fast::hash(lines.as_bytes()));
        let mut closed = Self::default();
        let mut lines = text.strip_suffix(&sum)?.lines();
        if lines.next() != Some(HEAD) {
            return None;
        }
        for line in lines {
            let (kind, rest) = line.split_once(' ')?;
            let (length, rest) = rest.split_once(' ')?;
            let length = length.parse().ok()?;
            if kind == "journal" {
                let (checksum, name) = rest.split_once(' ')?;
                let checksum = u32::from_str_radix(checksum, 16).ok()?;
                closed.journals.insert(name.to_owned(), (length, checksum));
            } else {
                closed.files.insert(rest.to_owned(), length);
            }
        }
        Some(closed)
    }
}

/// Reads the note, if there is one.
pub(super) fn read(path: &Path) -> io::Result<Result<Option<Closed>, FileFault>> {
    let text = match std::fs::read(path.join(CLOSED)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
        Err(error) => return Err(error),
    };
    let closed = std::str::from_utf8(&text).ok().and_then(Closed::decode);
    Ok(closed.map(Some).ok_or_else(|| {
        FileFault::new(CLOSED, "it has changed; nothing but a check of the others is lost with it")
    }))
}

/// Writes the note. A store whose last write was not finished gets none.
pub(super) fn write(path: &Path) -> io::Result<()> {
    let mut closed = Closed::default();
    let mut last_seqno = None;
    for name in journal::list(path)? {
        let walk = journal::walk(&path.join(&name), last_seqno)?;
        if walk.rest != Rest::Nothing {
            return Ok(());
        }
        last_seqno = walk.last_seqno.or(last_seqno);
        closed.journals.insert(name, (walk.end, walk.checksum));
    }
    collect(path, &PathBuf::from(MARKER), &mut closed.files)?;
    collect(path, &PathBuf::from(TREES), &mut closed.files)?;
    for log in log::files(path)? {
        collect(path, &log, &mut closed.files)?;
    }
    let partial = path.join(format!("{CLOSED}.partial"));
    match put(&partial, closed.encode().as_bytes()) {
        Ok(()) => {}
        // Without the note, only a check of the other files is lost.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            tracing::warn!("the disk is full: no note of the orderly end is written");
            let _ = std::fs::remove_file(&partial);
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    std::fs::rename(&partial, path.join(CLOSED))?;
    File::open(path)?.sync_all()
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Removes the note durably.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path.join(CLOSED)) {
        Ok(()) => File::open(path)?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn collect(path: &Path, name: &Path, files: &mut BTreeMap<String, u64>) -> io::Result<()> {
    let metadata = std::fs::metadata(path.join(name))?;
    if metadata.is_file() {
        files.insert(name.to_string_lossy().into_owned(), metadata.len());
        return Ok(());
    }
    for entry in std::fs::read_dir(path.join(name))? {
        collect(path, &name.join(entry?.file_name()), files)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_unchanged_or_refused() {
        let mut closed = Closed::default();
        closed.journals.insert("0.jnl".to_owned(), (77, 0xabc));
        closed.files.insert("keyspaces/0/v 5".to_owned(), 345);
        let text = closed.encode();
        assert_eq!(Closed::decode(&text), Some(closed));
        for position in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[position] ^= 4;
            let read = String::from_utf8(damaged).ok().and_then(|text| Closed::decode(&text));
            assert_eq!(read, None, "byte {position}");
            assert_eq!(Closed::decode(&text[..position]), None, "cut at {position}");
        }
    }
}
