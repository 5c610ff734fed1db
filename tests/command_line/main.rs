//! The program as a person or a script uses it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test may panic.

#[path = "../support/mod.rs"]
mod support;

mod broken_pipe;
mod client;
mod commands;
mod documents;
mod examples;
mod process;
mod streams;
mod values;
