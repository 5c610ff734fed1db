//! The history: what changed since a seq.

use super::change::{Change, Op, Publication, decode};
use super::packed::{Packed, key_bytes};
use super::{Client, ClientError, Request};

/// What one `changes` returned.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// The changes, in order. A touch has the value that it left in place.
    pub changes: Vec<Change>,
    /// The answer is complete up to this seq: go on after it.
    pub next: u64,
}

impl Client {
    /// `changes`: what changed after the write `after`, one page of it. When nothing has yet, the
    /// broker waits so long for a change.
    pub async fn changes(&mut self, after: u64, wait_ms: u64) -> Result<History, ClientError> {
        let request = Request::new("changes")
            .argument(&Packed::from(after))
            .option_if("wait_ms", (wait_ms > 0).then_some(wait_ms));
        self.call_for(&request, history).await
    }
}

/// Reads `[[[key, header, value]…], next]`.
fn history(result: &Packed) -> Option<History> {
    let elements = result.elements()?;
    let [changes, next] = elements.as_slice() else { return None };
    let changes = changes.elements()?.iter().map(change).collect::<Option<_>>()?;
    Some(History { changes, next: next.value().as_u64()? })
}

fn change(parts: &Packed) -> Option<Change> {
    let elements = parts.elements()?;
    let [key, header, value] = elements.as_slice() else { return None };
    let read = decode(&[key_bytes(key)?, header.to_bytes(), value.to_bytes()]);
    let Ok(Publication::Change(mut change)) = read else { return None };
    if change.op == Op::Touch {
        change.value = Some(value.clone());
    }
    Some(change)
}
