//! The HTTP edge: FlatDB's endpoints, answered as FlatDB answers them, at the speed of the engine.
//!
//! A socket's bytes pass [`stream`], which times every wait and has [`head`] check each request's
//! head; then hyper, which parses; then [`edge`]. It calls [`guard`] to decide whether the request
//! is accepted, by the [`host`] it names and its browser headers, and routes it to a view in
//! [`views`], [`getrange`] or [`changes`]. A view parses its [`query`], runs a command on the
//! [`store`], reserves [`room`] for the answer, and [`render`]s its MessagePack as [`json`], a
//! slice at a time and by [`turns`]. [`server`] accepts connections and ends them.
//!
//! Only this module names axum and hyper.

pub mod changes;
pub mod connection;
pub mod connection_phase;
pub mod edge;
pub mod engine;
pub mod getrange;
pub mod guard;
pub mod head;
pub mod host;
pub mod json;
pub mod lines;
pub mod members;
pub mod position;
pub mod query;
pub mod refuse;
pub mod render;
pub mod room;
pub mod server;
pub mod store;
pub mod stream;
pub mod turned_away;
pub mod turns;
pub mod view;
pub mod views;

#[cfg(test)]
mod tests;

pub use edge::App;
pub use guard::Guard;
pub use host::Names;
pub use server::{BindError, Http};
pub use store::{Health, Store};
