//! The HTTP endpoint of a real broker.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test may panic.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod changes;
mod memory;
