//! **vatn** is a key-value store and change feed over ZeroMQ and HTTP: an ordered map in memory, a
//! log on disk below it, and every change published to subscribers.
//!
//! The modules, from the ground up; each imports only from those before it (held by `tests/tidy`):
//!
//! - [`protocol`] has arguments, replies, changes and error codes, as bytes. [`limits`] has every
//!   bound, [`config`] the settings of a broker, [`clock`] the time, [`process`] signals,
//!   permissions and limits of the process.
//! - [`budget`] counts the work of commands.
//! - [`state`] is the ordered map, and the parts of a write. [`storage`] is a small trait, with
//!   the log files and fjall behind it.
//! - [`commands`] has a file for each command: its decoding, its accesses, its cost
//!   and its execution, a pure function of state, command and time.
//! - [`wal`] is the write-ahead log: records, the write queue, watermarks, and the feed of
//!   committed changes.
//! - [`net`] is shared by all edges: I/O threads, one memory quota, connection slots, timeouts.
//! - [`engine`] owns the map: all changes go through it. [`checkpointer`] brings the tables up to
//!   date behind the log.
//! - [`zmq`] is the ROUTER and the PUB edge, [`http`] FlatDB's endpoints, [`client`] the ZeroMQ
//!   client.
//! - [`server`] wires them, in the order of start and stop; [`cli`] is the command line.
//!
//! `ARCHITECTURE.md` has the map, the invariants and the decisions with their evidence.
//!
//! # A client
//!
//! ```no_run
//! use vatn::client::{Client, ClientOptions, RawValue, WriteOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::connect("tcp://127.0.0.1:7533", &ClientOptions::default()).await?;
//! client.set(b"boat:1", &RawValue::of("Maren")?, &WriteOptions::default()).await?;
//! let name: String = client.get(b"boat:1").await?.ok_or("it is gone")?.decode()?;
//! # Ok(()) }
//! ```
//!
//! # A broker inside a program
//!
//! ```no_run
//! use vatn::config::Config;
//! use vatn::server::Broker;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config {
//!     http_host: "127.0.0.1".to_owned(),
//!     routers: vec!["ipc:///run/app/vatn".to_owned()],
//!     publishers: vec!["ipc:///run/app/vatn-changes".to_owned()],
//!     ..Config::without_edges("/var/lib/app/vatn")
//! };
//! let broker = Broker::start(config, |_items| {}).await?;
//! println!("commands at {:?}", broker.endpoints().routers);
//! broker.stop().await?;
//! # Ok(()) }
//! ```
//!
//! Programs that run are in `examples/`.
//!
//! # Features
//!
//! `client`, `server` and `cli` are on by default. `cli` needs the other two. A program that only
//! talks to a broker builds neither fjall nor axum nor clap:
//!
//! ```toml
//! vatn = { version = "0.1", default-features = false, features = ["client"] }
//! ```

// No path that a peer can reach may panic; tests may.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(not(test), warn(clippy::panic, clippy::unreachable))]

#[cfg(feature = "server")]
pub mod budget;
#[cfg(feature = "server")]
pub mod checkpointer;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod clock;
#[cfg(feature = "server")]
pub mod commands;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod engine;
#[cfg(feature = "server")]
pub mod http;
pub mod limits;
#[cfg(feature = "server")]
pub mod net;
#[cfg(feature = "server")]
pub mod process;
pub mod protocol;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod state;
#[cfg(feature = "server")]
pub mod storage;
#[cfg(feature = "server")]
pub mod wal;
#[cfg(feature = "server")]
pub mod zmq;
