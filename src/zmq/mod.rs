//! The ZeroMQ edges: ROUTER for commands, PUB for changes.
//!
//! Our own tasks around a sans-IO codec ([`zmtp`], the only place that names omq-proto). A
//! [`listener`] gives every accepted [`stream`] a task. Its [`link`] reads, writes, and cuts a peer
//! that breaks a bound. [`router`] and [`publisher`] give messages their meaning. No input from the
//! network can stop, freeze or grow the broker past its limits: a length is believed only as far as
//! its bytes have arrived, unread replies stop a peer's further requests, and no connection waits
//! for another.

mod batch;
mod bounds;
pub mod byte_queue;
mod closed;
#[cfg(test)]
mod crowd;
pub mod edge;
mod encoded_record;
pub mod frame_reader;
pub mod inbox;
#[cfg(test)]
mod interleaving;
mod late_reply;
pub mod link;
pub mod listener;
pub mod liveness;
mod poll_on_wake;
pub mod publisher;
mod reply_queue;
pub mod router;
pub mod send_buffer;
mod session;
mod single_frame;
pub mod stream;
mod subscriptions;
pub mod zmtp;

pub use edge::EdgeError;
pub use publisher::Publisher;
pub use router::Router;
