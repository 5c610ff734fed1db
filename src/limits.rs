//! Every limit of the broker, in one place; each limit that an operator may want to change is a
//! flag.
//!
//! The constants are part of the protocol (a client may rely on them); `Limits` has the flags.
//! Relations between the constants are checked at compile time at the end of the file.

#[cfg(feature = "server")]
pub mod machine_memory;
#[cfg(feature = "server")]
mod settings;
#[cfg(feature = "server")]
pub mod units;

#[cfg(feature = "server")]
pub use settings::{Limits, at_most};

/// The longest key, in bytes. fjall asserts at 65,535 *after* journalling, so vatn refuses far
/// below.
pub const KEY_BYTES_MAX: usize = 32_768;
/// The first byte of vatn's own keys (`\xFFbeat`, `\xFFlost`).
pub const KEY_RESERVED: u8 = 0xFF;
/// The greatest depth of nested arrays and maps in a value or a request.
pub const DEPTH_MAX: usize = 64;
/// The default of `--command-items`. The items are read and executed in one go: meanwhile the
/// thread serves no other connection, and no other write is applied.
pub const COMMAND_ITEMS: usize = 1 << 14;
/// The default of `--max-message-bytes`, for the same reason.
pub const MESSAGE_BYTES: usize = 16 << 20;
/// How many sequence numbers a crash may skip, so that none is assigned twice.
pub const SEQ_RESERVE: u64 = 1 << 24;
/// A log record is written when the pending writes reach about this size, in bytes.
pub const RECORD_BYTES: usize = 128 * 1024;
/// A table key carries one tag byte before the user's key, since fjall refuses the empty key.
pub const TABLE_KEY_BYTES_MAX: usize = KEY_BYTES_MAX + 1;
/// How many `changes` requests of all connections may wait for their reply. The limit is higher
/// where more connections are allowed.
pub const CHANGES_WAITING_MAX: usize = 10_000;
/// How many bytes these requests may hold.
pub const CHANGES_WAITING_BYTES_MAX: usize = 64 << 20;
/// How many `wait` and `changes` requests of one connection may wait to be answered out of order,
/// and how many more in order. At the limit the connection's further requests are not executed.
pub const WAITING_EACH_MAX: usize = 256;
/// How many pages of the history may be in memory on their way to clients.
pub const CHANGES_PAGES_MAX: usize = 64;
/// The largest `--max-message-bytes`. Together with the queue's bytes and the allowed excess of one
/// write, a record of all pending writes then fits its four-byte length.
pub const MESSAGE_BYTES_MAX: usize = 512 << 20;
/// The largest `--write-queue-bytes`.
pub const QUEUE_BYTES_MAX: usize = 2 << 30;
/// The largest `--write-queue-items`: the number of seqs that may be assigned before the log
/// reserves more.
pub const QUEUE_ITEMS_MAX: usize = 8_000_000;
/// How many pages of the history may be read from the disk at one time, for all clients together.
/// Each read has a file open, out of the descriptors reserved for the store. It may need memory for
/// a record of the log and twice the largest write, and the size is not known in advance.
pub const HISTORY_READERS_MAX: usize = 4;
/// fjall's own limit on a key.
pub const FJALL_KEY_BYTES_MAX: usize = 65_535;

// Pending writes exceed the queue's bytes by at most one write, and a write its limit by one value.
const _: () = assert!(QUEUE_BYTES_MAX + 3 * MESSAGE_BYTES_MAX < u32::MAX as usize);
// Where nothing waits, one write of any size is admitted. It has one seq.
const _: () = assert!((QUEUE_ITEMS_MAX as u64) < SEQ_RESERVE / 2);
const _: () = assert!(TABLE_KEY_BYTES_MAX <= FJALL_KEY_BYTES_MAX);
const _: () = assert!(RECORD_BYTES < 64 << 20);
const _: () = assert!(MESSAGE_BYTES <= MESSAGE_BYTES_MAX);
const _: () = assert!(DEPTH_MAX < 256, "the depth is counted on the decoder's stack");
