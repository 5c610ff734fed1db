//! The rows of the tables and of the meta space, as bytes.
//!
//! ```text
//! table key    0x01 | key                      (fjall refuses the empty key, vatn does not)
//! table value  version u8 | crc32 u32 of the rest | level u8 | seq u64 | expires_at_ms u64 | value
//! ```

use crate::clock::Millis;
use crate::limits::SEQ_RESERVE;
use crate::protocol::{Change, Level, Seq};
use crate::storage::{Row, Space, Storage, StorageError};
use std::hash::{BuildHasher, RandomState};

/// The version of everything in the store's directory.
pub const FORMAT_VERSION: u64 = 2;
/// Tag of the keys that hold users' values.
const TAG_VALUE: u8 = 0x01;
const ROW_VERSION: u8 = 1;

/// The store's facts, by name.
pub mod meta {
    /// [`super::FORMAT_VERSION`] of the program that made the store.
    pub const FORMAT: &str = "format";
    /// 16 random bytes that identify the store.
    pub const STORE_ID: &str = "store_id";
    /// The tables hold all writes up to this seq.
    pub const CHECKPOINTED: &str = "in_tables";
    /// About how many keys there were when the tables were last written.
    pub const ITEMS: &str = "items";
    /// No seq above this was assigned before the last sync.
    pub const CEILING: &str = "ceiling";
    /// The facts about a closed log segment; its id follows.
    pub const SEGMENT: &str = "segment/";
    /// A range of seqs that the log lost; the first seq follows.
    pub const HOLE: &str = "hole/";
    /// The greatest time seen.
    pub const CLOCK: &str = "clock";
    /// Present while a store is being made from a backup.
    pub const RESTORING: &str = "restoring";
}

/// A decoded row of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableRow<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The durability that its writer requested.
    pub level: Level,
    /// The seq of the write.
    pub seq: Seq,
    /// The time of expiry; 0 means never.
    pub expires_at: Millis,
    /// The bytes of one MessagePack value.
    pub value: &'a [u8],
}

/// The key of a row: the user's key, tagged.
pub fn key(key: &[u8]) -> Vec<u8> {
    let mut tagged = Vec::with_capacity(1 + key.len());
    tagged.push(TAG_VALUE);
    tagged.extend_from_slice(key);
    tagged
}

/// The row that makes the tables show `change`.
pub fn row(change: &Change<'_>) -> Row<'static> {
    let key = key(change.key);
    // Only older versions stored the value with a touch.
    let is_there = matches!(change.op, crate::protocol::Op::Set | crate::protocol::Op::Touch);
    let value = is_there.then(|| encode(change).into());
    Row { space: Space::Table, key, value }
}

fn encode(change: &Change<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(22 + change.value.len());
    out.push(ROW_VERSION);
    out.extend_from_slice(&[0; 4]);
    out.push(change.level as u8);
    out.extend_from_slice(&change.seq.to_le_bytes());
    out.extend_from_slice(&change.expires_at.unwrap_or(0).to_le_bytes());
    out.extend_from_slice(change.value);
    let checksum = crc32fast::hash(out.get(5..).unwrap_or_default()).to_le_bytes();
    if let Some(slot) = out.get_mut(1..5) {
        slot.copy_from_slice(&checksum);
    }
    out
}

/// Decodes a row of the tables; the error describes the fault.
pub fn decode<'a>(key: &'a [u8], value: &'a [u8]) -> Result<TableRow<'a>, &'static str> {
    let Some((&TAG_VALUE, key)) = key.split_first() else {
        return Err("its key has an unknown tag");
    };
    let (version, rest) = value.split_first().ok_or("it is empty")?;
    if *version != ROW_VERSION {
        return Err("its format has another version");
    }
    let (checksum, rest) = rest.split_first_chunk::<4>().ok_or("it is cut short")?;
    if crc32fast::hash(rest) != u32::from_le_bytes(*checksum) {
        return Err("its checksum does not match: the bytes on disk have changed");
    }
    let (level, rest) = rest.split_first().ok_or("it is cut short")?;
    let level = Level::from_byte(*level).ok_or("its level is unknown")?;
    let (seq, rest) = rest.split_first_chunk::<8>().ok_or("it is cut short")?;
    let (expires_at, value) = rest.split_first_chunk::<8>().ok_or("it is cut short")?;
    let (seq, expires_at) = (Seq::from_le_bytes(*seq), Millis::from_le_bytes(*expires_at));
    Ok(TableRow { key, level, seq, expires_at, value })
}

/// A row of the meta space that holds a number.
pub fn number_row(name: &str, number: u64) -> Row<'static> {
    let value = Some(number.to_le_bytes().to_vec().into());
    Row { space: Space::Meta, key: name.as_bytes().to_vec(), value }
}

/// The description of a store whose creation was interrupted.
pub const NOT_RESTORED: &str =
    "it was being restored and is not whole: remove it, and restore it again";

/// The refusal of a store of another format.
pub fn other_format(version: u64) -> StorageError {
    let text = format!(
        "its format has version {version}; this vatn reads version {FORMAT_VERSION}: \
         use the vatn that made it"
    );
    StorageError::new("the store", text)
}

/// 16 random bytes for a new store.
pub fn new_store_id() -> [u8; 16] {
    let half = |half: u8| RandomState::new().hash_one(half).to_le_bytes();
    let mut id = [0; 16];
    for (place, byte) in id.iter_mut().zip([half(0), half(1)].concat()) {
        *place = byte;
    }
    id
}

/// The row that holds a store's id.
pub fn store_id_row(id: [u8; 16]) -> Row<'static> {
    let value = Some(id.to_vec().into());
    Row { space: Space::Meta, key: meta::STORE_ID.into(), value }
}

/// The missing range between the tables and the first segment of the log, if there is one. The log
/// is trimmed only of records that the tables hold. A larger gap comes from a crash, which skips at
/// least half of the reserve.
pub fn gap(first_segment: Option<u64>, checkpointed: Seq) -> Option<String> {
    let missing = checkpointed.saturating_add(2)..checkpointed.saturating_add(SEQ_RESERVE / 2);
    let first = first_segment.filter(|first| missing.contains(first))?;
    Some(format!(
        "the tables end at seq {checkpointed} and the log begins at seq {first}: what was between \
         is gone; `vatn check` says more"
    ))
}

/// The row that guarantees that no seq above `ceiling` is assigned.
pub fn ceiling_row(ceiling: Seq) -> Row<'static> {
    number_row(meta::CEILING, ceiling)
}

/// Reads a number from the meta space.
pub fn number(disk: &dyn Storage, name: &str) -> Result<Option<u64>, StorageError> {
    let found = disk.get(Space::Meta, name.as_bytes())?;
    let read = |bytes: Vec<u8>| {
        let bytes: Result<[u8; 8], _> = bytes.try_into();
        bytes.map(u64::from_le_bytes).map_err(|_| StorageError::new(name, "is not a number"))
    };
    found.map(read).transpose()
}
