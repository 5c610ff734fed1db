//! Walks a log file from its first byte to its last: finds the end of its whole frames, and whether
//! the rest is the effect of a crash, or damage.

use super::format::{FRAME_MARK, FrameHead, HEAD_BYTES, Head, HeadFault};
use super::frames::Frames;
use super::{FOLDER, INDEX_BYTES, Mark};
use crate::storage::file_fault::{Depth, FileFault};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The log files found in a store.
#[derive(Debug, Default)]
pub(in crate::storage) struct Found {
    /// Oldest first.
    pub(super) heads: BTreeMap<u64, Head>,
    /// The last file, after a walk.
    pub(super) last: Option<Walk>,
}

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Walk {
    /// The end of the whole frames.
    pub(super) end: u64,
    /// The key of the last frame.
    pub(super) last_key: Option<u64>,
    pub(super) index: Vec<Mark>,
    /// The bytes after the whole frames.
    pub(super) rest: Rest,
}

/// The bytes after the whole frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Nothing,
    /// Zeros, or the old content of a recycled file: they stay until an orderly close.
    Room,
    /// The remains of the last frames after a crash.
    Torn,
    /// Bytes that are no frame, at an offset that was on the disk, as a later frame states.
    Damaged,
}

/// Inspects the log files of the store at `path`: only the last one, unless everything is to be
/// read. `is_closed` says that the store was closed in order, after which no tear is normal. A file
/// with a known fault gets no second one.
pub(in crate::storage) fn inspect(
    path: &Path,
    depth: Depth,
    is_closed: bool,
    faults: &mut Vec<FileFault>,
    report: &mut dyn FnMut(u64),
) -> io::Result<Found> {
    let (folder, mut found) = (path.join(FOLDER), Found::default());
    let names = list(&folder)?;
    for first in &names {
        let is_last = names.last() == Some(first);
        let file = File::open(folder.join(name(*first)))?;
        let fault = match head(&file, *first)? {
            Err(what) => Some(what),
            Ok(head) => {
                found.heads.insert(*first, head);
                let walk = match is_last || depth == Depth::Whole {
                    true => Some(walk(&file, &head)?),
                    false => None,
                };
                report(walk.as_ref().map_or(0, |walk| walk.end));
                let what = walk.as_ref().and_then(|walk| walk.fault(is_last && !is_closed));
                found.last = walk.filter(|_| is_last);
                what
            }
        };
        let file = PathBuf::from(FOLDER).join(name(*first));
        let is_known = faults.iter().any(|fault| fault.file == file);
        faults.extend(fault.filter(|_| !is_known).map(|what| FileFault::new(file, what)));
    }
    Ok(found)
}

impl Walk {
    /// The fault of the file, in words.
    fn fault(&self, may_be_torn: bool) -> Option<String> {
        match self.rest {
            Rest::Nothing => None,
            Rest::Room | Rest::Torn if may_be_torn => None,
            Rest::Room | Rest::Torn => Some(format!("damaged at byte {}", self.end)),
            Rest::Damaged => Some(format!(
                "damaged at byte {}, which was synced: later records say so",
                self.end
            )),
        }
    }
}

/// The file of the records from `first` on.
pub(super) fn name(first: u64) -> String {
    format!("{first:020}.log")
}

/// All entries of `folder`; none where there is no such directory.
pub(super) fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// The first keys of the files in `folder`, from their names; none where there is no such
/// directory.
pub(super) fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        let file = path.file_name().and_then(OsStr::to_str);
        let number = file.and_then(|name| name.strip_suffix(".log"));
        let number = number.and_then(|number| number.parse().ok());
        found.extend(number.filter(|number| file == Some(name(*number).as_str())));
    }
    found.sort_unstable();
    Ok(found)
}

/// The log files of the store at `path`, relative to it.
pub(in crate::storage) fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let names = list(&path.join(FOLDER))?.into_iter();
    Ok(names.map(|first| PathBuf::from(FOLDER).join(name(first))).collect())
}

/// Reads the head of the file of the records from `first` on; the inner error describes the fault.
fn head(file: &File, first: u64) -> io::Result<Result<Head, String>> {
    Ok(match read_head(file)? {
        Ok(head) if head.first == first => Ok(head),
        Ok(head) => Err(format!("it is the file of the records from {} on", head.first)),
        Err(HeadFault::Version(version)) => {
            Err(format!("its format has version {version}, which this vatn does not read"))
        }
        Err(_) => Err("its head is damaged".to_owned()),
    })
}

pub(super) fn read_head(file: &File) -> io::Result<Result<Head, HeadFault>> {
    let length = file.metadata()?.len().min(HEAD_BYTES);
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Head::decode(&bytes))
}

/// Walks `file`, whose head is `head`, and verifies every checksum.
pub(super) fn walk(file: &File, head: &Head) -> io::Result<Walk> {
    let length = file.metadata()?.len();
    let mut walk = Walk { end: HEAD_BYTES, last_key: None, index: vec![], rest: Rest::Nothing };
    let mut frames = Frames::new(file, head.salt, HEAD_BYTES, length);
    while let Some(frame) = frames.head()? {
        let is_in_order = walk.last_key.map_or(frame.key >= head.first, |last| last < frame.key);
        if !is_in_order || frames.record(&frame)?.is_none() {
            break;
        }
        note(&mut walk.index, frame.key, frames.at());
        frames.pass(&frame);
        (walk.end, walk.last_key) = (frames.at(), Some(frame.key));
    }
    if walk.end < length {
        walk.rest = what_follows(file, head.salt, walk.end, length)?;
    }
    Ok(walk)
}

/// Adds a mark to the index at regular distances.
pub(super) fn note(index: &mut Vec<Mark>, key: u64, at: u64) {
    if index.last().is_none_or(|last| at >= last.at + INDEX_BYTES) {
        index.push(Mark { key, at });
    }
}

/// Distinguishes damage from the effects of a crash, which may include whole frames after pages
/// that were never written.
fn what_follows(file: &File, salt: u64, end: u64, length: u64) -> io::Result<Rest> {
    let mut rest = vec![0; (length - end) as usize];
    file.read_exact_at(&mut rest, end)?;
    let Some(last) = rest.iter().rposition(|byte| *byte != 0) else { return Ok(Rest::Room) };
    let length = end + last as u64 + 1;
    let is_proof = |(_, frame): &(u64, FrameHead)| frame.synced_to > end;
    let later = frames_after(file, salt, end, length)?;
    Ok(match later.is_empty() {
        true => Rest::Room,
        false if later.iter().any(is_proof) => Rest::Damaged,
        false => Rest::Torn,
    })
}

/// Everything after `end` that looks like the head of a frame, at any offset.
pub(super) fn frames_after(
    file: &File,
    salt: u64,
    end: u64,
    length: u64,
) -> io::Result<Vec<(u64, FrameHead)>> {
    let mut rest = vec![0; (length - end) as usize];
    file.read_exact_at(&mut rest, end)?;
    let marks = rest.windows(FRAME_MARK.len()).enumerate();
    let places = marks.filter(|(_, mark)| mark == FRAME_MARK).map(|(place, _)| place);
    let found = places.filter_map(|place| {
        let at = end + place as u64;
        rest.get(place..).and_then(|bytes| FrameHead::decode(bytes, salt, at)).map(|h| (at, h))
    });
    Ok(found.collect())
}
