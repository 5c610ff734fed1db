//! What the tests share. Each test binary uses its own part of it.
#![allow(dead_code, missing_docs)]

pub mod broker;
pub mod commands;
pub mod dealer;
pub mod inside;
pub mod ledger;
pub mod watcher;
pub mod writer;
