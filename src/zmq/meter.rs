//! Follows the frame headers of a byte stream, so that its bounds hold before anything is kept.
//!
//! The codec assembles messages; the meter only counts what it assembles: how long a frame claims
//! to be, how many frames and bytes the unfinished message has. It looks at each header once and
//! skips the rest.

use super::zmtp::Violation;

/// Every ZMTP 3 greeting is this long; frames follow.
const GREETING_BYTES: usize = 64;
/// The flag of a frame whose length has eight bytes.
const LONG: u8 = 0x02;
/// The flag of a frame that another of the same message follows.
const MORE: u8 = 0x01;
/// The flag of a command.
const COMMAND: u8 = 0x04;
/// What a frame costs besides its bytes while its message is unfinished.
const FRAME_COST: usize = 64;

/// The bounds that hold at the moment.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most bytes of a message, all frames together.
    pub bytes: usize,
    /// Most frames of a message.
    pub frames: usize,
}

/// Where in the stream we are.
#[derive(Debug)]
pub struct Meter {
    header: [u8; 9],
    header_len: usize,
    skip: usize,
    in_message: bool,
    bytes: usize,
    frames: usize,
}

impl Default for Meter {
    /// At the start of a stream, before the greeting.
    fn default() -> Self {
        Self {
            header: [0; 9],
            header_len: 0,
            skip: GREETING_BYTES,
            in_message: false,
            bytes: 0,
            frames: 0,
        }
    }
}

impl Meter {
    /// What the unfinished message, or the unfinished frame, takes in memory at most.
    pub fn unfinished(&self) -> usize {
        if !self.in_message && self.skip == 0 {
            return 0;
        }
        (self.bytes + self.frames * FRAME_COST).saturating_sub(self.skip)
    }

    /// Whether the next byte begins a message, or a command.
    pub fn is_between_messages(&self) -> bool {
        !self.in_message && self.skip == 0 && self.header_len == 0
    }

    /// How many bytes are known to come before the next header; 0 within and before a header.
    pub fn to_next_header(&self) -> usize {
        self.skip
    }

    /// Follows `input`.
    pub fn walk(&mut self, mut input: &[u8], bounds: Bounds) -> Result<(), Violation> {
        loop {
            let skipped = self.skip.min(input.len());
            self.skip -= skipped;
            input = input.get(skipped..).unwrap_or_default();
            // The usual header: short, and here in one piece.
            if let (0, [flags, len, ..]) = (self.header_len, input)
                && flags & LONG == 0
            {
                self.begin_frame(*flags, u64::from(*len), bounds)?;
                input = input.get(2..).unwrap_or_default();
                continue;
            }
            let Some((first, rest)) = input.split_first() else {
                return Ok(());
            };
            input = rest;
            if let Some(byte) = self.header.get_mut(self.header_len) {
                *byte = *first;
            }
            self.header_len += 1;
            let [flags, len @ ..] = self.header;
            if self.header_len == 2 && flags & LONG == 0 {
                self.begin_frame(flags, u64::from(len[0]), bounds)?;
            } else if self.header_len == 9 {
                self.begin_frame(flags, u64::from_be_bytes(len), bounds)?;
            }
        }
    }

    fn begin_frame(&mut self, flags: u8, len: u64, bounds: Bounds) -> Result<(), Violation> {
        self.header_len = 0;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if !self.in_message {
            (self.bytes, self.frames) = (0, 0);
        }
        self.bytes = self.bytes.saturating_add(len);
        self.frames += 1;
        if self.bytes > bounds.bytes {
            return Err(Violation::MessageTooLarge { max: bounds.bytes });
        }
        if self.frames > bounds.frames {
            return Err(Violation::TooManyFrames { max: bounds.frames });
        }
        self.skip = len;
        // A command may come between messages only; omq-proto refuses the rest.
        self.in_message = flags & MORE != 0 && flags & COMMAND == 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 1_000, frames: 5 };

    fn stream(frames: &[(u8, usize)]) -> Vec<u8> {
        let mut bytes = vec![0; GREETING_BYTES];
        for (flags, len) in frames {
            if flags & LONG == 0 {
                bytes.extend_from_slice(&[*flags, u8::try_from(*len).unwrap()]);
            } else {
                bytes.push(*flags);
                bytes.extend_from_slice(&(*len as u64).to_be_bytes());
            }
            bytes.resize(bytes.len() + len, 0xFF);
        }
        bytes
    }

    fn walked(bytes: &[u8], piece: usize) -> Result<Meter, Violation> {
        let mut meter = Meter::default();
        bytes.chunks(piece).try_for_each(|chunk| meter.walk(chunk, BOUNDS))?;
        Ok(meter)
    }

    #[test]
    fn frames_are_counted_alike_however_they_are_cut() {
        let whole = stream(&[(COMMAND, 30), (MORE, 0), (LONG | MORE, 300), (0, 200), (MORE, 9)]);
        for piece in [1, 2, 3, 7, 64, 65, 66, 100_000] {
            let meter = walked(&whole, piece).unwrap();
            assert_eq!((meter.bytes, meter.frames, meter.in_message), (9, 1, true), "{piece}");
            assert_eq!(meter.unfinished(), 9 + FRAME_COST);
            let half = walked(&whole[..GREETING_BYTES + 32 + 2 + 9 + 100], piece).unwrap();
            assert_eq!(half.unfinished(), 100 + 2 * FRAME_COST);
        }
    }

    #[test]
    fn what_is_finished_costs_nothing() {
        assert_eq!(walked(&stream(&[(0, 200), (LONG, 400)]), 10).unwrap().unfinished(), 0);
    }

    #[test]
    fn a_claim_is_refused_before_its_bytes_come() {
        for len in [1_001, 1 << 40, 1 << 62, u64::MAX] {
            let mut bytes = vec![0; GREETING_BYTES];
            bytes.push(LONG);
            bytes.extend_from_slice(&len.to_be_bytes());
            let refused = walked(&bytes, 1);
            assert!(matches!(refused, Err(Violation::MessageTooLarge { max: 1_000 })), "{len}");
        }
    }

    #[test]
    fn frames_and_bytes_of_one_message_add_up() {
        assert!(walked(&stream(&[(MORE, 1); 5]), 3).is_ok());
        let many = walked(&stream(&[(MORE, 1); 6]), 3);
        assert!(matches!(many, Err(Violation::TooManyFrames { max: 5 })));
        let heavy = walked(&stream(&[(MORE, 250); 5]), 3);
        assert!(matches!(heavy, Err(Violation::MessageTooLarge { .. })));
        assert!(walked(&stream(&[(0, 250); 50]), 3).is_ok(), "each is a message of its own");
    }
}
