//! The ZeroMQ edges: ROUTER for commands, PUB for changes.

pub mod backlog;
pub mod endpoint;
pub mod link;
pub mod listener;
pub mod meter;
pub mod pool;
pub mod stream;
pub mod zmtp;
