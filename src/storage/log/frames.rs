//! The frames of one file, one after the other, through a window on it.
//!
//! Nothing is made larger than what is left of the file, whatever a frame claims.

use super::format::{FRAME_HEAD_BYTES, FrameHead};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What is read at once.
const WINDOW_BYTES: u64 = 128 << 10;

/// A reader of frames.
pub(super) struct Frames<'f> {
    file: &'f File,
    /// Of the file, where its head could be read.
    salt: Option<u64>,
    /// Where the next frame begins.
    at: u64,
    /// Where the frames end.
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

    /// The same, of a file whose salt is not known: the checksums of the records alone are.
    pub(super) fn unsealed(file: &'f File, at: u64, end: u64) -> Self {
        Self { file, salt: None, at, end, window: Vec::new(), window_at: 0 }
    }

    /// Where the next frame begins.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Whether nothing is left.
    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.end
    }

    /// The head of the next frame; `None` where no frame begins that could be whole.
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

    /// Goes on behind the next frame, whose head is `head`.
    pub(super) fn pass(&mut self, head: &FrameHead) {
        self.at += head.frame_bytes();
    }

    /// Bytes of the file, which the caller knows to have them.
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
