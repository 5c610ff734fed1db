//! The expected store in its simplest form: a `BTreeMap`, and its possible states after a crash.

use std::collections::BTreeMap;
use vatn::commands::Command;
use vatn::commands::options::{Condition, Expiry};
use vatn::commands::{
    Append, Batch, Count, Delete, DeleteRange, GetMulti, Range, Set, SetMulti, Step, Touch,
};
use vatn::protocol::reply::{Meta, Shown};
use vatn::protocol::{Code, Level, Reply};

/// A key's state in the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    pub value: Vec<u8>,
    pub seq: u64,
    pub expires_at: u64,
    pub level: Level,
}

/// Keys with their states.
pub type Cells = BTreeMap<Vec<u8>, Cell>;

impl Cell {
    fn meta(&self, now: u64) -> Meta<'_> {
        let ttl_ms = (self.expires_at != 0).then(|| self.expires_at - now);
        Meta { value: self.value[..].into(), seq: self.seq, ttl_ms, level: self.level }
    }

    fn shown(&self, range: &Range<'_>, now: u64) -> Shown<'_> {
        match (range.keys_only, range.meta) {
            (true, _) => Shown::Key,
            (_, true) => Shown::Meta(self.meta(now)),
            _ => Shown::Value(self.value[..].into()),
        }
    }
}

/// The expected store.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub cells: Cells,
    pub seq: u64,
    /// Possible states after a crash: the persisted cells after each write, oldest first.
    pub persisted: Vec<(u64, Cells)>,
}

/// The expected reply of a command: encoded, or the code of its refusal.
pub type Expected = Result<Vec<u8>, Code>;

pub fn encoded(reply: &Reply<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    reply.encode(&mut out);
    out
}

impl Model {
    /// The state that a restart found.
    pub fn after(cells: Cells, seq: u64) -> Self {
        Self { persisted: vec![(seq, cells.clone())], cells, seq }
    }

    /// The model without its history.
    pub fn now(&self) -> Self {
        let persisted = self.persisted.last().cloned().into_iter().collect();
        Self { cells: self.cells.clone(), seq: self.seq, persisted }
    }

    /// The state that a crash would leave after all writes so far.
    pub fn left(&self) -> &Cells {
        &self.persisted.last().unwrap().1
    }

    /// Records the persisted effect of a write: its changes, or, at level `memory`, the absence of
    /// the values that it hides.
    fn persist(&mut self, before: &Cells) {
        let Some((_, last)) = self.persisted.last() else { return };
        let mut next = last.clone();
        for key in before.keys().chain(self.cells.keys()) {
            match self.cells.get(key) {
                cell if cell == before.get(key) => {}
                Some(cell) if cell.level != Level::Memory => {
                    drop(next.insert(key.clone(), cell.clone()))
                }
                _ => drop(next.remove(key)),
            }
        }
        self.persisted.push((self.seq, next));
    }

    pub fn expire(&mut self, now: u64) {
        let due: Vec<_> = self
            .cells
            .iter()
            .filter(|(_, cell)| cell.expires_at != 0 && cell.expires_at <= now)
            .map(|(key, cell)| (cell.expires_at, key.clone()))
            .collect();
        for (_, key) in due {
            let before = self.cells.clone();
            self.cells.remove(&key);
            self.seq += 1;
            self.persist(&before);
        }
    }

    pub fn apply(&mut self, command: &Command<'_>, now: u64, default: Level) -> Expected {
        let seq = self.seq + 1;
        let level = self.level(command, command.durability().unwrap_or(default));
        let before = self.cells.clone();
        let mut changed = false;
        let done = self.run(command, now, level, seq, &mut changed);
        match &done {
            Ok(_) if changed => {
                self.seq = seq;
                self.persist(&before);
            }
            Ok(_) => {}
            Err(_) => self.cells = before,
        }
        done
    }

    /// A touch neither persists a value nor undoes that.
    pub fn level(&self, command: &Command<'_>, requested: Level) -> Level {
        let touched = |touch: &Touch<'_>| self.cells.get(touch.key.as_ref()).map(|cell| cell.level);
        let is_kept = |command: &Command<'_>| match command {
            Command::Touch(touch) => touched(touch).is_some_and(|level| level != Level::Memory),
            _ => false,
        };
        match command {
            Command::Touch(touch) if touched(touch) == Some(Level::Memory) => Level::Memory,
            Command::Batch(batch) if batch.commands.iter().any(is_kept) => {
                requested.max(Level::Queued)
            }
            single if is_kept(single) => requested.max(Level::Queued),
            _ => requested,
        }
    }

    fn run(
        &mut self,
        command: &Command<'_>,
        now: u64,
        level: Level,
        seq: u64,
        changed: &mut bool,
    ) -> Expected {
        match command {
            Command::Get(get) => Ok(self.get(&get.key, get.meta, now)),
            Command::GetMulti(get) => Ok(self.get_multi(get)),
            Command::Range(range) => self.range(range, now),
            Command::Count(count) => Ok(self.count(count)),
            Command::Set(set) => self.set(set, now, level, seq, changed),
            Command::SetMulti(set) => Ok(self.set_multi(set, now, level, seq, changed)),
            Command::Delete(delete) => self.delete(delete, changed),
            Command::DeleteMulti(delete) => {
                let keys = delete.keys.iter().map(|key| [delete.prefix, key].concat());
                let existed = keys.filter(|key| self.cells.remove(key).is_some()).count();
                *changed |= existed > 0;
                Ok(encoded(&Reply::Uint(existed as u64)))
            }
            Command::DeleteRange(range) => Ok(self.delete_range(range, changed)),
            Command::Incr(incr) => self.step(incr, now, level, seq, changed),
            Command::Decr(decr) => self.step(decr, now, level, seq, changed),
            Command::Append(append) => self.append(append, now, level, seq, changed),
            Command::Touch(touch) => Ok(self.touch(touch, now, level, seq, changed)),
            Command::Batch(batch) => self.batch(batch, now, level, seq, changed),
            other => panic!("the model does not know {other:?}"),
        }
    }

    fn get(&self, key: &[u8], meta: bool, now: u64) -> Vec<u8> {
        let Some(cell) = self.cells.get(key) else { return encoded(&Reply::Nil) };
        if !meta {
            return cell.value.clone();
        }
        encoded(&Reply::Meta(cell.meta(now)))
    }

    fn get_multi(&self, get: &GetMulti<'_>) -> Vec<u8> {
        let found = get.keys.iter().filter_map(|key| {
            self.cells.get_key_value(*key).map(|(key, cell)| (&key[..], cell.value[..].into()))
        });
        encoded(&Reply::Pairs(found.collect()))
    }

    fn range(&self, range: &Range<'_>, now: u64) -> Expected {
        let is_in = |key: &[u8]| {
            key.starts_with(range.prefix)
                && range.from.is_none_or(|from| key >= from)
                && range.to.is_none_or(|to| key < to)
                && range
                    .after
                    .is_none_or(|after| if range.reverse { key < after } else { key > after })
        };
        let mut all: Vec<_> = self.cells.iter().filter(|(key, _)| is_in(key)).collect();
        if range.reverse {
            all.reverse();
        }
        let limit = range.limit.unwrap_or(usize::MAX);
        let next = (all.len() > limit).then(|| &all[limit - 1].0[..]);
        let items = all.iter().take(limit).map(|(key, cell)| (&key[..], cell.shown(range, now)));
        Ok(encoded(&Reply::Page { items: items.collect(), next }))
    }

    fn count(&self, count: &Count<'_>) -> Vec<u8> {
        let found = self.cells.keys().filter(|key| key.starts_with(count.prefix)).count();
        encoded(&Reply::Uint(found as u64))
    }

    fn holds(&self, key: &[u8], condition: Option<Condition>) -> Result<(), Code> {
        let seq = self.cells.get(key).map(|cell| cell.seq);
        let holds = match condition {
            None => true,
            Some(Condition::Absent) => seq.is_none(),
            Some(Condition::Present) => seq.is_some(),
            Some(Condition::Seq(wanted)) => seq == Some(wanted),
        };
        if holds { Ok(()) } else { Err(Code::Conflict) }
    }

    /// Puts a cell at a key; a passed expiry removes the key. Returns whether that changes
    /// anything.
    fn put(&mut self, key: Vec<u8>, cell: Cell, expiry: Option<Expiry>, now: u64) -> bool {
        let expires_at = match expiry {
            None => cell.expires_at,
            Some(Expiry::After(ttl)) => now + ttl,
            Some(Expiry::At(time)) if time > now => time,
            Some(Expiry::At(_)) => return self.cells.remove(&key).is_some(),
        };
        self.cells.insert(key, Cell { expires_at, ..cell });
        true
    }

    fn set(
        &mut self,
        set: &Set<'_>,
        now: u64,
        level: Level,
        seq: u64,
        changed: &mut bool,
    ) -> Expected {
        self.holds(&set.key, set.condition)?;
        let old = self.cells.get(set.key.as_ref()).map(|cell| cell.value.clone());
        let cell = Cell { value: set.value.to_vec(), seq, expires_at: 0, level };
        let written = self.put(set.key.to_vec(), cell, set.expiry, now);
        *changed |= written;
        Ok(match (set.return_value, old) {
            (true, old) => old.unwrap_or_else(|| encoded(&Reply::Nil)),
            (false, _) => encoded(&Reply::Uint(if written { seq } else { self.seq })),
        })
    }

    fn set_multi(
        &mut self,
        set: &SetMulti<'_>,
        now: u64,
        level: Level,
        seq: u64,
        changed: &mut bool,
    ) -> Vec<u8> {
        let mut written = false;
        for (key, value) in &set.pairs {
            let cell = Cell { value: value.to_vec(), seq, expires_at: 0, level };
            written |= self.put([set.prefix, key].concat(), cell, set.expiry, now);
        }
        *changed |= written;
        encoded(&Reply::Uint(if written { seq } else { self.seq }))
    }

    fn delete(&mut self, delete: &Delete<'_>, changed: &mut bool) -> Expected {
        self.holds(&delete.key, delete.condition)?;
        let old = self.cells.remove(delete.key.as_ref());
        *changed |= old.is_some();
        Ok(match (old, delete.return_value) {
            (Some(cell), true) => cell.value,
            (None, true) => encoded(&Reply::Nil),
            (old, false) => encoded(&Reply::Bool(old.is_some())),
        })
    }

    fn delete_range(&mut self, range: &DeleteRange<'_>, changed: &mut bool) -> Vec<u8> {
        let is_in = |key: &[u8]| {
            key.starts_with(range.prefix.unwrap_or_default())
                && range.from.is_none_or(|from| key >= from)
                && range.to.is_none_or(|to| key < to)
                && range.after.is_none_or(|after| key > after)
        };
        let all: Vec<_> = self.cells.keys().filter(|key| is_in(key)).cloned().collect();
        let count = all.len().min(range.limit.unwrap_or(usize::MAX));
        all.iter().take(count).for_each(|key| drop(self.cells.remove(key)));
        *changed |= count > 0;
        let mut out = vec![0x92];
        out.extend(encoded(&Reply::Uint(count as u64)));
        match all.get(count.wrapping_sub(1)).filter(|_| all.len() > count) {
            Some(next) => vatn::protocol::writer::key(&mut out, next),
            None => vatn::protocol::writer::nil(&mut out),
        }
        out
    }

    fn step<const DOWN: bool>(
        &mut self,
        incr: &Step<'_, DOWN>,
        now: u64,
        level: Level,
        seq: u64,
        changed: &mut bool,
    ) -> Expected {
        let (number, kept) = match self.cells.get(incr.key.as_ref()) {
            Some(cell) => {
                let value = rmpv::decode::read_value(&mut &cell.value[..]).unwrap();
                let number = value
                    .as_i64()
                    .map(i128::from)
                    .or(value.as_u64().map(i128::from))
                    .ok_or(Code::NotANumber)?;
                let delta = i128::from(incr.delta);
                let next = if DOWN { number - delta } else { number + delta };
                if next < i128::from(i64::MIN) || next > i128::from(u64::MAX) {
                    return Err(Code::Overflow);
                }
                (next, cell.expires_at)
            }
            None => (incr.initial.ok_or(Code::NotFound)?, 0),
        };
        let value = encoded(&Reply::Int(number));
        let cell = Cell { value: value.clone(), seq, expires_at: kept, level };
        *changed |= self.put(incr.key.to_vec(), cell, incr.expiry, now);
        Ok(value)
    }

    fn append(
        &mut self,
        append: &Append<'_>,
        now: u64,
        level: Level,
        seq: u64,
        changed: &mut bool,
    ) -> Expected {
        self.holds(&append.key, append.condition)?;
        let old = self.cells.get(append.key.as_ref());
        let kept = old.map_or(0, |cell| cell.expires_at);
        let (mut is_text, mut bytes) = (append.bytes.is_text, Vec::new());
        if let Some(cell) = old {
            match rmpv::decode::read_value(&mut &cell.value[..]).unwrap() {
                rmpv::Value::String(text) => bytes = text.into_bytes(),
                rmpv::Value::Binary(binary) => (is_text, bytes) = (false, binary),
                _ => return Err(Code::WrongType),
            }
        }
        bytes.extend(append.bytes.bytes);
        let len = bytes.len() as u64;
        let mut value = Vec::new();
        match is_text {
            true => rmp::encode::write_str(&mut value, str::from_utf8(&bytes).unwrap()).unwrap(),
            false => rmp::encode::write_bin(&mut value, &bytes).unwrap(),
        }
        let cell = Cell { value, seq, expires_at: kept, level };
        *changed |= self.put(append.key.to_vec(), cell, append.expiry, now);
        Ok(encoded(&Reply::Uint(len)))
    }

    fn touch(
        &mut self,
        touch: &Touch<'_>,
        now: u64,
        level: Level,
        seq: u64,
        changed: &mut bool,
    ) -> Vec<u8> {
        if let Some(Expiry::At(time)) = touch.expiry
            && time <= now
        {
            let found = self.cells.remove(touch.key.as_ref()).is_some();
            *changed |= found;
            return encoded(&Reply::Bool(found));
        }
        let found = self.cells.get_mut(touch.key.as_ref()).map(|cell| {
            cell.expires_at = match touch.expiry {
                None => 0,
                Some(Expiry::After(ttl)) => now + ttl,
                Some(Expiry::At(time)) => time,
            };
            cell.seq = seq;
            if cell.level != Level::Memory {
                cell.level = level;
            }
        });
        *changed |= found.is_some();
        encoded(&Reply::Bool(found.is_some()))
    }

    fn batch(
        &mut self,
        batch: &Batch<'_>,
        now: u64,
        level: Level,
        seq: u64,
        changed: &mut bool,
    ) -> Expected {
        let mut out = Vec::new();
        rmp::encode::write_array_len(&mut out, batch.commands.len() as u32).unwrap();
        for command in &batch.commands {
            out.extend(self.run(command, now, level, seq, changed)?);
        }
        Ok(out)
    }
}
