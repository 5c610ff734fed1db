//! Reads the frames of one file in sequence, through a window on the file.
//!
//! No buffer is larger than the rest of the file, whatever length a frame claims.

use super::format::{FRAME_HEAD_BYTES, FrameHead};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The most bytes of one read.
const WINDOW_BYTES: u64 = 128 << 10;

/// A reader of frames.
pub(super) struct Frames<'f> {
    file: &'f File,
    /// The salt of the file, where its head could be read.
    salt: Option<u64>,
    /// The offset of the next frame.
    at: u64,
    /// The end of the frames.
    end: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'f> Frames<'f> {
    /// Reads the frames of `file` from the one at `at` to `end`.
    pub(super) fn new(file: &'f File, salt: u64, at: u64, end: u64) -> Self {
        let salt = Some(salt);
        Self { file, salt, at, end, window: Vec::new(), window_at: 0 }
    }

    /// Like `new`, for a file of unknown salt: only the checksums of the records are verified.
    pub(super) fn unsealed(file: &'f File, at: u64, end: u64) -> Self {
        Self { file, salt: None, at, end, window: Vec::new(), window_at: 0 }
    }

    /// The offset of the next frame.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Whether nothing is left.
    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.end
    }

    /// The head of the next frame; `None` where no complete frame begins.
    pub(super) fn head(&mut self) -> io::Result<Option<FrameHead>> {
        let (salt, at, left) = (self.salt, self.at, self.end.saturating_sub(self.at));
        if left < FRAME_HEAD_BYTES as u64 {
            return Ok(None);
        }
        let bytes = self.bytes(at, FRAME_HEAD_BYTES as u64)?;
        let head = match salt {
            Some(salt) => FrameHead::decode(bytes, salt, at),
            None => FrameHead::decode_unsealed(bytes),
        };
        Ok(head.filter(|head| head.frame_bytes() <= left))
    }

    /// The record of the next frame, whose head is `head`; `None` when its checksum does not match.
    pub(super) fn record(&mut self, head: &FrameHead) -> io::Result<Option<&[u8]>> {
        let at = self.at + FRAME_HEAD_BYTES as u64;
        let record = self.bytes(at, u64::from(head.length))?;
        Ok((crc32fast::hash(record) == head.checksum).then_some(record))
    }

    /// Moves past the next frame, whose head is `head`.
    pub(super) fn pass(&mut self, head: &FrameHead) {
        self.at += head.frame_bytes();
    }

    /// Bytes of the file; the caller has checked that the file has them.
    fn bytes(&mut self, at: u64, count: u64) -> io::Result<&[u8]> {
        let window_end = self.window_at + self.window.len() as u64;
        if at < self.window_at || at + count > window_end {
            let length = count.max(WINDOW_BYTES).min(self.end.saturating_sub(at));
            self.window.clear();
            self.window.resize(length as usize, 0);
            self.window_at = at;
            self.file.read_exact_at(&mut self.window, at)?;
        }
        let from = (at - self.window_at) as usize;
        let found = self.window.get(from..from + count as usize);
        found.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
