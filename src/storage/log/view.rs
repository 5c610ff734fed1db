//! A read-only view of a store's log files: nothing is changed, and damaged files are read as far
//! as possible. An empty record marks each hole.

use super::FOLDER;
use super::format::{HEAD_BYTES, Head, HeadFault};
use super::frames::Frames;
use super::open::{Known, cut_short, missing};
use super::walk::{self, Found, Rest, frames_after, list, name, read_head};
use crate::storage::file_fault::FileFault;
use crate::storage::files::CLOSED;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

type Records = BTreeMap<u64, Vec<u8>>;

/// The log, as found in its files.
#[derive(Debug, Default)]
pub(in crate::storage) struct LogView {
    parts: BTreeMap<u64, Part>,
    /// Whether the log was never trimmed.
    pub(in crate::storage) is_from_start: bool,
}

#[derive(Debug)]
enum Part {
    /// A file up to `end`. Up to `sure` the file was written completely; records are missing if it
    /// has a hole.
    File { path: PathBuf, salt: Option<u64>, end: u64, sure: u64, has_hole: bool },
    /// A hole between files.
    Missing,
}

impl LogView {
    /// Finds the log files of the store at `path`, given the facts `known` and the `faults` found
    /// so far. Adds missing files to the faults.
    pub(in crate::storage) fn find(
        path: &Path,
        mut found: Found,
        known: Known,
        faults: &mut Vec<FileFault>,
    ) -> io::Result<Self> {
        found.heads = found.heads.split_off(&known.begins);
        if found.heads.is_empty() {
            found.last = None;
        }
        let news = missing(&found, known).or_else(|| cut_short(&found, known));
        faults.extend(news.filter(|new| !faults.iter().any(|known| known.file == new.file)));
        let names = list(&path.join(FOLDER))?;
        let mut files = BTreeMap::new();
        for first in &names {
            let file = LookedAt::open(path, *first, known, names.last() == Some(first), faults)?;
            if file.key >= known.begins {
                files.insert(file.key, file);
            }
        }
        let oldest = files.first_key_value().and_then(|(_, file)| file.head);
        let is_from_start = known.begins == 0 && oldest.is_some_and(|head| head.previous == 0);
        let (mut parts, mut before) = (BTreeMap::new(), known.begins.saturating_sub(1));
        for (key, file) in files {
            if let Some(previous) = file.head.map(|head| head.previous).filter(|p| *p > before) {
                parts.entry(previous).or_insert(Part::Missing);
            }
            before = key;
            parts.insert(key, file.part);
        }
        if let Some(ends) = known.ends.filter(|ends| ends.first >= known.begins) {
            parts.entry(ends.first).or_insert(Part::Missing);
        }
        Ok(Self { parts, is_from_start })
    }

    /// Passes the records from `from` on to `each`, until `each` returns false.
    pub(in crate::storage) fn scan(
        &self,
        from: u64,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> io::Result<()> {
        let first = self.parts.range(..=from).next_back().map_or(from, |(first, _)| *first);
        for (first, part) in self.parts.range(first..) {
            for (key, record) in part.records(*first)?.range(from..) {
                if !each(&key.to_be_bytes(), record) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The last record whose key is at or below `key`.
    pub(in crate::storage) fn floor(&self, key: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
        for (first, part) in self.parts.range(..=key).rev() {
            let records = part.records(*first)?;
            if let Some((key, record)) = records.range(..=key).next_back() {
                return Ok(Some((*key, record.clone())));
            }
        }
        Ok(None)
    }
}

/// An inspected file.
struct LookedAt {
    key: u64,
    head: Option<Head>,
    part: Part,
}

impl LookedAt {
    fn open(
        path: &Path,
        first: u64,
        known: Known,
        is_last: bool,
        faults: &[FileFault],
    ) -> io::Result<Self> {
        let is_closed = path.join(CLOSED).exists();
        let name = Path::new(FOLDER).join(name(first));
        let path = path.join(&name);
        let file = File::open(&path)?;
        let read = read_head(&file)?;
        let head = match read {
            Ok(head) | Err(HeadFault::OneCopy(head)) => Some(head),
            Err(_) => None,
        };
        let key = head.map_or(first, |head| head.first);
        let ends = known.ends.filter(|ends| ends.first == key);
        let salt = head.map(|head| head.salt).or(ends.map(|ends| ends.salt));
        let (mut end, mut has_hole) = (file.metadata()?.len(), true);
        let mut sure = match is_last {
            // After an orderly close nothing follows the records.
            true if !is_closed => ends.map_or(0, |ends| ends.at),
            _ => end,
        };
        let is_faulty = faults.iter().any(|fault| fault.file == name);
        if let Some(salt) = salt.filter(|_| is_last || is_faulty) {
            let walked = walk::walk(&file, &Head { salt, first: key, previous: 0 })?;
            let is_cut = ends.is_some_and(|ends| ends.salt == salt && walked.end < ends.at);
            // Where only the head is damaged, no record is missing.
            let is_whole = read.is_err() && walked.rest == Rest::Nothing;
            has_hole = is_cut || walked.rest == Rest::Damaged || (is_faulty && !is_whole);
            if !has_hole {
                (end, sure) = (walked.end, walked.end);
            }
        } else if salt.is_some() {
            (sure, has_hole) = (0, false);
        }
        Ok(Self { key, head, part: Part::File { path, salt, end, sure, has_hole } })
    }
}

impl Part {
    /// Its records; an empty one marks a hole.
    fn records(&self, first: u64) -> io::Result<Records> {
        let Self::File { path, salt, end, sure, has_hole } = self else {
            return Ok(Records::from([(first, Vec::new())]));
        };
        let file = File::open(path)?;
        match salt {
            Some(salt) => readable(&file, (*salt, first), *end, *sure, *has_hole),
            None => unsealed(&file, first, *end),
        }
    }
}

/// The records of a file up to `end`, with an empty one at each hole. There is one at the end too,
/// where the file was certainly longer (`sure`), or no other hole was found and it
/// `must_have_hole`.
fn readable(
    file: &File,
    (salt, first): (u64, u64),
    end: u64,
    sure: u64,
    must_have_hole: bool,
) -> io::Result<Records> {
    let (mut records, mut holes, mut at) = (Records::new(), 0, HEAD_BYTES);
    let next_key = |records: &Records| {
        records.last_key_value().map_or(first, |(last, _)| last.saturating_add(1))
    };
    loop {
        let mut frames = Frames::new(file, salt, at, end);
        let mut hole = None;
        while let Some(frame) = frames.head()?.filter(|frame| frame.key >= next_key(&records)) {
            let Some(record) = frames.record(&frame)?.map(<[u8]>::to_vec) else {
                hole = Some(frame.key);
                break;
            };
            records.insert(frame.key, record);
            frames.pass(&frame);
        }
        at = frames.at();
        let is_torn_at_most = at >= sure && (holes > 0 || !must_have_hole);
        let mut later = frames_after(file, salt, at.min(end), end)?.into_iter();
        let next = later.find(|(place, frame)| {
            let frame_end = place.saturating_add(frame.frame_bytes());
            *place > at && frame_end <= end && frame.key >= next_key(&records)
        });
        if next.is_none() && is_torn_at_most {
            return Ok(records);
        }
        holes += 1;
        records.insert(hole.unwrap_or_else(|| next_key(&records)), Vec::new());
        let Some((next, _)) = next else { return Ok(records) };
        at = next;
    }
}

/// The records of a file with an unreadable head: the consecutive ones from the beginning. An empty
/// one marks everything after them.
fn unsealed(file: &File, first: u64, end: u64) -> io::Result<Records> {
    let mut records = Records::new();
    let mut frames = Frames::unsealed(file, HEAD_BYTES.min(end), end);
    let mut next = first;
    while let Some(frame) = frames.head()?.filter(|frame| frame.key >= next) {
        let Some(record) = frames.record(&frame)?.map(<[u8]>::to_vec) else { break };
        records.insert(frame.key, record);
        next = frame.key.saturating_add(1);
        frames.pass(&frame);
    }
    records.insert(next, Vec::new());
    Ok(records)
}
