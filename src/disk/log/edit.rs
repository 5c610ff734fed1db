//! Log files written anew: without records that a repair takes out, and with what can be read of a
//! file that is damaged.
//!
//! The new file is on the medium before it takes the place of the old one. Where something of a
//! damaged file is missing, an empty record stands in it, so that a check of the records finds the
//! hole, and a repair says what is lost.

use super::format::{FrameHead, HEAD_BYTES, Head, HeadFault};
use super::frames::Frames;
use super::walk::{frames_after, list, name, read_head};
use super::{FOLDER, LogFile, LogFiles, READING, make};
use crate::disk::DiskError;
use crate::disk::kept::keep_copy;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, PoisonError};

type Records = BTreeMap<u64, Vec<u8>>;

impl LogFiles {
    /// Replaces records, and removes those without a value. All of a file are replaced or none.
    pub(in crate::disk) fn edit(
        &self,
        mut changes: BTreeMap<u64, Option<Vec<u8>>>,
    ) -> Result<(), DiskError> {
        self.sync()?;
        while let Some((first_change, _)) = changes.first_key_value() {
            let Some(log) = self.at(*first_change) else {
                changes.pop_first();
                continue;
            };
            let next = self.after(std::ops::Bound::Excluded(log.head.first));
            let later = next.map(|next| changes.split_off(&next.head.first)).unwrap_or_default();
            self.edit_file(&log, std::mem::replace(&mut changes, later))?;
        }
        Ok(())
    }

    fn edit_file(
        &self,
        log: &LogFile,
        changes: BTreeMap<u64, Option<Vec<u8>>>,
    ) -> Result<(), DiskError> {
        let mut writer = self.writer();
        let first = log.head.first;
        let records = self.with(log, |file| {
            let mut records = Records::new();
            log.scan(file, 0, &mut |key, record| {
                let key = <[u8; 8]>::try_from(key).map_or(0, u64::from_be_bytes);
                records.insert(key, record.to_vec());
                true
            })?;
            Ok(records)
        })?;
        let gone = || DiskError::new(READING, format!("{FOLDER}/{}: it is gone", name(first)));
        let mut records = records.ok_or_else(gone)?;
        for (key, record) in changes {
            match record {
                Some(record) => records.insert(key, record),
                None => records.remove(&key),
            };
        }
        let head = Head::new(first, log.head.previous);
        let written = write(&self.folder, &head, &records);
        let (file, length) = written.map_err(|error| self.fail(&error))?;
        let log = Arc::new(LogFile::found(head, length, None));
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        files.insert(first, Arc::clone(&log));
        if writer.last.as_ref().is_some_and(|(last, _)| last.head.first == first) {
            writer.last = Some((log, Arc::new(file)));
        }
        Ok(())
    }
}

/// Makes the file that `head` describes, with `records`; returns it, and how long it is.
fn write(folder: &Path, head: &Head, records: &Records) -> io::Result<(File, u64)> {
    let mut at = HEAD_BYTES;
    let file = make(folder, head.first, |file| {
        file.write_all(&head.encode())?;
        for (key, record) in records {
            let too_long = || io::Error::other("the record is too long for a frame");
            let frame = FrameHead::of(*key, record, at).ok_or_else(too_long)?;
            file.write_all(&frame.encode(head.salt, at))?;
            file.write_all(record)?;
            at += frame.frame_bytes();
        }
        Ok(())
    })?;
    Ok((file, at))
}

/// Writes the log file `file` of the store at `path` anew, with what can be read of it. A copy of
/// the old one stays beside it. `None` when it is no log file.
pub(in crate::disk) fn mend(path: &Path, file: &Path) -> io::Result<Option<String>> {
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    let first: Option<u64> = stem.and_then(|stem| stem.parse().ok());
    let Some(first) = first.filter(|_| file.parent() == Some(Path::new(FOLDER))) else {
        return Ok(None);
    };
    let (folder, damaged) = (path.join(FOLDER), path.join(file));
    let before = list(&folder)?.into_iter().take_while(|other| *other < first).last();
    let nothing = (Head::new(first, before.unwrap_or(0)), Records::from([(first, Vec::new())]));
    if !damaged.exists() {
        write(&folder, &nothing.0, &nothing.1)?;
        return Ok(Some("all that was in it".to_owned()));
    }
    let copy = keep_copy(&damaged)?;
    let old = File::open(&damaged)?;
    let read = read_head(&old)?;
    // Where the head alone is wrong, nothing may be missing.
    let must_have_hole = read.is_ok();
    let (head, records) = match read {
        Ok(head) | Err(HeadFault::OneCopy(head)) if head.first == first => {
            let records = readable(&old, &head, must_have_hole)?;
            (Head::new(first, head.previous), records)
        }
        _ => nothing,
    };
    let left = records.values().filter(|record| !record.is_empty()).count();
    write(&folder, &head, &records)?;
    let copy = copy.display();
    Ok(Some(format!("all of it but {left} records; the whole file is kept as {copy}")))
}

/// The records of a damaged file, with an empty one wherever one is missing; at the end too, where
/// nothing else is, and the file `must_have_hole`.
fn readable(file: &File, head: &Head, must_have_hole: bool) -> io::Result<Records> {
    let length = file.metadata()?.len();
    let (mut records, mut holes, mut at) = (Records::new(), 0, HEAD_BYTES);
    let next_key = |records: &Records| {
        records.last_key_value().map_or(head.first, |(last, _)| last.saturating_add(1))
    };
    loop {
        let mut frames = Frames::new(file, head.salt, at, length);
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
        if at >= length && (holes > 0 || !must_have_hole) {
            return Ok(records);
        }
        holes += 1;
        records.insert(hole.unwrap_or_else(|| next_key(&records)), Vec::new());
        let mut later = frames_after(file, head.salt, at.min(length), length)?.into_iter();
        let next = later.find(|(place, frame)| {
            let end = place.saturating_add(frame.frame_bytes());
            *place > at && end <= length && frame.key >= next_key(&records)
        });
        let Some((next, _)) = next else { return Ok(records) };
        at = next;
    }
}
