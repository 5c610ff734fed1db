//! Every bound of the broker, in one place; each that an operator may want to move is a flag.
//!
//! The constants are part of the protocol (a client may rely on them); `Limits` has the flags. What
//! must hold between the constants is checked at compile time at the end of the file.

#[cfg(feature = "server")]
pub mod machine_memory;
#[cfg(feature = "server")]
mod settings;
#[cfg(feature = "server")]
pub mod units;

#[cfg(feature = "server")]
pub use settings::{Limits, at_most};

/// The longest key, in bytes. fjall asserts at 65,535 *after* journalling, so we refuse far below.
pub const KEY_BYTES_MAX: usize = 32_768;
/// The first byte of keys that are vatn's own (`\xFFbeat`, `\xFFlost`).
pub const KEY_RESERVED: u8 = 0xFF;
/// How deep arrays and maps may nest in a value or a request.
pub const DEPTH_MAX: usize = 64;
/// The default of `--command-items`. They are read and executed in one go, in which nobody else is
/// served by the thread, and no write is applied.
pub const COMMAND_ITEMS: usize = 1 << 14;
/// The default of `--max-message-bytes`, for the same reason.
pub const MESSAGE_BYTES: usize = 16 << 20;
/// How many sequence numbers a crash may skip, so that none is ever given out twice.
pub const SEQ_RESERVE: u64 = 1 << 24;
/// A log record is written when the pending writes reach about this size, in bytes.
pub const RECORD_BYTES: usize = 128 * 1024;
/// A table key carries one tag byte before the user's key, since fjall refuses the empty key.
pub const TABLE_KEY_BYTES_MAX: usize = KEY_BYTES_MAX + 1;
/// How many `changes` requests may wait for their reply, all connections together; more where more
/// connections may come.
pub const CHANGES_WAITING_MAX: usize = 10_000;
/// How many bytes they may hold.
pub const CHANGES_WAITING_BYTES_MAX: usize = 64 << 20;
/// How many `wait` and `changes` of one connection may wait to be answered out of order, and how
/// many more of them in order; then nothing further of it is executed.
pub const WAITING_EACH_MAX: usize = 256;
/// How many pages of the history may be in memory on their way to a client.
pub const CHANGES_PAGES_MAX: usize = 64;
/// The largest `--max-message-bytes`. With the queue's bytes and what a write may be over, a record
/// of everything that is pending fits the four bytes of its length.
pub const MESSAGE_BYTES_MAX: usize = 512 << 20;
/// The largest `--write-queue-bytes`.
pub const QUEUE_BYTES_MAX: usize = 2 << 30;
/// The largest `--write-queue-items`: so many seqs may be given out before the log promises more.
pub const QUEUE_ITEMS_MAX: usize = 8_000_000;
/// How many pages of the history may be read from the disk at one time, whoever waits for them.
/// Each has a file open, of the descriptors that are kept for the store, and may take a record of
/// the log and twice the largest write, before anybody knows how much.
pub const HISTORY_READERS_MAX: usize = 4;
/// fjall's own bound on a key.
pub const FJALL_KEY_BYTES_MAX: usize = 65_535;

// What is pending is over the queue's bytes by one write at the most, and that by one value.
const _: () = assert!(QUEUE_BYTES_MAX + 3 * MESSAGE_BYTES_MAX < u32::MAX as usize);
// One write is admitted where nothing waits, whatever is in it. It has one seq.
const _: () = assert!((QUEUE_ITEMS_MAX as u64) < SEQ_RESERVE / 2);
const _: () = assert!(TABLE_KEY_BYTES_MAX <= FJALL_KEY_BYTES_MAX);
const _: () = assert!(RECORD_BYTES < 64 << 20);
const _: () = assert!(MESSAGE_BYTES <= MESSAGE_BYTES_MAX);
const _: () = assert!(DEPTH_MAX < 256, "the depth is counted on the decoder's stack");
