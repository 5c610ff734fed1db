//! Prints and reads changes as lines, and the mark that says up to which seq the lines are
//! complete.

use serde_json::{Value as Json, json};

use super::output::Output;
use super::{Failure, json, key};
use crate::client::{Change, Op, RawValue};

/// Prints a change in one line: `812  set  key  value`, or an object that `vatn import` reads.
pub(super) fn print(change: &Change, out: &mut Output) -> Result<(), Failure> {
    if out.json {
        return out.json(&described(change));
    }
    let key = key::show(&change.key);
    let start = format!("{}\t{}\t{key}", change.seq, change.op.name());
    match (&change.value, change.op) {
        (Some(value), Op::Set) => out.line(format!("{start}\t{}", json::line(&value.value()))),
        (_, Op::Touch) => match change.ttl_ms {
            Some(ttl_ms) => out.line(format!("{start}\t{ttl_ms} ms left")),
            None => out.line(format!("{start}\tno end")),
        },
        _ => out.line(start),
    }
}

/// A change as an object.
pub(super) fn described(change: &Change) -> Json {
    json!({
        "seq": change.seq,
        "op": change.op.name(),
        "index": change.index,
        "count": change.count,
        "prev": change.prev,
        "ttl_ms": change.ttl_ms,
        "level": change.durability.name(),
        "key": json::key(&change.key),
        "value": change.value.as_ref().map_or(Json::Null, json::exact),
    })
}

/// The line that ends an export or a replay: the lines before it are the state at `seq`, or all
/// changes up to it.
pub(super) fn mark(what: &str, seq: u64, lines: u64) -> Json {
    json!({ "vatn": what, "seq": seq, "lines": lines })
}

/// The action of a line on a key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// Set it.
    Set {
        /// The value.
        value: RawValue,
        /// The time to live.
        ttl_ms: Option<u64>,
    },
    /// Change its time to live, and keep its value.
    Touch {
        /// The time to live.
        ttl_ms: Option<u64>,
    },
    /// Delete it.
    Delete,
}

/// A line of an import.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    /// An item or a change.
    Item {
        /// The key.
        key: Vec<u8>,
        /// The action on the key.
        action: Action,
        /// For a change that is not the last of its write: the write's seq.
        goes_on: Option<u64>,
    },
    /// An item whose time to live is over.
    Expired,
    /// The lines before it are complete.
    Mark {
        /// Up to this seq.
        seq: u64,
        /// How many lines there are, since an earlier mark if there is one.
        lines: Option<u64>,
    },
}

const ITEM: &str = "{\"key\": …, \"value\": …}";
/// The members of an item; a change has `op` and further ones.
const MEMBERS: [&str; 9] =
    ["key", "value", "ttl_ms", "op", "seq", "index", "count", "prev", "level"];

/// Reads a line of an import.
pub(super) fn read(line: &Json) -> Result<Line, String> {
    let members = line.as_object().ok_or_else(|| format!("a line is {ITEM}"))?;
    if members.contains_key("vatn") {
        let seq = members.get("seq").and_then(Json::as_u64).ok_or("a mark without its seq")?;
        return Ok(Line::Mark { seq, lines: members.get("lines").and_then(Json::as_u64) });
    }
    let known = if members.contains_key("op") { &MEMBERS[..] } else { &MEMBERS[..3] };
    if let Some(name) = members.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("unknown member \"{name}\": a line is {ITEM}"));
    }
    let member =
        |name: &str| members.get(name).ok_or_else(|| format!("the member \"{name}\" is missing"));
    let number = |name: &str| match members.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(given) => {
            let number = given.as_u64().map(Some);
            number.ok_or_else(|| format!("\"{name}\" is not a whole number from 0 on: {given}"))
        }
    };
    let key = json::key_bytes(member("key")?)?;
    let has_no_time = number("ttl_ms")? == Some(0);
    if has_no_time && !members.contains_key("op") {
        json::pack(member("value")?)?;
        return Ok(Line::Expired);
    }
    let action = match members.get("op").map(|op| op.as_str().unwrap_or_default()) {
        Some("set" | "touch") if has_no_time => Action::Delete,
        Some("touch") if members.get("value").is_none_or(Json::is_null) => {
            Action::Touch { ttl_ms: number("ttl_ms")? }
        }
        // Older brokers sent the value with a touch.
        None | Some("set" | "touch") => {
            Action::Set { value: json::pack(member("value")?)?, ttl_ms: number("ttl_ms")? }
        }
        Some("delete" | "expire") => Action::Delete,
        Some(other) => return Err(format!("unknown op \"{other}\"")),
    };
    let is_last = match (number("index")?, number("count")?) {
        (Some(index), Some(count)) => index.saturating_add(1) >= count,
        _ => true,
    };
    let goes_on = if is_last { None } else { number("seq")? };
    Ok(Line::Item { key, action, goes_on })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<Line, String> {
        read(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn an_invalid_line_is_refused_with_its_fault() {
        for (text, reason) in [
            ("1", "a line is"),
            (r#"{"key":"k"}"#, "\"value\" is missing"),
            (r#"{"value":1}"#, "\"key\" is missing"),
            (r#"{"key":"k","value":1,"vlaue":2}"#, "unknown member \"vlaue\""),
            (r#"{"key":"k","value":1,"seq":2}"#, "unknown member \"seq\""),
            (r#"{"gap":{"after":1,"through":2}}"#, "unknown member \"gap\""),
            (r#"{"key":1,"value":1}"#, "a key is a string"),
            (r#"{"key":"k","value":1e999}"#, "too large"),
            (
                r#"{"key":"k","value":1,"ttl_ms":-1}"#,
                "\"ttl_ms\" is not a whole number from 0 on: -1",
            ),
            (r#"{"key":"k","value":1,"ttl_ms":-0}"#, "\"ttl_ms\" is not a whole number"),
            (r#"{"key":"k","value":1,"ttl_ms":0.0}"#, "\"ttl_ms\" is not a whole number"),
            (r#"{"key":"k","value":1,"ttl_ms":1.5}"#, "\"ttl_ms\" is not a whole number"),
            (r#"{"key":"k","value":1,"ttl_ms":"5"}"#, "\"ttl_ms\" is not a whole number"),
            (r#"{"key":"k","value":1,"ttl_ms":true}"#, "\"ttl_ms\" is not a whole number"),
            (r#"{"key":"k","value":1,"ttl_ms":18446744073709551616}"#, "is not a whole number"),
            (r#"{"key":"k","value":1e999,"ttl_ms":0}"#, "too large"),
            (r#"{"key":"k","ttl_ms":0}"#, "\"value\" is missing"),
            (r#"{"key":"k","op":"paint"}"#, "unknown op \"paint\""),
            (r#"{"key":"k","op":"set"}"#, "\"value\" is missing"),
            (r#"{"vatn":"export"}"#, "without its seq"),
        ] {
            let error = line(text).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn items_changes_and_marks_are_read() {
        let set = |value: u64, ttl_ms| Action::Set { value: RawValue::from(value), ttl_ms };
        let touch = Action::Touch { ttl_ms: Some(5) };
        for (text, action, goes_on) in [
            (r#"{"key":"k","value":1}"#, set(1, None), None),
            (r#"{"key":"k","value":1,"ttl_ms":5}"#, set(1, Some(5)), None),
            (r#"{"op":"touch","key":"k","value":1,"ttl_ms":null}"#, set(1, None), None),
            (r#"{"op":"set","key":"k","value":1,"ttl_ms":0}"#, Action::Delete, None),
            (r#"{"op":"touch","key":"k","ttl_ms":0}"#, Action::Delete, None),
            (r#"{"op":"touch","key":"k","value":null,"ttl_ms":5}"#, touch, None),
            (r#"{"op":"delete","key":"k","value":null}"#, Action::Delete, None),
            (
                r#"{"op":"delete","key":"k","seq":7,"index":18446744073709551615,"count":2}"#,
                Action::Delete,
                None,
            ),
            (r#"{"seq":7,"op":"expire","index":0,"count":2,"key":"k"}"#, Action::Delete, Some(7)),
            (r#"{"seq":7,"op":"expire","index":1,"count":2,"key":"k"}"#, Action::Delete, None),
        ] {
            let expected = Line::Item { key: b"k".to_vec(), action, goes_on };
            assert_eq!(line(text), Ok(expected), "{text}");
        }
        assert_eq!(line(r#"{"key":"k","value":1,"ttl_ms":0}"#), Ok(Line::Expired));
        assert_eq!(read(&mark("export", 12, 3)), Ok(Line::Mark { seq: 12, lines: Some(3) }));
    }
}
