//! Checks that names within each object of a JSON text are unique.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Reports a name that an object of `text` has twice, and its place.
pub(super) fn check(text: &[u8]) -> Result<(), String> {
    serde_json::from_slice(text).map(|Unique| ()).map_err(|error| error.to_string())
}

/// A value without such an object; its content is discarded.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Unique)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self, A::Error> {
        while elements.next_element::<Unique>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let Some(first) = members.next_key::<String>()? else { return Ok(self) };
        members.next_value::<Unique>()?;
        let Some(second) = members.next_key::<String>()? else { return Ok(self) };
        let mut names = HashSet::from([first]);
        let mut next = Some(second);
        while let Some(name) = next {
            if names.contains(&name) {
                let shown = serde_json::Value::from(name);
                return Err(A::Error::custom(format!("an object has the name {shown} twice")));
            }
            names.insert(name);
            members.next_value::<Unique>()?;
            next = members.next_key()?;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_name_is_reported_at_any_depth() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"b":{"x":[{"a":1.5,"c":null,"a":-2e300}]}}"#,
            r#"[true,{"a":{"a":1},"c":"a","\u0061":1}]"#,
            r#"{"c":18446744073709551617,"a":1,"d":{},"a":1}"#,
        ] {
            let reason = check(text.as_bytes()).unwrap_err();
            assert!(
                reason.starts_with(r#"an object has the name "a" twice at line 1"#),
                "{reason}"
            );
        }
    }

    #[test]
    fn different_objects_may_use_the_same_name() {
        for text in [
            r#"[{"a":1},{"a":1},{"a":{"a":{"a":1},"b":1},"b":[1,1.5,"",null,true,[],{}]}]"#,
            "18446744073709551617",
            "{}",
        ] {
            assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        }
    }
}
