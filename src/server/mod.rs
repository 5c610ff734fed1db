//! Wiring: what is started, in which order, and how it stops.

pub mod backbone;

pub use backbone::Backbone;
