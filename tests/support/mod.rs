//! Code that the tests share. Each test binary uses its own part of it.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

pub mod broker;
pub mod commands;
pub mod dealer;
pub mod edges;
pub mod gated;
pub mod harm;
pub mod honest;
pub mod http;
pub mod ledger;
pub mod linear;
pub mod model;
pub mod offline;
pub mod peer;
pub mod requests;
pub mod scribe;
pub mod shell;
pub mod steps;
pub mod storage_runtime;
pub mod stub;
pub mod watcher;
pub mod writer;
