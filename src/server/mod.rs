//! Wiring: which parts start, in which order, and how they stop.

pub mod broker;
mod exposure;
pub mod storage_runtime;

pub use broker::{Broker, Endpoints, ServeError};
pub use storage_runtime::StorageRuntime;
