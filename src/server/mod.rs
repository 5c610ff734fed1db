//! Wiring: what is started, in which order, and how it stops.

pub mod broker;
mod exposure;
pub mod storage_runtime;

pub use broker::{Broker, Endpoints, ServeError};
pub use storage_runtime::StorageRuntime;
