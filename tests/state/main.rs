//! The state of a broker and its replies: commands, times to live, history, order, against models.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test may panic.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod changes;
mod commands;
mod expiry;
mod fuzz_checks;
mod linear;
mod model;
mod rollback;
