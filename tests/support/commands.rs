//! Random commands from a seed: few keys, so that they collide; all kinds of commands.

use rmpv::Value;
use vatn::commands::Request;

/// A request as bytes, to be decoded where it is used.
pub struct OwnedCommand(pub Vec<u8>);

impl OwnedCommand {
    pub fn decode(&self) -> Request<'_> {
        Request::decode(&self.0)
    }
}

pub fn encode_value(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    rmpv::encode::write_value(&mut out, value).unwrap();
    out
}

/// The request `[0, id, method, params]`.
pub fn request(id: u64, method: &str, params: Vec<Value>) -> OwnedCommand {
    let envelope = Value::Array(vec![
        Value::from(0),
        Value::from(id),
        Value::from(method),
        Value::Array(params),
    ]);
    OwnedCommand(encode_value(&envelope))
}

fn has(options: &[(Value, Value)], name: &str) -> bool {
    options.iter().any(|(given, _)| given.as_str() == Some(name))
}

/// A source of random commands.
pub struct Generator {
    random: fastrand::Rng,
    next_id: u64,
    /// Only writes with a visible effect that can be counted.
    pub writes_only: bool,
}

const LEVELS: [&str; 4] = ["memory", "queued", "stored", "synced"];

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), next_id: 0, writes_only: false }
    }

    pub fn random(&mut self) -> &mut fastrand::Rng {
        &mut self.random
    }

    pub fn pause_ms(&mut self) -> u64 {
        if self.random.u8(..4) == 0 { self.random.u64(..40) } else { 0 }
    }

    pub fn command(&mut self) -> OwnedCommand {
        self.next_id += 1;
        let (method, params) =
            if self.random.u8(..8) == 0 { self.batch() } else { self.single(true) };
        request(self.next_id, &method, params)
    }

    fn key(&mut self) -> Value {
        let keys = ["", "a", "b", "ba", "bb", "c", "ca", "n1", "n2", "n3"];
        let key = keys[self.random.usize(..keys.len())];
        if self.random.bool() { Value::from(key) } else { Value::Binary(key.as_bytes().to_vec()) }
    }

    fn value(&mut self) -> Value {
        match self.random.u8(..5) {
            0 => Value::from(self.random.i64(-300..300)),
            1 => Value::from(u64::MAX - self.random.u64(..3)),
            2 => Value::from(i64::MIN + self.random.i64(0..3)),
            3 => Value::from("text"),
            _ => Value::Array(vec![Value::Nil, Value::from(self.random.u32(..))]),
        }
    }

    fn options(&mut self, outer: bool, known: &[&str]) -> Option<Value> {
        let mut options = Vec::new();
        for name in known {
            if self.random.u8(..4) != 0 {
                continue;
            }
            let value = match *name {
                "ttl_ms" => Value::from(self.random.u64(1..200)),
                // A write with a passed expiry leaves no trace.
                "expires_at_ms" if self.writes_only || has(&options, "ttl_ms") => continue,
                "expires_at_ms" => Value::from(self.random.u64(900_000..1_400_000)),
                "durability" if !outer => continue,
                "durability" => Value::from(LEVELS[self.random.usize(..4)]),
                "if" => match self.random.u8(..3) {
                    0 => Value::from("present"),
                    1 => Value::from("absent"),
                    _ => Value::from(self.random.u64(..50)),
                },
                "if_delete" => Value::from("present"),
                "delta" => Value::from(self.random.u64(..5)),
                "initial" => Value::from(self.random.i64(-5..5)),
                "limit" => Value::from(self.random.u64(1..6)),
                "meta" | "return_value" | "reverse" | "keys_only" => {
                    Value::from(self.random.bool())
                }
                _ => self.key(),
            };
            options.push((Value::from(name.trim_end_matches("_delete")), value));
        }
        (!options.is_empty()).then_some(Value::Map(options))
    }

    fn single(&mut self, outer: bool) -> (String, Vec<Value>) {
        let method = if self.writes_only {
            [
                "set",
                "set",
                "set_multi",
                "delete",
                "delete_multi",
                "delete_range",
                "incr",
                "touch",
                "append",
            ][self.random.usize(..9)]
        } else {
            [
                "get",
                "get_multi",
                "set",
                "set_multi",
                "delete",
                "delete_multi",
                "incr",
                "decr",
                "touch",
                "range",
                "count",
                "delete_range",
                "append",
            ][self.random.usize(..13)]
        };
        let few = self.random.usize(..4);
        let (mut params, known): (Vec<Value>, &[&str]) = match method {
            "get" => (vec![self.key()], &["meta"]),
            "get_multi" => (vec![(0..few).map(|_| self.key()).collect::<Vec<_>>().into()], &[]),
            "set" => {
                let known = &["ttl_ms", "expires_at_ms", "if", "durability", "return_value"];
                (vec![self.key(), self.value()], known)
            }
            "set_multi" => {
                let pairs: Vec<Value> =
                    (0..few).map(|_| Value::Array(vec![self.key(), self.value()])).collect();
                (vec![pairs.into()], &["ttl_ms", "expires_at_ms", "durability"])
            }
            "delete" => (vec![self.key()], &["return_value", "if_delete", "durability"]),
            "delete_multi" => {
                (vec![(0..few).map(|_| self.key()).collect::<Vec<_>>().into()], &["durability"])
            }
            "incr" | "decr" | "append" | "touch" => self.change(method),
            "range" => (vec![], &["from", "after", "to", "prefix", "limit", "reverse", "meta"]),
            "delete_range" => (vec![], &["to", "after", "limit", "durability"]),
            _ => (vec![], &["prefix"]),
        };
        let mut options = self.options(outer, known);
        if method == "delete_range" {
            let bound = if self.random.bool() { "prefix" } else { "from" };
            let bound = (Value::from(bound), self.key());
            match &mut options {
                Some(Value::Map(options)) => options.push(bound),
                options => *options = Some(Value::Map(vec![bound])),
            }
        }
        params.extend(options);
        (method.to_owned(), params)
    }

    /// The arguments and options of a command that changes existing keys.
    fn change(&mut self, method: &str) -> (Vec<Value>, &'static [&'static str]) {
        match method {
            "append" => {
                let is_text = self.random.bool();
                let more = if is_text { Value::from("é") } else { Value::Binary(vec![7]) };
                (vec![self.key(), more], &["ttl_ms", "expires_at_ms", "if", "durability"])
            }
            "touch" if self.random.bool() => {
                (vec![self.key(), Value::Nil], &["expires_at_ms", "durability"])
            }
            "touch" => (vec![self.key(), self.random.u64(1..200).into()], &["durability"]),
            _ => {
                let known = &["delta", "initial", "ttl_ms", "expires_at_ms", "durability"];
                (vec![self.key()], known)
            }
        }
    }

    fn batch(&mut self) -> (String, Vec<Value>) {
        let few = self.random.usize(..5);
        let commands: Vec<Value> = (0..few)
            .map(|_| {
                let (method, params) = self.single(false);
                Value::Array(vec![Value::from(method), Value::Array(params)])
            })
            .collect();
        let mut params = vec![Value::Array(commands)];
        params.extend(self.options(true, &["durability"]));
        ("batch".to_owned(), params)
    }
}
