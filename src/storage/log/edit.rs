//! Rewrites log files in which records are replaced or removed.
//!
//! The new file is on the disk before it replaces the old one.

use super::format::{FrameHead, HEAD_BYTES, Head};
use super::walk::name;
use super::{FOLDER, LogFile, LogFiles, READING, make};
use crate::storage::StorageError;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, PoisonError};

type Records = BTreeMap<u64, Vec<u8>>;

impl LogFiles {
    /// Replaces records, and removes those without a value: all of a file, or none.
    pub(in crate::storage) fn edit(
        &self,
        mut changes: BTreeMap<u64, Option<Vec<u8>>>,
    ) -> Result<(), StorageError> {
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
    ) -> Result<(), StorageError> {
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
        let gone = || StorageError::new(READING, format!("{FOLDER}/{}: it is gone", name(first)));
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

/// Writes the file that `head` describes, with `records`; returns the file and its length.
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
