//! What a check found wrong is put right, as far as it can be: what is readable stays, what is not
//! goes, and each loss is said.

use super::check::{Checked, Place, segment_fact, seq_of};
use super::record::Record;
use super::segments::Segment;
use super::tables::{self, FORMAT_VERSION, meta};
use super::touches::Touches;
use crate::disk::{Disk, DiskError, Row, Space, Sync};
use crate::limits::SEQ_RESERVE;
use crate::wire::{Seq, hex};
use std::collections::{BTreeMap, BTreeSet};

/// Rows in one batch.
const BATCH_ROWS: usize = 1024;

/// What was done about the faults.
#[derive(Debug, Default)]
pub struct Repaired {
    /// What was put right without a loss.
    pub mended: Vec<String>,
    /// What is gone.
    pub lost: Vec<String>,
}

/// Repairs the store on `disk`, whose faults are in `checked`.
pub fn repair(disk: &dyn Disk, checked: &Checked) -> Result<Repaired, DiskError> {
    let mut repair =
        Repair { disk, checked, done: Repaired::default(), last_seq: checked.last_seq };
    repair.refuse_unreadable()?;
    repair.rows()?;
    repair.records()?;
    repair.facts()?;
    disk.sync()?;
    Ok(repair.done)
}

struct Repair<'r> {
    disk: &'r dyn Disk,
    checked: &'r Checked,
    done: Repaired,
    last_seq: Seq,
}

impl Repair<'_> {
    /// A space that cannot be read to its end may hold more than can be told.
    fn refuse_unreadable(&self) -> Result<(), DiskError> {
        let mut faults = self.checked.faults.iter();
        match faults.find(|fault| matches!(fault.place, Place::Space(_))) {
            Some(fault) => {
                let text = format!("{}; restore a backup", fault.what);
                Err(DiskError::new(&format!("{} cannot be repaired", fault.place), text))
            }
            None => Ok(()),
        }
    }

    /// Each record, oldest first, if it can be read. What comes before the first segment was
    /// trimmed, and has not been looked at.
    fn each_record(&self, each: &mut dyn FnMut(Option<&Record>)) -> Result<(), DiskError> {
        let noted = Segment::read_all(self.disk)?;
        let first = noted.first().map_or(0, |segment| segment.id);
        self.disk.scan(Space::Log, &first.to_be_bytes(), &mut |_, value| {
            each(Record::decode(value).ok().as_ref());
            true
        })
    }

    /// Puts wrong rows right from the log, which has the last change of some of them, and takes
    /// out the others; brings the tables up to date with what the log has beyond them.
    fn rows(&mut self) -> Result<(), DiskError> {
        let removal = |key: &[u8]| Row { space: Space::Table, key: key.to_vec(), value: None };
        let mut wrong = BTreeMap::new();
        for fault in &self.checked.faults {
            if let Place::Row(key) = &fault.place {
                wrong.insert(key.clone(), (removal(key), None));
            }
        }
        let (mut rows, mut touches) = (BTreeMap::new(), Touches::default());
        let in_tables = self.checked.in_tables;
        self.each_record(&mut |record| {
            let Some(record) = record else {
                // What is missing may have been the last change of any of them.
                wrong.iter_mut().for_each(|(key, slot)| *slot = (removal(key), None));
                return;
            };
            for change in record.changes() {
                if touches.note(&change) {
                    continue;
                }
                let row = tables::row(&change);
                if let Some(slot) = wrong.get_mut(&row.key) {
                    *slot = (row, Some(change.seq));
                } else if change.seq > in_tables {
                    rows.insert(row.key.clone(), row);
                }
            }
        })?;
        for (key, (row, seq)) in wrong {
            let place = Place::Row(key.clone());
            match seq {
                Some(seq) => {
                    self.done.mended.push(format!("{place}: from the log, as of seq {seq}"));
                }
                None => self.done.lost.push(format!("{place}: its value, and what it was")),
            }
            rows.insert(key, row);
        }
        let rows: Vec<Row<'static>> = rows.into_values().collect();
        for batch in rows.chunks(BATCH_ROWS) {
            self.disk.commit(batch.to_vec(), Sync::Buffer)?;
        }
        touches.apply(self.disk)?;
        let up_to_date = tables::number_row(meta::IN_TABLES, self.last_seq);
        self.disk.commit(vec![up_to_date], Sync::Buffer)?;
        self.disk.sync()
    }

    /// History with a hole in it is none: what was before a record that is gone goes with it.
    fn records(&mut self) -> Result<(), DiskError> {
        let mut holes = BTreeSet::new();
        for fault in &self.checked.faults {
            let Place::Record(key) = &fault.place else { continue };
            holes.insert(key.clone());
            let lost = match seq_of(key) {
                Some(first) if first <= self.checked.in_tables => {
                    format!("the history from seq {first} on; the tables have its writes")
                }
                Some(first) => format!("the writes from seq {first} on that were in it"),
                None => format!("a row named {}", hex(key)),
            };
            self.done.lost.push(format!("{}: {lost}", fault.place));
        }
        let Some(last) = holes.last() else { return Ok(()) };
        let mut next = None;
        self.disk.scan(Space::Log, last, &mut |key, _| {
            if key > last.as_slice() {
                next = seq_of(key);
            }
            next.is_none()
        })?;
        let noted = Segment::read_all(self.disk)?;
        let begins = next.unwrap_or(self.last_seq.saturating_add(1));
        let begins = begins.max(noted.first().map_or(0, |segment| segment.id));
        let is_before = |segment: &&Segment| segment.id < begins;
        let forget = |segment: &Segment| Row {
            space: Space::Meta,
            key: Segment::key(segment.id),
            value: None,
        };
        // The beginning of the history first, so that what is left of the rest is never read.
        let mut notes: Vec<Row<'_>> = noted.iter().filter(is_before).map(forget).collect();
        if !noted.iter().any(|segment| segment.id == begins) {
            notes.push(Segment::new(begins).row());
        }
        self.disk.commit(notes, Sync::Data)?;
        self.forget(begins, &holes)?;
        self.done.lost.push(format!("the history before seq {begins}"));
        Ok(())
    }

    /// Takes out the records before `begins`, also where the rest of what they are in stays; and a
    /// hole that is there, after everything that was written.
    fn forget(&self, begins: Seq, holes: &BTreeSet<Vec<u8>>) -> Result<(), DiskError> {
        self.disk.trim_log(begins)?;
        let mut rows = Vec::new();
        self.disk.scan(Space::Log, &[], &mut |key, _| {
            let goes = *key < begins.to_be_bytes()[..] || holes.contains(key);
            if goes {
                rows.push(Row { space: Space::Log, key: key.to_vec(), value: None });
            }
            goes
        })?;
        if rows.is_empty() { Ok(()) } else { self.disk.commit(rows, Sync::Data) }
    }

    fn facts(&mut self) -> Result<(), DiskError> {
        let mut rows = Vec::new();
        for fault in &self.checked.faults {
            let Place::Fact(name) = &fault.place else { continue };
            let done = match name.as_str() {
                meta::FORMAT => {
                    rows.push(tables::number_row(meta::FORMAT, FORMAT_VERSION));
                    "set anew"
                }
                meta::STORE_ID => {
                    rows.push(tables::store_id_row(tables::new_store_id()));
                    "a new one"
                }
                meta::CEILING => {
                    let ceiling = self.last_seq.saturating_add(SEQ_RESERVE);
                    rows.push(tables::ceiling_row(ceiling));
                    "set beyond every seq that was found"
                }
                // Set when the rows were.
                meta::IN_TABLES => {
                    self.done.lost.push("writes that neither the tables nor the log have".into());
                    "set anew"
                }
                meta::CLOCK => {
                    rows.push(Row {
                        space: Space::Meta,
                        key: name.as_bytes().to_vec(),
                        value: None,
                    });
                    "removed"
                }
                note => {
                    let noted = Segment::read_all(self.disk)?;
                    let segment = noted.iter().find(|segment| segment_fact(segment.id) == note);
                    // As of one that is open: it is read instead.
                    rows.extend(segment.map(|segment| Segment::new(segment.id).row()));
                    "the segment is read instead"
                }
            };
            self.done.mended.push(format!("{}: {done}", fault.place));
        }
        if rows.is_empty() { Ok(()) } else { self.disk.commit(rows, Sync::Data) }
    }
}
