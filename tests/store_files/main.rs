//! The files of a store, and their backups, checks, repairs and restores.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test may panic.

#[path = "../support/mod.rs"]
mod support;

mod backup;
mod check;
mod damage;
mod destination;
mod fixtures;
mod repair;
mod restore;
mod salvage;
