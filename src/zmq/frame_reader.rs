//! Cuts a byte stream into ZMTP frames, wherever its reads end.
//!
//! The reader keeps only the bytes of an unfinished header. The caller decides what a frame means
//! and what is kept of it.

use super::bounds::Violation;

/// The flag of a frame whose length has eight bytes.
pub const LONG: u8 = 0x02;
/// The flag of a frame with another frame of the same message after it.
pub const MORE: u8 = 0x01;
/// The flag of a command.
pub const COMMAND: u8 = 0x04;
/// The longest header.
const HEADER_BYTES: usize = 9;

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// A command, not a part of a message.
    pub is_command: bool,
    /// Another frame of the same message follows.
    pub has_more: bool,
    /// How many bytes follow.
    pub len: usize,
}

/// The next part of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'i> {
    /// A frame begins.
    Begin(Head),
    /// Bytes of it; `ends` says that they are its last ones.
    Body {
        /// The bytes; empty for an empty frame.
        bytes: &'i [u8],
        /// No further byte follows in this frame.
        ends: bool,
    },
}

/// The position in the stream.
#[derive(Debug, Default)]
pub struct FrameReader {
    header: [u8; HEADER_BYTES],
    header_len: usize,
    /// How many bytes of the frame are still to come; `None` between two frames.
    left: Option<usize>,
}

impl FrameReader {
    /// Whether the next byte begins a frame.
    pub fn is_between_frames(&self) -> bool {
        self.left.is_none() && self.header_len == 0
    }

    /// How many bytes of the frame are still to come.
    pub fn left(&self) -> usize {
        self.left.unwrap_or_default()
    }

    /// The next step, taken from the front of `input`; `None` when that needs further bytes.
    pub fn next<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Step<'i>>, Violation> {
        if let Some(left) = self.left {
            if left > 0 && input.is_empty() {
                return Ok(None);
            }
            let (bytes, rest) = input.split_at(left.min(input.len()));
            *input = rest;
            let left = left - bytes.len();
            self.left = (left > 0).then_some(left);
            return Ok(Some(Step::Body { bytes, ends: left == 0 }));
        }
        while let Some((byte, rest)) = input.split_first() {
            *input = rest;
            if let Some(place) = self.header.get_mut(self.header_len) {
                *place = *byte;
            }
            self.header_len += 1;
            let [flags, short, ..] = self.header;
            if flags & !(LONG | MORE | COMMAND) != 0 {
                return Err(Violation::Protocol(format!("flags {flags:#04x} of a frame")));
            }
            let len = match (flags & LONG != 0, self.header_len) {
                (false, 2) => u64::from(short),
                (true, HEADER_BYTES) => {
                    let [_, long @ ..] = self.header;
                    u64::from_be_bytes(long)
                }
                _ => continue,
            };
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            (self.header_len, self.left) = (0, Some(len));
            let (is_command, has_more) = (flags & COMMAND != 0, flags & MORE != 0);
            if is_command && has_more {
                return Err(Violation::Protocol("a command that goes on".to_owned()));
            }
            return Ok(Some(Step::Begin(Head { is_command, has_more, len })));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames of a stream that comes in pieces: their heads and their bodies.
    fn frames(stream: &[u8], piece: usize) -> Result<Vec<(Head, Vec<u8>)>, Violation> {
        let (mut reader, mut frames) = (FrameReader::default(), Vec::new());
        let mut open = None;
        for mut input in stream.chunks(piece.max(1)) {
            while let Some(step) = reader.next(&mut input)? {
                match step {
                    Step::Begin(head) => open = Some((head, Vec::new())),
                    Step::Body { bytes, ends } => {
                        assert!(ends || !bytes.is_empty(), "a step that takes nothing");
                        let (head, body) = open.as_mut().unwrap();
                        body.extend_from_slice(bytes);
                        assert_eq!(reader.left(), head.len - body.len());
                        frames.extend(open.take_if(|_| ends));
                    }
                }
            }
            assert!(input.is_empty());
        }
        assert!(reader.is_between_frames() && open.is_none());
        Ok(frames)
    }

    #[test]
    fn frames_are_the_same_wherever_reads_end() {
        let mut stream = vec![MORE, 0, COMMAND, 3, 1, 2, 3, 0, 255];
        stream.resize(stream.len() + 255, 7);
        stream.extend_from_slice(&[LONG | MORE, 0, 0, 0, 0, 0, 0, 1, 0]);
        stream.resize(stream.len() + 256, 8);
        stream.extend_from_slice(&[LONG, 0, 0, 0, 0, 0, 0, 0, 0]);
        let head = |is_command, has_more, len| Head { is_command, has_more, len };
        let expected = vec![
            (head(false, true, 0), vec![]),
            (head(true, false, 3), vec![1, 2, 3]),
            (head(false, false, 255), vec![7; 255]),
            (head(false, true, 256), vec![8; 256]),
            (head(false, false, 0), vec![]),
        ];
        for piece in 1..stream.len() {
            assert_eq!(frames(&stream, piece).unwrap(), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn unknown_flags_are_refused_at_once() {
        for flags in [8, 16, 128, COMMAND | MORE, COMMAND | MORE | LONG] {
            let mut stream = vec![flags; 1];
            stream.resize(HEADER_BYTES, 0);
            assert!(frames(&stream, 1).is_err(), "{flags}");
        }
    }

    #[test]
    fn a_frame_length_is_known_before_its_bytes_arrive() {
        let mut input = &[LONG, 255, 255, 255, 255, 255, 255, 255, 255][..];
        let step = FrameReader::default().next(&mut input).unwrap();
        assert!(matches!(step, Some(Step::Begin(Head { len: usize::MAX, .. }))));
    }
}
