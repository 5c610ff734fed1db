//! The wire types: requests, replies, changes and error codes, as bytes and as types.
//!
//! Nothing here does I/O, knows a socket, or keeps state. Decoding borrows from the frame it reads,
//! checks everything (leftovers too) before anything acts on it, and never allocates by a length
//! that a peer claims. The specification is `proto/PROTOCOL.md`; `proto/vectors/` holds examples of
//! every rule.

pub mod barrier;
pub mod change;
pub mod endpoint;
pub mod fields;
pub mod hex;
pub mod level;
pub mod params;
pub mod reader;
pub mod refusal;
pub mod reply;
pub mod reply_buffer;
pub mod response;
pub mod value;
pub mod write_cost;
pub mod writer;

pub use barrier::DurabilityBarrier;
pub use change::{Change, ChangeBuffer, Op};
pub use endpoint::Endpoint;
pub use fields::Fields;
pub use hex::hex;
pub use level::Level;
pub use reader::Reader;
pub use refusal::{Code, Refusal};
pub use reply::Reply;
pub use reply_buffer::ReplyBuffer;
pub use value::Value;
pub use write_cost::WriteCost;

/// A sequence number: one for each write, 1 for the first, growing in the order in which writes
/// apply. 0 means "before the first write".
pub type Seq = u64;

/// Milliseconds: since the Unix epoch for a time, or the length of a duration.
pub type Millis = u64;

/// The version of the protocol that this crate speaks (`hello` returns it).
pub const PROTOCOL_VERSION: u32 = 1;

/// A large value: one allocation that the map and its replies share.
pub type Shared = std::sync::Arc<[u8]>;

/// A key: borrowed from the request, or built from a `key_prefix` and the rest.
pub type Key<'a> = std::borrow::Cow<'a, [u8]>;
