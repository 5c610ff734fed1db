//! The requests that the tests of the command edge send, as frames.

use super::commands::request;
use rmpv::Value;

/// A map of one option.
pub fn option(name: &str, value: impl Into<Value>) -> Value {
    Value::Map(vec![(name.into(), value.into())])
}

pub fn set(id: u64, key: &str, level: &str) -> Vec<u8> {
    request(id, "set", vec![key.into(), id.into(), option("durability", level)]).0
}

pub fn get(id: u64, key: &str) -> Vec<u8> {
    request(id, "get", vec![key.into()]).0
}

pub fn ping(id: u64) -> Vec<u8> {
    request(id, "ping", vec![]).0
}

pub fn wait(id: u64, seq: u64, timeout_ms: u64) -> Vec<u8> {
    request(id, "wait", vec![seq.into(), "stored".into(), option("timeout_ms", timeout_ms)]).0
}
