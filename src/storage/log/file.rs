//! One log file of an open store: its written and synced lengths, and an index of its frames.
//!
//! A reader opens the file for itself, and reads no further than the published length. So it never
//! sees part of an append, and a file trimmed during a read stays readable to its end.

use super::format::{FrameHead, HEAD_BYTES, Head};
use super::frames::Frames;
use super::walk::{name, note};
use super::{KeyRecord, Mark, ROOM_BYTES};
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A log file.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) head: Head,
    /// The written length, in whole frames.
    length: AtomicU64,
    /// The length that is on the disk.
    synced: AtomicU64,
    /// The preallocated length.
    room: AtomicU64,
    /// The offsets of some of its frames; read from the file on first use.
    index: Mutex<Option<Vec<Mark>>>,
}

impl LogFile {
    /// An existing file with `length` bytes of frames. How much of it is on the disk is not known:
    /// a killed process may have left data in the system's memory.
    pub(super) fn found(head: Head, length: u64, index: Option<Vec<Mark>>) -> Self {
        let (room, synced) = (AtomicU64::new(length), AtomicU64::new(HEAD_BYTES));
        let length = AtomicU64::new(length);
        Self { head, length, synced, room, index: Mutex::new(index) }
    }

    /// A new file of `room` bytes; its head is on the disk.
    pub(super) fn made(head: Head, room: u64) -> Self {
        Self { room: AtomicU64::new(room), ..Self::found(head, HEAD_BYTES, Some(Vec::new())) }
    }

    pub(super) fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    pub(super) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    pub(super) fn has_unsynced(&self) -> bool {
        self.synced() < self.length()
    }

    fn index(&self) -> MutexGuard<'_, Option<Vec<Mark>>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a frame to `file`, the handle of this file. Only one thread appends.
    pub(super) fn append(&self, mut file: &File, key: u64, record: &[u8]) -> io::Result<()> {
        let at = self.length();
        let too_long = || io::Error::other("the record is too long for a frame");
        let frame = FrameHead::of(key, record, self.synced()).ok_or_else(too_long)?;
        let head = frame.encode(self.head.salt, at);
        let end = at + frame.frame_bytes();
        if end > self.room.load(Ordering::Relaxed) {
            file.set_len(end + ROOM_BYTES)?;
            self.room.store(end + ROOM_BYTES, Ordering::Relaxed);
        }
        let (mut slices, mut rest);
        slices = [IoSlice::new(&head), IoSlice::new(record)];
        rest = &mut slices[..];
        while !rest.is_empty() {
            match file.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(index) = self.index().as_mut() {
            note(index, key, at);
        }
        self.length.store(end, Ordering::Release);
        Ok(())
    }

    /// Makes all frames written to `file`, the handle of this file, survive a power failure. Only
    /// one thread syncs.
    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        let length = self.length();
        file.sync_data()?;
        self.synced.store(length, Ordering::Release);
        Ok(())
    }

    /// Truncates the file to the end of its frames, durably. Nothing is appended afterwards.
    pub(super) fn close(&self, file: &File) -> io::Result<()> {
        let length = self.length();
        file.set_len(length)?;
        file.sync_all()?;
        self.synced.store(length, Ordering::Release);
        Ok(())
    }

    pub(super) fn open(&self, folder: &Path) -> io::Result<File> {
        File::open(folder.join(name(self.head.first)))
    }

    /// Passes the frames with keys at or above `from` to `each`, until `each` returns false;
    /// returns whether it did.
    pub(super) fn scan(
        &self,
        file: &File,
        from: u64,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> io::Result<bool> {
        let mut frames = self.frames_from(file, from)?;
        while let Some(frame) = next(&mut frames)? {
            if frame.key >= from {
                let record = frames.record(&frame)?;
                let is_enough = record.map(|record| !each(&frame.key.to_be_bytes(), record));
                match is_enough {
                    Some(true) => return Ok(true),
                    Some(false) => {}
                    None => return Err(damaged_at(frames.at())),
                }
            }
            frames.pass(&frame);
        }
        Ok(false)
    }

    /// The last frame whose key is at or below `key`.
    pub(super) fn floor(&self, file: &File, key: u64) -> io::Result<Option<KeyRecord>> {
        let mut last = None;
        let mut frames = self.frames_from(file, key)?;
        while let Some(frame) = next(&mut frames)?.filter(|frame| frame.key <= key) {
            last = Some((frame, frames.at()));
            frames.pass(&frame);
        }
        let Some((frame, at)) = last else { return Ok(None) };
        let mut frames = Frames::new(file, self.head.salt, at, self.length());
        let record = frames.record(&frame)?.map(<[u8]>::to_vec);
        Ok(Some((frame.key, record.ok_or_else(|| damaged_at(at))?)))
    }

    /// The key of the last frame.
    pub(super) fn last_key(&self, file: &File) -> io::Result<Option<u64>> {
        let (mut last, mut frames) = (None, self.frames_from(file, u64::MAX)?);
        while let Some(frame) = next(&mut frames)? {
            last = Some(frame.key);
            frames.pass(&frame);
        }
        Ok(last)
    }

    /// The frames from the first indexed one at or before `key` on.
    fn frames_from<'f>(&self, file: &'f File, key: u64) -> io::Result<Frames<'f>> {
        let mut index = self.index();
        let known = match index.take() {
            Some(known) => known,
            None => self.read_index(file)?,
        };
        let after = known.partition_point(|mark| mark.key <= key);
        let at = after.checked_sub(1).and_then(|place| known.get(place));
        let at = at.map_or(HEAD_BYTES, |mark| mark.at);
        *index = Some(known);
        Ok(Frames::new(file, self.head.salt, at, self.length()))
    }

    fn read_index(&self, file: &File) -> io::Result<Vec<Mark>> {
        let mut index = Vec::new();
        let mut frames = Frames::new(file, self.head.salt, HEAD_BYTES, self.length());
        while let Some(frame) = next(&mut frames)? {
            note(&mut index, frame.key, frames.at());
            frames.pass(&frame);
        }
        Ok(index)
    }
}

/// The head of the next frame; a missing head before the end is damage.
fn next(frames: &mut Frames<'_>) -> io::Result<Option<FrameHead>> {
    match frames.head()? {
        None if !frames.is_at_end() => Err(damaged_at(frames.at())),
        head => Ok(head),
    }
}

fn damaged_at(place: u64) -> io::Error {
    io::Error::other(format!("it is damaged at byte {place}"))
}
