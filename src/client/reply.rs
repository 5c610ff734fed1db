//! Decodes responses.

use bytes::Bytes;
use rmpv::Value;

use super::error::Refusal;
use super::raw_value::RawValue;

/// A decoded response frame.
#[derive(Debug, PartialEq)]
pub(super) struct Reply {
    /// The request's id; `None` when the broker could not read it.
    pub(super) id: Option<u64>,
    pub(super) outcome: Result<RawValue, Refusal>,
}

/// Decodes `[1, id, error, result]`; the error names the violation.
pub(super) fn decode(frame: &Bytes) -> Result<Reply, &'static str> {
    let whole = RawValue::new(frame.clone()).ok_or("it is not one MessagePack value")?;
    let elements = whole.elements().ok_or("it is not an array")?;
    let [kind, id, error, result] = elements.as_slice() else {
        return Err("it has not four elements");
    };
    if kind.as_bytes() != [1] {
        return Err("its type is not that of a response");
    }
    let id = match id.value() {
        Value::Nil => None,
        other => Some(other.as_u64().ok_or("its id is not a non-negative integer")?),
    };
    let outcome = if error.is_nil() {
        Ok(result.clone())
    } else {
        Err(refusal(&error.value()).ok_or("its error is not [code, message, details]")?)
    };
    Ok(Reply { id, outcome })
}

fn refusal(error: &Value) -> Option<Refusal> {
    let [code, message, details] = error.as_array()?.as_slice() else { return None };
    let details = details.as_map()?;
    Some(Refusal {
        code: code.as_str()?.to_owned(),
        message: message.as_str()?.to_owned(),
        details: details
            .iter()
            .map(|(name, value)| Some((name.as_str()?.to_owned(), value.clone())))
            .collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(value: Value) -> Result<Reply, &'static str> {
        decode(&Bytes::copy_from_slice(RawValue::from(&value).as_bytes()))
    }

    #[test]
    fn a_result_is_read_with_its_id() {
        let read = reply(Value::Array(vec![1.into(), 7.into(), Value::Nil, "ok".into()])).unwrap();
        assert_eq!(read, Reply { id: Some(7), outcome: Ok(RawValue::from("ok")) });
    }

    #[test]
    fn an_error_is_read_with_code_message_and_details() {
        let details = Value::Map(vec![("seq".into(), 9.into())]);
        let error = Value::Array(vec!["CONFLICT".into(), "it is there".into(), details]);
        let read = reply(Value::Array(vec![1.into(), Value::Nil, error, Value::Nil])).unwrap();
        let refusal = read.outcome.unwrap_err();
        assert_eq!((read.id, refusal.code.as_str()), (None, "CONFLICT"));
        assert_eq!(refusal.details, [("seq".to_owned(), 9.into())]);
    }

    #[test]
    fn a_frame_that_is_no_response_is_refused() {
        let error = Value::Array(vec!["CODE".into()]);
        for value in [
            Value::from(1),
            Value::Array(vec![]),
            Value::Array(vec![0.into(), 1.into(), Value::Nil, Value::Nil]),
            Value::Array(vec![1.into(), "id".into(), Value::Nil, Value::Nil]),
            Value::Array(vec![1.into(), 1.into(), error, Value::Nil]),
        ] {
            assert!(reply(value.clone()).is_err(), "{value}");
        }
        assert!(decode(&Bytes::from_static(b"\x94\x01")).is_err());
    }
}
