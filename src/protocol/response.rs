//! The envelope of a reply: `[1, id, error, result]`.

use super::refusal::Refusal;
use super::reply::Reply;
use super::reply_buffer::Sink;
use super::writer;

const RESPONSE: u8 = 0x01;
const ARRAY_OF_FOUR: u8 = 0x94;

fn head(out: &mut Vec<u8>, id: Option<u64>) {
    out.extend_from_slice(&[ARRAY_OF_FOUR, RESPONSE]);
    match id {
        Some(id) => writer::uint(out, id),
        None => writer::nil(out),
    }
}

/// Appends the response to a command that succeeded.
pub fn success(sink: &mut impl Sink, id: Option<u64>, reply: &Reply<'_>) {
    let out = sink.bytes();
    head(out, id);
    writer::nil(out);
    reply.encode(sink);
}

/// Appends the response to a command that was refused.
pub fn refusal(out: &mut Vec<u8>, id: Option<u64>, refusal: &Refusal) {
    head(out, id);
    refusal.encode(out);
    writer::nil(out);
}
