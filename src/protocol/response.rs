//! The envelope of a reply: `[1, id, error, result]`.

use super::refusal::Refusal;
use super::reply::Reply;
use super::reply_buffer::Sink;
use super::writer;

const RESPONSE: u8 = 0x01;
const ARRAY_OF_FOUR: u8 = 0x94;

const NIL: u8 = 0xC0;

fn head(out: &mut Vec<u8>, id: Option<u64>) {
    out.extend_from_slice(&[ARRAY_OF_FOUR, RESPONSE]);
    match id {
        Some(id) => writer::uint(out, id),
        None => writer::nil(out),
    }
}

/// Appends the response to a command that succeeded.
#[inline]
pub fn success(sink: &mut impl Sink, id: Option<u64>, reply: &Reply<'_>) {
    let out = sink.bytes();
    match id {
        // The usual ids are this small: written at once.
        Some(id @ 0..=0x7F) => out.extend_from_slice(&[ARRAY_OF_FOUR, RESPONSE, id as u8, NIL]),
        Some(id @ 0x80..=0xFF) => {
            out.extend_from_slice(&[ARRAY_OF_FOUR, RESPONSE, 0xCC, id as u8, NIL]);
        }
        Some(id @ 0x100..=0xFFFF) => {
            let [high, low] = (id as u16).to_be_bytes();
            out.extend_from_slice(&[ARRAY_OF_FOUR, RESPONSE, 0xCD, high, low, NIL]);
        }
        _ => {
            head(out, id);
            writer::nil(out);
        }
    }
    reply.encode(sink);
}

/// Appends the response whose result is encoded already.
pub fn encoded(out: &mut Vec<u8>, id: Option<u64>, result: &[u8]) {
    head(out, id);
    writer::nil(out);
    out.extend_from_slice(result);
}

/// The offset of the result in a response to a command that succeeded.
pub fn result_at(id: Option<u64>) -> usize {
    let mut before = Vec::new();
    head(&mut before, id);
    before.len() + 1
}

/// Appends the response to a command that was refused.
pub fn refusal(out: &mut Vec<u8>, id: Option<u64>, refusal: &Refusal) {
    head(out, id);
    refusal.encode(out);
    writer::nil(out);
}
