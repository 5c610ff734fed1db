//! The store against a plain `BTreeMap`: seeded random commands, replies and state compared at
//! each.

mod support;

use std::collections::BTreeMap;
use support::commands::{Generator, encode_value};
use vatn::store::map::Head;
use vatn::store::{Context, Store};
use vatn::wire::change::{ChangeReader, Op};
use vatn::wire::command::{Batch, Count, Delete, GetMulti, Incr, Range, Set, SetMulti, Touch};
use vatn::wire::options::Condition;
use vatn::wire::reply::{Meta, Shown};
use vatn::wire::{ChangeBuffer, Code, Command, Level, Refusal, Reply};

/// What the model knows of a key.
#[derive(Debug, Clone, PartialEq)]
struct Cell {
    value: Vec<u8>,
    seq: u64,
    expires_at: u64,
    level: Level,
}

impl Cell {
    fn meta(&self, now: u64) -> Meta<'_> {
        let ttl_ms = (self.expires_at != 0).then(|| self.expires_at - now);
        Meta { value: &self.value, seq: self.seq, ttl_ms, level: self.level }
    }

    fn shown(&self, range: &Range<'_>, now: u64) -> Shown<'_> {
        match (range.keys_only, range.meta) {
            (true, _) => Shown::Key,
            (_, true) => Shown::Meta(self.meta(now)),
            _ => Shown::Value(&self.value),
        }
    }
}

/// The store as it should be, in the plainest words.
#[derive(Debug, Clone, Default)]
struct Model {
    cells: BTreeMap<Vec<u8>, Cell>,
    seq: u64,
}

/// What a command should answer: encoded, or the code it is refused with.
type Expected = Result<Vec<u8>, Code>;

fn encoded(reply: &Reply<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    reply.encode(&mut out);
    out
}

impl Model {
    fn expire(&mut self, now: u64) {
        let due: Vec<_> = self
            .cells
            .iter()
            .filter(|(_, cell)| cell.expires_at != 0 && cell.expires_at <= now)
            .map(|(key, cell)| (cell.expires_at, key.clone()))
            .collect();
        for (_, key) in due {
            self.cells.remove(&key);
            self.seq += 1;
        }
    }

    fn apply(&mut self, command: &Command<'_>, now: u64, default: Level) -> Expected {
        let seq = self.seq + 1;
        let level = command.durability().unwrap_or(default);
        let before = self.cells.clone();
        let mut changed = false;
        let done = self.run(command, now, level, seq, &mut changed);
        match &done {
            Ok(_) if changed => self.seq = seq,
            Ok(_) => {}
            Err(_) => self.cells = before,
        }
        done
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
                let existed =
                    delete.keys.iter().filter(|key| self.cells.remove(key.as_ref()).is_some());
                let existed = existed.count();
                *changed |= existed > 0;
                Ok(encoded(&Reply::Uint(existed as u64)))
            }
            Command::Incr(incr) => self.incr(incr, now, level, seq, changed),
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
            self.cells.get_key_value(*key).map(|(key, cell)| (&key[..], &cell.value[..]))
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

    fn set(
        &mut self,
        set: &Set<'_>,
        now: u64,
        level: Level,
        seq: u64,
        changed: &mut bool,
    ) -> Expected {
        self.holds(&set.key, set.condition)?;
        let expires_at = set.ttl_ms.map_or(0, |ttl| now + ttl);
        let cell = Cell { value: set.value.to_vec(), seq, expires_at, level };
        self.cells.insert(set.key.to_vec(), cell);
        *changed = true;
        Ok(encoded(&Reply::Uint(seq)))
    }

    fn set_multi(
        &mut self,
        set: &SetMulti<'_>,
        now: u64,
        level: Level,
        seq: u64,
        changed: &mut bool,
    ) -> Vec<u8> {
        let expires_at = set.ttl_ms.map_or(0, |ttl| now + ttl);
        for (key, value) in &set.pairs {
            let cell = Cell { value: value.to_vec(), seq, expires_at, level };
            self.cells.insert(key.to_vec(), cell);
            *changed = true;
        }
        encoded(&Reply::Uint(if set.pairs.is_empty() { self.seq } else { seq }))
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

    fn incr(
        &mut self,
        incr: &Incr<'_>,
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
                let next = if incr.down { number - delta } else { number + delta };
                if next < i128::from(i64::MIN) || next > i128::from(u64::MAX) {
                    return Err(Code::Overflow);
                }
                (next, cell.expires_at)
            }
            None => (incr.initial.ok_or(Code::NotFound)?, 0),
        };
        let expires_at = incr.ttl_ms.map_or(kept, |ttl| now + ttl);
        let value = encoded(&Reply::Int(number));
        self.cells.insert(incr.key.to_vec(), Cell { value: value.clone(), seq, expires_at, level });
        *changed = true;
        Ok(value)
    }

    fn touch(
        &mut self,
        touch: &Touch<'_>,
        now: u64,
        level: Level,
        seq: u64,
        changed: &mut bool,
    ) -> Vec<u8> {
        let found = self.cells.get_mut(touch.key.as_ref()).map(|cell| {
            cell.expires_at = touch.ttl_ms.map_or(0, |ttl| now + ttl);
            (cell.seq, cell.level) = (seq, level);
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

/// A follower that knows nothing but the changes.
fn follow(cells: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: &ChangeBuffer) {
    for change in ChangeReader::new(changes.bytes()) {
        let change = change.unwrap();
        match change.op {
            Op::Set | Op::Touch => cells.insert(change.key.to_vec(), change.value.to_vec()),
            Op::Delete | Op::Expire => cells.remove(change.key),
        };
    }
}

fn context(now: u64) -> Context {
    Context {
        now,
        durability: Level::Synced,
        page_items: 10_000,
        page_bytes: 1 << 20,
        reply_bytes: 1 << 20,
    }
}

fn compare(seed: u64, commands: usize) {
    let mut generator = Generator::new(seed);
    let mut store = Store::default();
    let mut model = Model::default();
    let mut followed = BTreeMap::new();
    let mut now = 1_000_000;
    for step in 0..commands {
        now += generator.pause_ms();
        let owned = generator.command();
        let request = owned.decode();
        let command = request.command.unwrap();
        let mut changes = ChangeBuffer::default();
        model.expire(now);
        store.expire(&context(now), usize::MAX, &mut changes);
        let expected = model.apply(&command, now, Level::Synced);
        let applied = store.apply(&command, &context(now), &mut changes);
        let got =
            applied.reply.map(|reply| encoded(&reply)).map_err(|refusal: Refusal| refusal.code());
        assert_eq!(got, expected, "seed {seed}, step {step}: {command:?}");
        assert_eq!(store.seq(), model.seq, "seed {seed}, step {step}: {command:?}");
        follow(&mut followed, &changes);
    }
    let state: BTreeMap<_, _> = store
        .entries()
        .map(|(key, entry)| {
            let Head { seq, expires_at, level, .. } = entry.head;
            let cell = Cell { value: entry.value.to_vec(), seq, expires_at, level };
            (key.to_vec(), cell)
        })
        .collect();
    assert_eq!(state, model.cells, "seed {seed}: the state");
    let values: BTreeMap<_, _> =
        model.cells.into_iter().map(|(key, cell)| (key, cell.value)).collect();
    assert_eq!(followed, values, "seed {seed}: what a follower of the changes has");
}

#[test]
fn random_commands_do_what_a_plain_map_would() {
    let seeds = std::env::var("VATN_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds: Vec<u64> =
        seeds.map_or_else(|| (0..20).map(|_| fastrand::u64(..)).collect(), |s| vec![s]);
    for seed in seeds {
        println!("seed {seed}");
        compare(seed, 5_000);
    }
}

#[test]
fn a_value_is_kept_byte_for_byte() {
    let mut store = Store::default();
    // 1 as a u16: longer than it need be.
    let value = [0xCD, 0x00, 0x01];
    let set = Set {
        key: (&b"k"[..]).into(),
        value: &value,
        ttl_ms: None,
        condition: None,
        durability: None,
    };
    let mut changes = ChangeBuffer::default();
    assert!(store.apply(&Command::Set(set), &context(1), &mut changes).reply.is_ok());
    let (_, entry) = store.entries().next().unwrap();
    assert_eq!(entry.value, &value);
    assert_eq!(encode_value(&rmpv::Value::from(1)), [0x01]);
}
