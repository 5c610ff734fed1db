//! A restart: the tables, then the log's tail.

use crate::clock::Clock;
use crate::protocol::change::ChangeReader;
use crate::protocol::{ChangeBuffer, Seq, hex};
use crate::state::Store;
use crate::storage::{Durability, Space, Storage, StorageError};
use crate::wal::Segment;
use crate::wal::history;
use crate::wal::queue::Queued;
use crate::wal::tables::{self, FORMAT_VERSION, meta};
use std::sync::mpsc::{SyncSender, sync_channel};

/// Bytes of rows that are read before they are handed on, and how often that may be ahead.
const PAGE_BYTES: usize = 256 << 10;
const PAGES_BETWEEN: usize = 8;
/// No row takes fewer bytes on the medium.
const ROW_BYTES_MIN: u64 = 4;

/// What a restart found.
#[derive(Debug)]
pub struct Recovered {
    /// The state: every persisted write, in a prefix of the order in which they were made.
    pub store: Store,
    /// 16 random bytes that tell this store from every other.
    pub store_id: [u8; 16],
    /// The records that are not in the tables yet, oldest first.
    pub tail: Vec<Queued>,
    /// The log segments, oldest first.
    pub segments: Vec<Segment>,
    /// All writes up to this seq are in the tables.
    pub checkpointed: Seq,
}

/// Reads everything that `disk` holds. `report` hears now and then how many items were read.
pub fn recover(
    disk: &dyn Storage,
    clock: &Clock,
    report: &mut dyn FnMut(usize),
) -> Result<Recovered, StorageError> {
    let store_id = identify(disk)?;
    clock.advance_to(tables::number(disk, meta::CLOCK)?.unwrap_or(0));
    let checkpointed = tables::number(disk, meta::CHECKPOINTED)?.unwrap_or(0);
    let mut store = Store::default();
    load_tables(disk, &mut store, report)?;
    let (tail, segments) = replay_log(disk, checkpointed, clock, &mut store)?;
    store.resume_at(checkpointed);
    // A clean stop sets the ceiling to the last seq; after a crash, numbers may be out that left no
    // trace.
    store.resume_at(tables::number(disk, meta::CEILING)?.unwrap_or(0));
    Ok(Recovered { store, store_id, tail, segments, checkpointed })
}

/// Checks the format's version, and reads the store's id; a new store gets both.
fn identify(disk: &dyn Storage) -> Result<[u8; 16], StorageError> {
    if disk.get(Space::Meta, meta::RESTORING.as_bytes())?.is_some() {
        return Err(StorageError::new("the store", tables::NOT_RESTORED));
    }
    match tables::number(disk, meta::FORMAT)? {
        Some(FORMAT_VERSION) => {}
        Some(other) => return Err(tables::other_format(other)),
        None if !is_empty(disk)? => {
            let text = "the version of its format is missing; `vatn check` says what is left of it";
            return Err(StorageError::new("the store", text));
        }
        None => {
            let format = tables::number_row(meta::FORMAT, FORMAT_VERSION);
            let id = tables::store_id_row(tables::new_store_id());
            disk.commit(vec![format, id], Durability::Fsynced)?;
        }
    }
    let id = disk.get(Space::Meta, meta::STORE_ID.as_bytes())?.unwrap_or_default();
    id.try_into().map_err(|_| StorageError::new("the store", "its id is not 16 bytes long"))
}

/// Whether nothing was ever written.
fn is_empty(disk: &dyn Storage) -> Result<bool, StorageError> {
    let mut is_empty = true;
    for space in [Space::Meta, Space::Table, Space::Log] {
        disk.scan(space, &[], &mut |_, _| {
            is_empty = false;
            false
        })?;
    }
    Ok(is_empty)
}

/// Reads the tables in one thread, and makes the map of them in another.
fn load_tables(
    disk: &dyn Storage,
    store: &mut Store,
    report: &mut dyn FnMut(usize),
) -> Result<(), StorageError> {
    // A hint alone: no row takes fewer bytes than are counted here.
    let items = tables::number(disk, meta::ITEMS)?.unwrap_or(0);
    store.reserve(items.min(disk.usage().total() / ROW_BYTES_MIN) as usize);
    let (sender, receiver) = sync_channel(PAGES_BETWEEN);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || read_tables(disk, &sender));
        let mut loaded = 0;
        for page in receiver {
            for row in ChangeReader::new(ChangeBuffer::bytes(&page)).map_while(Result::ok) {
                store.load(&row);
            }
            loaded += page.items();
            report(loaded);
        }
        reader.join().unwrap_or_else(|_| Err(StorageError::new("reading the tables", "panicked")))
    })
}

/// Sends the rows of the tables, page by page.
fn read_tables(disk: &dyn Storage, pages: &SyncSender<ChangeBuffer>) -> Result<(), StorageError> {
    let (mut page, mut fault) = (ChangeBuffer::default(), None);
    disk.scan(Space::Table, &[], &mut |key, value| match tables::decode(key, value) {
        Ok(row) => {
            page.push_row(row.seq, row.level, row.expires_at, row.key, row.value);
            page.bytes().len() < PAGE_BYTES || pages.send(std::mem::take(&mut page)).is_ok()
        }
        Err(what) => {
            fault = Some(StorageError::new(&format!("row {} of the tables", hex(key)), what));
            false
        }
    })?;
    let _ = pages.send(page).is_ok();
    fault.map_or(Ok(()), Err)
}

type Replayed = (Vec<Queued>, Vec<Segment>);

fn replay_log(
    disk: &dyn Storage,
    checkpointed: Seq,
    clock: &Clock,
    store: &mut Store,
) -> Result<Replayed, StorageError> {
    let (mut tail, mut segments) = (Vec::new(), Segment::read_all(disk)?);
    // Closed segments that the tables hold need not be read.
    let is_done = |segment: &Segment| segment.bytes > 0 && segment.last_seq <= checkpointed;
    let done = segments.iter().take_while(|segment| is_done(segment)).count();
    let mut open: Vec<Segment> = segments.drain(done..).map(|one| Segment::new(one.id)).collect();
    // Versions before could trim the last segment that was noted. What the tables lack must be in
    // one, or it would be trimmed before it is in the tables.
    let is_unnoted = segments.is_empty() && open.is_empty();
    if is_unnoted {
        open.push(Segment::new(checkpointed + 1));
    }
    let first = open.first().map_or(checkpointed + 1, |segment| segment.id);
    history::read(disk, first.saturating_sub(1), &mut |record, bytes| {
        let place = open.partition_point(|segment| segment.id <= record.first_seq);
        if let Some(segment) = place.checked_sub(1).and_then(|place| open.get_mut(place)) {
            segment.last_seq = record.last_seq;
            segment.last_time = record.last_time;
            segment.bytes += bytes as u64;
        }
        clock.advance_to(record.last_time);
        if record.last_seq > checkpointed {
            record.changes().for_each(|change| store.replay(&change));
            tail.push(Queued::from(&record));
        }
        true
    })?;
    segments.iter().for_each(|segment| clock.advance_to(segment.last_time));
    segments.extend(open.into_iter().filter(|segment| segment.bytes > 0 || !is_unnoted));
    match tables::gap(segments.first().map(|segment| segment.id), checkpointed) {
        Some(gap) => Err(StorageError::new("the store", gap)),
        None => Ok((tail, segments)),
    }
}

/// What a clean stop leaves behind: no seq above `seq` is out, and the time is known.
pub fn close(disk: &dyn Storage, clock: &Clock, seq: Seq) -> Result<(), StorageError> {
    let rows = vec![tables::ceiling_row(seq), tables::number_row(meta::CLOCK, clock.now())];
    disk.commit(rows, Durability::Fsynced)?;
    disk.sync()?;
    disk.settle()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualHands;
    use crate::config::Config;
    use crate::engine::Engine;
    use crate::limits::SEQ_RESERVE;
    use crate::protocol::Level;
    use crate::protocol::change::Op;
    use crate::storage::MemoryStorage;
    use crate::wal::Record;
    use std::sync::Arc;

    fn record(seq: Seq) -> Record {
        let mut pending = ChangeBuffer::default();
        let mark = pending.begin(seq, Level::Synced, 0);
        pending.push(Op::Set, false, None, b"k", b"\x01");
        pending.end(mark);
        Record::new(pending)
    }

    #[test]
    fn time_goes_on_from_the_greatest_that_the_store_has_seen() {
        const DAY: u64 = 86_400_000;
        let at = |seq, time_ms| {
            let mut pending = ChangeBuffer::default();
            let mark = pending.begin(seq, Level::Synced, time_ms);
            pending.push(Op::Set, false, Some(time_ms + 1_000), b"k", b"\x01");
            pending.end(mark);
            let value = Record::new(pending).encode().map(Into::into);
            crate::storage::Row { space: Space::Log, key: seq.to_be_bytes().to_vec(), value }
        };
        let segment = Segment { last_seq: 1, last_time: 9 * DAY, bytes: 1, ..Segment::new(1) };
        // In the log after the tables, of a segment that is not read, or noted with the tables.
        for (row, checkpointed, noted) in
            [(at(1, 9 * DAY), 0, 1), (segment.row(), 1, 1), (at(1, 5), 1, 9 * DAY)]
        {
            let disk = MemoryStorage::default();
            recover(&disk, &Clock::manual(1), &mut |_| {}).unwrap();
            let facts = [(meta::CHECKPOINTED, checkpointed), (meta::CLOCK, noted)];
            let facts = facts.map(|(name, number)| tables::number_row(name, number));
            disk.commit(facts.into_iter().chain([row]).collect(), Durability::Fsynced).unwrap();
            let hands = Arc::<ManualHands>::default();
            hands.set_wall(8 * DAY);
            let clock = Clock::reading(&hands);
            let recovered = recover(&disk, &clock, &mut |_| {}).unwrap();
            assert_eq!(clock.now(), 9 * DAY);
            hands.pass(1_000);
            assert_eq!(clock.now(), 9 * DAY + 1_000);
            assert_eq!(recovered.store.has_expired(clock.now()), checkpointed == 0);
        }
    }

    #[test]
    fn what_the_tables_lack_stays_in_a_log_without_a_noted_segment() {
        let disk = Arc::<MemoryStorage>::default();
        let clock = Clock::manual(1);
        recover(disk.as_ref(), &clock, &mut |_| {}).unwrap();
        let key = 101_u64.to_be_bytes().to_vec();
        let value = record(101).encode().map(Into::into);
        let facts = vec![
            tables::number_row(meta::CHECKPOINTED, 100),
            tables::ceiling_row(100 + SEQ_RESERVE),
            crate::storage::Row { space: Space::Log, key: key.clone(), value },
        ];
        disk.commit(facts, Durability::Fsynced).unwrap();
        for _ in 0..2 {
            let recovered = recover(disk.as_ref(), &clock, &mut |_| {}).unwrap();
            assert_eq!((recovered.tail.len(), recovered.store.len()), (1, 1));
            let shared = Arc::clone(&disk) as Arc<dyn Storage>;
            let config = Config::without_edges("memory");
            // A crash comes before the tail is in the tables.
            drop(Engine::new(config, clock.clone(), shared, recovered).unwrap());
            assert!(disk.get(Space::Log, &key).unwrap().is_some(), "it is nowhere else");
        }
    }
}
