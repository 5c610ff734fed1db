//! Recognizes the usual messages where they were read: one frame, with or without an empty one
//! first.
//!
//! Nearly all messages after the handshake have this form and are whole when they are read, so they
//! need no assembling. All others (several frames, a part of one, a command) are left to the codec.
//! With an encrypting mechanism, all messages would be.

use super::bounds::Bounds;

/// A frame that is the last one of its message: short, and long.
const SHORT: u8 = 0x00;
const LONG: u8 = 0x02;
/// The empty frame that REQ sends first.
const DELIMITER: [u8; 2] = [0x01, 0x00];

/// The place of a single-frame message among the bytes read.
#[derive(Debug, Clone, Copy)]
pub(super) struct SingleFrame {
    /// An empty frame comes first.
    pub(super) has_delimiter: bool,
    pub(super) start: u32,
    pub(super) end: u32,
}

/// Finds the single-frame messages at the front of `input` that are whole and within `bounds`; they
/// will be kept after `before` other bytes. Returns how many bytes they take.
pub(super) fn split(
    input: &[u8],
    before: usize,
    bounds: Bounds,
    mut each: impl FnMut(SingleFrame),
) -> usize {
    let mut rest = input;
    while let Some((has_delimiter, len, after)) = head(rest) {
        let frames = 1 + usize::from(has_delimiter);
        let is_within = len > 0 && len <= bounds.bytes && frames <= bounds.frames;
        let start = before + input.len() - after.len();
        let (Some(behind), true) = (after.get(len..), is_within) else { break };
        let place = (u32::try_from(start), u32::try_from(start + len));
        let (Ok(start), Ok(end)) = place else { break };
        each(SingleFrame { has_delimiter, start, end });
        rest = behind;
    }
    input.len() - rest.len()
}

/// Whether a delimiter comes first, how long the frame is, and the bytes after its head; `None`
/// where there is no single-frame message.
fn head(input: &[u8]) -> Option<(bool, usize, &[u8])> {
    let (has_delimiter, input) = match input.strip_prefix(&DELIMITER) {
        Some(rest) => (true, rest),
        None => (false, input),
    };
    let (len, rest) = match input {
        [SHORT, len, rest @ ..] => (u64::from(*len), rest),
        [LONG, rest @ ..] => {
            let (len, rest) = rest.split_first_chunk::<8>()?;
            (u64::from_be_bytes(*len), rest)
        }
        _ => return None,
    };
    Some((has_delimiter, usize::try_from(len).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 300, frames: 2 };

    fn found(input: &[u8], bounds: Bounds) -> (Vec<Vec<u8>>, usize) {
        let kept = [b"before".as_slice(), input].concat();
        let mut bodies = Vec::new();
        let taken = split(input, 6, bounds, |plain| {
            bodies.push(kept[plain.start as usize..plain.end as usize].to_vec());
        });
        (bodies, taken)
    }

    fn long(len: u64) -> Vec<u8> {
        [&[LONG], len.to_be_bytes().as_slice(), &vec![7; len as usize]].concat()
    }

    #[test]
    fn whole_messages_of_one_frame_are_found_up_to_the_first_other() {
        let plain = [b"\0\x02ab\x01\0\0\x01c".as_slice(), &long(300)].concat();
        let bodies = vec![b"ab".to_vec(), b"c".to_vec(), vec![7; 300]];
        let more = b"\x01\x01d\0\x01e".as_slice();
        let command = b"\x04\x05\x04PING".as_slice();
        let (empty, cut, bare, claim) = (b"\0\0", b"\0\x03ab", b"\x01\0", [2, 255, 255, 255]);
        for rest in [more, command, empty, cut, bare, &claim, &long(301), b""] {
            let input = [plain.as_slice(), rest, &plain].concat();
            let input = &input[..plain.len() + rest.len()];
            assert_eq!(found(input, BOUNDS), (bodies.clone(), plain.len()), "{rest:?}");
        }
    }

    #[test]
    fn a_message_that_is_not_whole_is_left() {
        let input = [b"\0\x02ab\x01\0\0\x01c".as_slice(), &long(256)].concat();
        for end in 0..=input.len() {
            let whole = [4, 9, input.len()].into_iter().filter(|&at| at <= end).max();
            assert_eq!(found(&input[..end], BOUNDS).1, whole.unwrap_or(0), "cut at {end}");
        }
    }

    #[test]
    fn a_message_over_a_bound_is_left_to_the_codec() {
        let one = Bounds { frames: 1, ..BOUNDS };
        assert_eq!(found(b"\x01\0\0\x01c", one).1, 0);
        assert_eq!(found(&long(2), Bounds { bytes: 1, ..BOUNDS }).1, 0);
    }
}
