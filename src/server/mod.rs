//! Wiring: what is started, in which order, and how it stops.

pub mod backbone;
pub mod broker;
mod exposure;

pub use backbone::Backbone;
pub use broker::{Broker, Endpoints, ServeError};
