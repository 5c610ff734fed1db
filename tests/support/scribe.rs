//! Random writes of all kinds, and the history that they must leave.

use rmpv::Value;
use vatn::client::{Change, Client, Op, RawValue, Request, WriteOptions};

/// The contents of a change, from any source.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    pub seq: u64,
    pub index: u64,
    pub count: u64,
    pub op: Op,
    pub key: Vec<u8>,
    pub value: Option<Value>,
}

/// The contents of a received change.
pub fn known(change: &Change) -> Known {
    Known {
        seq: change.seq,
        index: change.index,
        count: change.count,
        op: change.op,
        key: change.key.to_vec(),
        value: change.value.as_ref().map(RawValue::value),
    }
}

const KEYS: [&[u8]; 8] = [b"a/1", b"a/2", b"a", b"b/1", b"b/2", b"b/12", b"", b"\xfe\xff"];

/// Writes, and remembers the expected history.
pub struct Scribe {
    random: fastrand::Rng,
    keys: Vec<&'static [u8]>,
    written: Vec<Known>,
    present: std::collections::BTreeSet<&'static [u8]>,
    number: u64,
    is_mortal: bool,
    mortals: u64,
}

impl Scribe {
    pub fn new(seed: u64) -> Self {
        Scribe {
            random: fastrand::Rng::with_seed(seed),
            keys: KEYS.to_vec(),
            written: Vec::new(),
            present: std::collections::BTreeSet::new(),
            number: 0,
            is_mortal: false,
            mortals: 0,
        }
    }

    /// A scribe that also sets times to live, with many keys, so that most writes are a key's last.
    /// It does not know what expires.
    pub fn mortal(mut self) -> Self {
        self.is_mortal = true;
        let key = |n: u32| -> &'static [u8] { format!("k{n}").into_bytes().leak() };
        self.keys.extend((0..2_000).map(key));
        self
    }

    /// How many writes had a time to live.
    pub fn mortals(&self) -> u64 {
        self.mortals
    }

    /// The seq of the last write.
    pub fn last_seq(&self) -> u64 {
        self.written.last().map_or(0, |last| last.seq)
    }

    /// The expected history after a seq, under a prefix.
    pub fn after(&self, seq: u64, prefix: &[u8]) -> Vec<Known> {
        let later = self.written.iter().filter(|known| known.seq > seq);
        later.filter(|known| known.key.starts_with(prefix)).cloned().collect()
    }

    fn key(&mut self) -> &'static [u8] {
        self.keys[self.random.usize(..self.keys.len())]
    }

    fn options(&mut self) -> WriteOptions {
        let mut options = WriteOptions::default();
        if self.is_mortal && self.random.u8(..4) == 0 {
            options.ttl_ms = Some(self.random.u64(1..400));
            self.mortals += 1;
        }
        options
    }

    /// A write whose changes all concern the keys and values given.
    fn note(&mut self, seq: u64, changes: Vec<(Op, &'static [u8], Option<u64>)>) {
        let count = changes.len() as u64;
        for (index, (op, key, value)) in changes.into_iter().enumerate() {
            match op {
                Op::Set | Op::Touch => self.present.insert(key),
                Op::Delete | Op::Expire => self.present.remove(key),
            };
            let (index, key, value) = (index as u64, key.to_vec(), value.map(Value::from));
            self.written.push(Known { seq, index, count, op, key, value });
        }
    }

    /// Many writes in one message, which the broker commits together.
    pub async fn burst(&mut self, client: &mut Client) {
        let keys: Vec<_> = (0..40).map(|_| self.key()).collect();
        self.number += 1;
        let (number, value) = (self.number, RawValue::from(self.number));
        let set = |key: &&[u8]| Request::new("set").key(key).argument(&value);
        let requests: Vec<_> = keys.iter().map(set).collect();
        let seqs = client.call_many(&requests).await.unwrap();
        for (key, seq) in keys.into_iter().zip(seqs) {
            let seq = seq.unwrap().value().as_u64().unwrap();
            self.note(seq, vec![(Op::Set, key, Some(number))]);
        }
    }

    /// One write, of one key or of several.
    pub async fn write(&mut self, client: &mut Client) {
        self.number += 1;
        let (number, key, options) = (self.number, self.key(), self.options());
        let value = RawValue::from(number);
        match self.random.u8(..10) {
            0..4 => {
                let seq = client.set(key, &value, &options).await.unwrap();
                self.note(seq, vec![(Op::Set, key, Some(number))]);
            }
            4..6 => {
                let was_there = client.delete(key, &WriteOptions::default()).await.unwrap();
                if self.is_mortal {
                    self.present.remove(key);
                } else {
                    assert_eq!(was_there, self.present.contains(key));
                    if was_there {
                        let seq = client.hello().await.unwrap()["seq"].as_u64().unwrap();
                        self.note(seq, vec![(Op::Delete, key, None)]);
                    }
                }
            }
            6..8 => {
                let keys: Vec<_> = (0..self.random.usize(1..6)).map(|_| self.key()).collect();
                let pairs: Vec<_> = keys.iter().map(|key| (key, value.clone())).collect();
                let seq = client.set_multi(&pairs, &options).await.unwrap();
                self.note(seq, keys.iter().map(|key| (Op::Set, *key, Some(number))).collect());
            }
            8 => {
                let other = self.key();
                let requests = [
                    Request::new("set").key(key).argument(&value),
                    Request::new("touch").key(key).argument(&RawValue::nil()),
                    Request::new("set").key(other).argument(&value),
                    Request::new("delete").key(other),
                ];
                client.batch(&requests, None).await.unwrap();
                let seq = client.hello().await.unwrap()["seq"].as_u64().unwrap();
                if !self.is_mortal {
                    let set = |op, key| (op, key, Some(number));
                    let delete = (Op::Delete, other, None);
                    let changes = vec![
                        set(Op::Set, key),
                        (Op::Touch, key, None),
                        set(Op::Set, other),
                        delete,
                    ];
                    self.note(seq, changes);
                }
            }
            _ => {
                let ttl_ms = if self.is_mortal { Some(self.random.u64(1..400)) } else { None };
                client.touch(key, ttl_ms, &WriteOptions::default()).await.unwrap();
                if !self.is_mortal && self.present.contains(key) {
                    let seq = client.hello().await.unwrap()["seq"].as_u64().unwrap();
                    self.note(seq, vec![(Op::Touch, key, None)]);
                }
            }
        }
    }
}
