//! Converts between JSON and MessagePack.
//!
//! A value that JSON cannot represent is an object with one member: `{"base64": "…"}` is a byte
//! string, `{"ext": [type, "base64"]}` an extension, and `{"msgpack": "base64"}` any value in its
//! own bytes.

use rmpv::Value;
use serde_json::{Map, Number, Value as Json, json};

use super::base64;
use super::key::is_hidden;
use super::unique_names;
use crate::client::RawValue;
use crate::protocol::writer;

/// Why a text cannot be read or packed.
#[derive(Debug)]
pub(super) enum Unpackable {
    /// It is not JSON.
    Syntax(String),
    /// It is JSON, with content that a value cannot hold.
    Content(String),
}

/// Packs JSON text.
pub(super) fn pack_text(text: &str) -> Result<RawValue, Unpackable> {
    pack(&parse(text.as_bytes())?).map_err(Unpackable::Content)
}

/// Reads JSON text in which names within an object are unique.
pub(super) fn parse(text: &[u8]) -> Result<Json, Unpackable> {
    let json = serde_json::from_slice(text).map_err(|error| {
        let reason = error.to_string();
        match reason.starts_with("recursion limit") {
            true => Unpackable::Content("it is nested too deep".to_owned()),
            false => Unpackable::Syntax(reason),
        }
    })?;
    // The parser keeps the last of several equal names.
    unique_names::check(text).map_err(Unpackable::Content)?;
    Ok(json)
}

/// Packs JSON: integers and floats as they are written, all in their shortest form.
pub(super) fn pack(json: &Json) -> Result<RawValue, String> {
    let mut out = Vec::new();
    write(json, &mut out)?;
    RawValue::new(out).ok_or_else(|| "it is not one value".to_owned())
}

fn write(json: &Json, out: &mut Vec<u8>) -> Result<(), String> {
    match json {
        Json::Null => writer::nil(out),
        Json::Bool(flag) => writer::bool(out, *flag),
        Json::Number(number) => write_number(number, out)?,
        Json::String(text) => writer::str(out, text),
        Json::Array(elements) => {
            writer::array_len(out, elements.len());
            for element in elements {
                write(element, out)?;
            }
        }
        Json::Object(members) => {
            if write_special(members, out)? {
                return Ok(());
            }
            writer::map_len(out, members.len());
            for (name, value) in members {
                writer::str(out, name);
                write(value, out)?;
            }
        }
    }
    Ok(())
}

fn write_number(number: &Number, out: &mut Vec<u8>) -> Result<(), String> {
    let text = number.as_str();
    if text.contains(['.', 'e', 'E']) {
        let float: f64 = text.parse().map_err(|_| format!("{text} is not a number"))?;
        if !float.is_finite() {
            return Err(format!("{text} is too large for a float"));
        }
        out.push(0xcb);
        out.extend_from_slice(&float.to_be_bytes());
        return Ok(());
    }
    let fits = |integer: &i128| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(integer);
    let integer = text.parse().ok().filter(fits);
    writer::int(out, integer.ok_or_else(|| format!("{text} is outside -2^63 to 2^64-1"))?);
    Ok(())
}

/// Writes an object that represents a non-JSON value; returns whether it was one.
fn write_special(members: &Map<String, Json>, out: &mut Vec<u8>) -> Result<bool, String> {
    let mut pairs = members.iter();
    let (Some((name, content)), None) = (pairs.next(), pairs.next()) else { return Ok(false) };
    let decoded = |text: &str| {
        base64::decode(text).ok_or_else(|| format!("the text under \"{name}\" is not base64"))
    };
    match (name.as_str(), content) {
        ("base64", Json::String(text)) => writer::bin(out, &decoded(text)?),
        ("msgpack", Json::String(text)) => {
            let packed = RawValue::new(decoded(text)?)
                .ok_or("the bytes under \"msgpack\" are not one MessagePack value")?;
            out.extend_from_slice(packed.as_bytes());
        }
        ("ext", Json::Array(parts)) => {
            let [Json::Number(kind), Json::String(text)] = parts.as_slice() else {
                return Ok(false);
            };
            let kind = kind.as_i64().and_then(|kind| i8::try_from(kind).ok());
            let kind = kind.ok_or("an ext's type is a number from -128 to 127")?;
            let ext = RawValue::from(&Value::Ext(kind, decoded(text)?));
            out.extend_from_slice(ext.as_bytes());
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Shows a value as JSON, for people: close to the value, and not always convertible back.
pub(super) fn show(value: &Value) -> Json {
    match value {
        Value::Nil => Json::Null,
        Value::Boolean(flag) => (*flag).into(),
        Value::Integer(integer) => match integer.as_u64() {
            Some(number) => number.into(),
            None => integer.as_i64().into(),
        },
        Value::F32(float) => f64::from(*float).into(),
        Value::F64(float) => (*float).into(),
        Value::String(text) => match text.as_str() {
            Some(text) => text.into(),
            None => json!({ "base64": base64::encode(text.as_bytes()) }),
        },
        Value::Binary(bytes) => json!({ "base64": base64::encode(bytes) }),
        Value::Array(elements) => elements.iter().map(show).collect(),
        Value::Map(pairs) => {
            let member = |(key, value): &(Value, Value)| {
                let name = key.as_str().map_or_else(|| show(key).to_string(), str::to_owned);
                (name, show(value))
            };
            Json::Object(pairs.iter().map(member).collect())
        }
        Value::Ext(kind, bytes) => json!({ "ext": [kind, base64::encode(bytes)] }),
    }
}

/// Shows a value as JSON from which [`pack_text`] makes the same bytes again. The result is read
/// back to check, since the parser interprets objects with special names.
pub(super) fn exact(packed: &RawValue) -> Json {
    let shown = show(&packed.value());
    match pack_text(&shown.to_string()) {
        Ok(again) if again == *packed => shown,
        _ => json!({ "msgpack": base64::encode(packed.as_bytes()) }),
    }
}

/// Shows a key as JSON from which [`key_bytes`] makes the same bytes again.
pub(super) fn key(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "base64": base64::encode(bytes) }),
    }
}

/// Reads a key: a string, or an object with `base64`.
pub(super) fn key_bytes(json: &Json) -> Result<Vec<u8>, String> {
    let coded = || match json.as_object()?.iter().collect::<Vec<_>>().as_slice() {
        [(name, Json::String(text))] if *name == "base64" => base64::decode(text),
        _ => None,
    };
    match json {
        Json::String(text) => Ok(text.clone().into_bytes()),
        _ => coded().ok_or_else(|| "a key is a string or {\"base64\": \"…\"}".to_owned()),
    }
}

/// Shows a value as JSON in a line for people.
pub(super) fn line(value: &Value) -> String {
    readable(show(value).to_string())
}

/// JSON in which invisible characters are escaped.
pub(super) fn readable(json: String) -> String {
    let is_odd = |c: char| is_hidden(c) && c != '\n';
    if !json.contains(is_odd) {
        return json;
    }
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if is_odd(character) {
            let units = character.encode_utf16(&mut [0; 2]).to_vec();
            text.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(value: Value) -> RawValue {
        RawValue::from(&value)
    }

    #[test]
    fn plain_json_survives_packing_unchanged() {
        for text in [
            r#"null"#,
            r#"[true,false]"#,
            r#"{"b":1,"a":-1}"#,
            r#"[0,127,128,18446744073709551615,-9223372036854775808]"#,
            r#"[1.0,-0.0,1e+300,0.1]"#,
            r#""Ærøskøbing 🎉""#,
            r#"{"base64":"/w=="}"#,
            r#"{"ext":[-1,"AAAAAA=="]}"#,
        ] {
            assert_eq!(exact(&pack_text(text).unwrap()).to_string(), text);
        }
    }

    #[test]
    fn a_number_keeps_its_written_type() {
        assert_eq!(pack_text("1").unwrap(), packed(1.into()));
        assert_eq!(pack_text("1.0").unwrap(), packed(1.0_f64.into()));
        for text in ["18446744073709551616", "-9223372036854775809", "1e+999"] {
            let refused = pack_text(text).unwrap_err();
            assert!(matches!(refused, Unpackable::Content(reason) if reason.contains(text)));
        }
    }

    #[test]
    fn values_that_json_cannot_represent_keep_their_bytes() {
        let pair = |key: Value| Value::Map(vec![(key, 1.into())]);
        let mut values: Vec<RawValue> = vec![
            packed(1.5_f32.into()),
            packed(f64::NAN.into()),
            packed(pair(7.into())),
            packed(pair(Value::Binary(vec![1]))),
            packed(Value::Map(vec![("base64".into(), "Zg==".into())])),
            packed(Value::Map(vec![("$serde_json::private::Number".into(), "5".into())])),
            packed(Value::Map(vec![("$serde_json::private::Number".into(), "x".into())])),
            packed(Value::Map(vec![("a".into(), 1.into()), ("a".into(), 2.into())])),
        ];
        values.push(RawValue::new(vec![0xcd, 0, 1]).unwrap());
        values.push(RawValue::new(vec![0xd9, 1, 0xff]).unwrap());
        for value in values {
            let shown = exact(&value);
            assert!(shown.get("msgpack").is_some(), "{shown}");
            assert_eq!(pack(&shown).unwrap(), value);
        }
    }

    #[test]
    fn an_object_that_only_looks_special_is_an_ordinary_map() {
        for text in [r#"{"base64":1}"#, r#"{"ext":[]}"#, r#"{"base64":"/w==","more":1}"#] {
            assert!(pack_text(text).unwrap().value().is_map(), "{text}");
        }
        for text in [r#"{"base64":"!"}"#, r#"{"msgpack":"wQ=="}"#, &"[".repeat(200)] {
            assert!(matches!(pack_text(text).unwrap_err(), Unpackable::Content(_)), "{text}");
        }
        assert!(matches!(pack_text("{a}").unwrap_err(), Unpackable::Syntax(_)));
    }

    #[test]
    fn printed_json_never_controls_a_terminal() {
        let value = Value::from("a\u{1b}[2J\u{9b}\u{202e}é\u{e0041}");
        let shown = line(&value);
        assert!(!shown.contains(is_hidden), "{shown}");
        assert_eq!(pack_text(&shown).unwrap(), packed(value));
    }

    #[test]
    fn every_key_comes_back() {
        for bytes in [b"".as_slice(), b"plain", b"\xff\xfe", "é".as_bytes()] {
            assert_eq!(key_bytes(&key(bytes)).unwrap(), bytes);
        }
        assert!(key_bytes(&json!(1)).is_err());
    }
}
