//! Checks a store: every row and every record, each by itself and against the others.
//!
//! The log says what the tables must show, as far back as it reaches. So a missing row, or one
//! older than the log says, is found as surely as one with a wrong checksum.

use super::archive_reader::is_value;
use super::holes::Hole;
use super::record::Record;
use super::segments::Segment;
use super::tables::{self, FORMAT_VERSION, meta};
use crate::protocol::{Op, Seq, hex};
use crate::storage::{Space, Storage, StorageError};
use std::collections::HashMap;

/// The result of a check.
#[derive(Debug, Default)]
pub struct Checked {
    /// Readable rows of the tables.
    pub items: u64,
    /// Readable records of the log.
    pub records: u64,
    /// Segments of the log.
    pub segments: u64,
    /// The tables hold all writes up to this seq.
    pub checkpointed: Seq,
    /// The greatest seq found anywhere.
    pub last_seq: Seq,
    /// The faults.
    pub faults: Vec<Fault>,
}

/// A fault, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The place.
    pub place: Place,
    /// The fault, in words.
    pub what: String,
}

/// The place of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A fact about the store, by its name.
    Fact(String),
    /// A row of the tables, by its key on disk.
    Row(Vec<u8>),
    /// A record of the log, by its key.
    Record(Vec<u8>),
    /// A space that could not be read completely.
    Space(Space),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fact(name) => write!(f, "the store's {name}"),
            Self::Row(key) => match key.split_first().map(|(_, key)| std::str::from_utf8(key)) {
                Some(Ok(text)) if !text.contains(char::is_control) => {
                    write!(f, "row {} of the tables (key '{text}')", hex(key))
                }
                _ => write!(f, "row {} of the tables", hex(key)),
            },
            Self::Record(key) => write!(f, "record {} of the log", hex(key)),
            Self::Space(Space::Meta) => f.write_str("the store's facts"),
            Self::Space(Space::Table) => f.write_str("the tables"),
            Self::Space(Space::Log) => f.write_str("the log"),
        }
    }
}

/// The last change of a key that is in the log and should be in the tables: its seq, and whether
/// the key exists after it.
type Expected = HashMap<Vec<u8>, (Seq, bool)>;

/// Checks everything that `disk` holds. `report` receives the number of rows and records read so
/// far. A store of another format is refused.
pub fn check(disk: &dyn Storage, report: &mut dyn FnMut(u64)) -> Result<Checked, StorageError> {
    let mut check = Check { disk, found: Checked::default(), expected: HashMap::new(), report };
    check.facts()?;
    check.log()?;
    check.tables()?;
    check.ceiling()?;
    Ok(check.found)
}

/// The name of the note about a segment.
pub(super) fn segment_fact(id: u64) -> String {
    format!("note on log segment {id:016x}")
}

/// The seq that a record's key encodes.
pub(super) fn seq_of(key: &[u8]) -> Option<Seq> {
    key.try_into().ok().map(Seq::from_be_bytes)
}

struct Check<'c> {
    disk: &'c dyn Storage,
    found: Checked,
    expected: Expected,
    report: &'c mut dyn FnMut(u64),
}

impl Check<'_> {
    fn fault(&mut self, place: Place, what: impl Into<String>) {
        self.found.faults.push(Fault { place, what: what.into() });
    }

    fn report(&mut self) {
        let read = self.found.items + self.found.records;
        if read.is_multiple_of(4096) {
            (self.report)(read);
        }
    }

    /// Reads a number; a fact that is no number is a fault.
    fn number(&mut self, name: &str) -> Result<Option<u64>, StorageError> {
        let Some(bytes) = self.disk.get(Space::Meta, name.as_bytes())? else { return Ok(None) };
        let number = <[u8; 8]>::try_from(bytes).ok().map(u64::from_le_bytes);
        if number.is_none() {
            self.fault(Place::Fact(name.to_owned()), "it is not a number");
        }
        Ok(number)
    }

    fn facts(&mut self) -> Result<(), StorageError> {
        if self.disk.get(Space::Meta, meta::RESTORING.as_bytes())?.is_some() {
            return Err(StorageError::new("the store", tables::NOT_RESTORED));
        }
        match self.number(meta::FORMAT)? {
            Some(FORMAT_VERSION) => {}
            Some(other) => return Err(tables::other_format(other)),
            None => self.fault(Place::Fact(meta::FORMAT.to_owned()), "it is missing"),
        }
        let id = self.disk.get(Space::Meta, meta::STORE_ID.as_bytes())?.unwrap_or_default();
        if id.len() != 16 {
            self.fault(Place::Fact(meta::STORE_ID.to_owned()), "it is not 16 bytes long");
        }
        self.found.checkpointed = self.number(meta::CHECKPOINTED)?.unwrap_or(0);
        self.found.last_seq = self.found.checkpointed;
        self.number(meta::CLOCK)?;
        Ok(())
    }

    /// No seq may be assigned twice.
    fn ceiling(&mut self) -> Result<(), StorageError> {
        let ceiling = self.number(meta::CEILING)?.unwrap_or(0);
        let is_known = self
            .found
            .faults
            .iter()
            .any(|fault| matches!(&fault.place, Place::Fact(name) if name == meta::CEILING));
        if ceiling < self.found.last_seq && !is_known {
            let what = format!("it is {ceiling}, and seq {} was used", self.found.last_seq);
            self.fault(Place::Fact(meta::CEILING.to_owned()), what);
        }
        Ok(())
    }

    fn log(&mut self) -> Result<(), StorageError> {
        let (disk, noted) = (self.disk, Segment::read_all(self.disk)?);
        let holes = Hole::read_all(disk)?;
        let first = noted.first().map(|segment| segment.id);
        if let Some(gap) = tables::gap(first, self.found.checkpointed) {
            self.fault(Place::Fact(meta::CHECKPOINTED.to_owned()), gap);
        }
        // What precedes the first segment is being removed. Its last record is read on the way into
        // the history.
        let first = first.unwrap_or(0);
        let before = disk.floor(Space::Log, &first.to_be_bytes());
        let start = before.ok().flatten().map_or(first, |(key, _)| seq_of(&key).unwrap_or(first));
        let mut last_seq = first.saturating_sub(1);
        let mut ends: Vec<Seq> = noted.iter().map(|segment| segment.id.saturating_sub(1)).collect();
        let faults = self.found.faults.len();
        let scanned = disk.scan(Space::Log, &start.to_be_bytes(), &mut |key, value| {
            if seq_of(key).is_some_and(|seq| seq < first) && Record::decode(value).is_ok() {
                return true;
            }
            match self.record(key, value, last_seq) {
                Ok(record) => {
                    let is_in_hole =
                        |hole: &Hole| last_seq < hole.last && hole.first <= record.first_seq;
                    if holes.iter().any(is_in_hole) {
                        // The lost record may have held the last change of any key.
                        self.expected.retain(|_, (seq, _)| *seq > last_seq);
                    }
                    last_seq = record.last_seq;
                    let after = noted.partition_point(|segment| segment.id <= record.first_seq);
                    if let Some(end) = after.checked_sub(1).and_then(|at| ends.get_mut(at)) {
                        *end = record.last_seq;
                    }
                }
                Err(what) => {
                    // The unreadable record may have held the last change of any key.
                    self.expected.clear();
                    self.fault(Place::Record(key.to_vec()), what);
                }
            }
            self.report();
            true
        });
        if let Err(error) = scanned {
            self.fault(Place::Space(Space::Log), error.to_string());
        }
        if holes.iter().any(|hole| hole.last > last_seq) {
            self.expected.clear();
        }
        self.found.segments = noted.len() as u64;
        if self.found.faults.len() > faults {
            return Ok(());
        }
        // The note of an open segment says only that the segment began.
        for (segment, end) in noted.iter().zip(ends) {
            if segment.bytes > 0 && segment.last_seq != end {
                let name = segment_fact(segment.id);
                let what = format!("it ends at seq {end}, and should at {}", segment.last_seq);
                self.fault(Place::Fact(name), what);
            }
        }
        Ok(())
    }

    /// Reads a record whose writes come after `last`.
    fn record(&mut self, key: &[u8], value: &[u8], last: Seq) -> Result<Record, String> {
        let record = Record::decode(value).map_err(|error| error.to_string())?;
        // The first writes of a record may have left no trace in the record.
        let first = seq_of(key).filter(|first| (last + 1..=record.first_seq).contains(first));
        if first.is_none() || record.last_seq < record.first_seq {
            return Err("its seqs are not where they belong".to_owned());
        }
        let (mut seq, mut items) = (record.first_seq, 0);
        for change in record.changes() {
            if change.seq < seq || change.seq > record.last_seq {
                return Err("its writes are not in order".to_owned());
            }
            let has_value = change.op == Op::Set || !change.value.is_empty();
            if has_value && !is_value(change.value) {
                return Err("a value in it is not MessagePack".to_owned());
            }
            (seq, items) = (change.seq, items + 1);
        }
        if items != record.items {
            return Err("it has another number of changes than it says".to_owned());
        }
        for change in record.changes() {
            if change.seq > self.found.checkpointed {
                // A checkpoint writes the current value of each key: the tables may have this
                // change already.
                self.expected.remove(change.key);
                continue;
            }
            match (change.op, self.expected.get_mut(change.key)) {
                (Op::Touch, Some((seq, true))) => *seq = change.seq,
                // From here, whether there is a value to touch is not known.
                (Op::Touch, _) => {}
                (op, _) => {
                    let expected = (change.seq, op == Op::Set);
                    self.expected.insert(change.key.to_vec(), expected);
                }
            }
        }
        self.found.records += 1;
        self.found.last_seq = self.found.last_seq.max(record.last_seq);
        Ok(record)
    }

    fn tables(&mut self) -> Result<(), StorageError> {
        let disk = self.disk;
        let scanned = disk.scan(Space::Table, &[], &mut |key, value| {
            if let Err(what) = self.row(key, value) {
                self.fault(Place::Row(key.to_vec()), what);
            }
            self.report();
            true
        });
        if let Err(error) = scanned {
            self.fault(Place::Space(Space::Table), error.to_string());
            return Ok(());
        }
        let missing = std::mem::take(&mut self.expected).into_iter();
        let mut missing: Vec<_> = missing.filter(|(_, (_, is_there))| *is_there).collect();
        missing.sort();
        for (key, (seq, _)) in missing {
            let place = Place::Row(tables::key(&key));
            self.fault(place, format!("it is missing: the log has it at seq {seq}"));
        }
        Ok(())
    }

    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let expected = key.split_first().and_then(|(_, key)| self.expected.remove(key));
        let row = tables::decode(key, value)?;
        if !is_value(row.value) {
            return Err("its value is not MessagePack".to_owned());
        }
        match expected {
            Some((seq, true)) if row.seq < seq => {
                return Err(format!("it is of seq {}: the log has one of seq {seq}", row.seq));
            }
            Some((seq, false)) if row.seq <= seq => {
                return Err(format!("it was deleted: the log says so at seq {seq}"));
            }
            _ => {}
        }
        self.found.items += 1;
        self.found.last_seq = self.found.last_seq.max(row.seq);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
