//! The parts that all network edges share: I/O threads, callers, memory, connection slots,
//! timeouts.
//!
//! No edge trusts a peer for its limits. A connection takes a slot before it is served, accounts
//! for the memory that its peer causes, and is closed by one set of timeouts.

pub mod account;
pub mod busy_poll;
mod caller;
pub mod connection_slots;
pub mod io_threads;
pub mod memory_quota;
mod quota_line;
pub mod reservation;
pub mod timeouts;
pub mod turns;
pub mod wake_queue;
mod warning_limit;

pub use account::Account;
pub use caller::{Caller, Signal, User};
pub use connection_slots::{Activity, ConnectionSlots, PeerAddress, Slot};
pub use memory_quota::{Category, MemoryQuota};
pub use reservation::Reservation;
pub use timeouts::ConnectionTimeouts;
pub use warning_limit::WarningLimit;
