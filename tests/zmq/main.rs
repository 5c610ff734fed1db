//! The ZeroMQ endpoints, as honest, clumsy and hostile peers meet them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test may panic.

#[path = "../support/mod.rs"]
mod support;

mod hostile;
mod listener;
mod memory;
mod publisher;
mod publisher_memory;
mod router;
mod short_requests;
mod slow_requests;
mod small_memory;
mod stop;
mod subscriber;
mod waits;
