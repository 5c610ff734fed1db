//! The Rust client, over the `zeromq` crate.
//!
//! [`Client`] is a DEALER that speaks to a `--router` endpoint: one typed method for each command,
//! and [`Client::call_many`] for many requests in one message. [`Subscriber`] receives the changes
//! of a `--publisher` endpoint, and reports gaps; [`Replay`] reads the history. [`Follower`]
//! combines the two: every change once, in order, from any seq that is still held. Values stay in
//! the bytes they were written with ([`RawValue`]).
//!
//! ```no_run
//! use vatn::client::{Client, ClientOptions, RawValue, WriteOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::connect("tcp://127.0.0.1:7533", &ClientOptions::default()).await?;
//! let seq = client.set(b"user:1", &RawValue::of("Ada")?, &WriteOptions::default()).await?;
//! let name: Option<String> = match client.get(b"user:1").await? {
//!     Some(value) => Some(value.decode()?),
//!     None => None,
//! };
//! # Ok(()) }
//! ```
//!
//! The load generator has its own connection, [`fast`], which sends and counts far faster than any
//! client needs to.

mod broker;
mod change;
mod connection;
mod endpoint;
mod error;
pub mod fast;
mod follower;
mod history;
mod numbers;
mod options;
mod ranges;
mod raw_value;
mod replay;
mod reply;
mod request;
mod subscriber;
mod values;

pub use change::{Change, Op};
pub use connection::{Client, ClientOptions, Ticket};
pub use endpoint::Endpoint;
pub use error::{ClientError, Refusal};
pub use follower::Follower;
pub use history::{History, HistoryOptions};
pub use numbers::Step;
pub use options::{Condition, Level, WriteOptions};
pub use ranges::{Deleted, Page, Range};
pub use raw_value::RawValue;
pub use replay::Replay;
pub use request::Request;
pub use subscriber::{Event, Subscriber};
pub use values::Entry;
