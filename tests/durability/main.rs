//! The remaining state after kills, torn writes, power failures, and disks that fail or are full.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test may panic.

#[path = "../support/mod.rs"]
mod support;

mod checkpoints;
mod crash;
mod disk_full;
mod faults;
mod faults_process;
mod kill;
mod repair_steps;
mod space;
mod steps;
mod torn;
