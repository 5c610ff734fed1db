//! One log file of an open store: how far it is written and synced, and where its frames are.
//!
//! A reader opens the file for itself, and reads no further than has been published: what is being
//! appended meanwhile is never seen in part, and a file that is trimmed while it is read stays
//! readable to its end.

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
    /// How far it is written, in whole frames.
    length: AtomicU64,
    /// How far it is on the medium.
    synced: AtomicU64,
    /// How long it was made.
    room: AtomicU64,
    /// Where some of its frames are; read from the file when somebody asks.
    index: Mutex<Option<Vec<Mark>>>,
}

impl LogFile {
    /// A file that is there, with `length` bytes of frames. What of it is on the medium is not
    /// known: a killed process may have left it in the system's memory.
    pub(super) fn found(head: Head, length: u64, index: Option<Vec<Mark>>) -> Self {
        let (room, synced) = (AtomicU64::new(length), AtomicU64::new(HEAD_BYTES));
        let length = AtomicU64::new(length);
        Self { head, length, synced, room, index: Mutex::new(index) }
    }

    /// A file of `room` bytes that was just begun; its head is on the medium.
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

    /// Appends a frame to `file`, which is this one. The caller is the only one to append.
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

    /// Makes all that is written of `file`, which is this one, survive a loss of power. The caller
    /// is the only one to sync.
    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        let length = self.length();
        file.sync_data()?;
        self.synced.store(length, Ordering::Release);
        Ok(())
    }

    /// Ends the file where its frames end, on the medium too. Nothing is appended any more.
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

    /// Hands on the frames whose keys are at or above `from`, until `each` returns false; returns
    /// whether it did.
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

    /// The frames from one at or before `key` on.
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

/// The head of the next frame; that there is none before the end is damage.
fn next(frames: &mut Frames<'_>) -> io::Result<Option<FrameHead>> {
    match frames.head()? {
        None if !frames.is_at_end() => Err(damaged_at(frames.at())),
        head => Ok(head),
    }
}

fn damaged_at(place: u64) -> io::Error {
    io::Error::other(format!("it is damaged at byte {place}"))
}
