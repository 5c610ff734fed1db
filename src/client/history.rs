//! The history: the changes since a seq, and the progress of writes.

use std::time::Duration;

use super::change::{Change, Publication, decode};
use super::raw_value::{RawValue, key_bytes};
use super::{Client, ClientError, Level, Request};

/// The options of `changes`, besides the seq after which it begins.
#[derive(Debug, Clone, Default)]
pub struct HistoryOptions {
    /// Only changes of keys that begin with these bytes.
    pub prefix: Vec<u8>,
    /// The most changes; the broker also limits the count and the bytes. A write's changes stay
    /// together.
    pub limit: Option<u64>,
    /// How long the broker waits for a change when there is none yet.
    pub wait: Duration,
}

/// The result of one `changes`.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// The result is complete up to this seq: continue after it.
    pub next: u64,
}

impl Client {
    /// `changes`: one page of the changes after the write `after`.
    pub async fn changes(
        &mut self,
        after: u64,
        options: &HistoryOptions,
    ) -> Result<History, ClientError> {
        let prefix = (!options.prefix.is_empty()).then(|| RawValue::key(&options.prefix));
        let wait_ms = milliseconds(options.wait);
        let request = Request::new("changes")
            .argument(&RawValue::from(after))
            .option_if("prefix", prefix)
            .option_if("limit", options.limit)
            .option_if("wait_ms", (wait_ms > 0).then_some(wait_ms));
        let limit = self.reply_timeout.map(|patience| patience.saturating_add(options.wait));
        self.call_for_within(limit, &request, history).await
    }

    /// `wait`: true once every write up to `seq` has reached `level`, false when that took longer
    /// than `timeout`. Without a timeout it waits as long as the connection lives.
    ///
    /// Writes at a low level can be confirmed together, later:
    ///
    /// ```no_run
    /// use vatn::client::{Client, ClientError, Level, RawValue, WriteOptions};
    ///
    /// async fn load(client: &mut Client, keys: &[&[u8]]) -> Result<(), ClientError> {
    ///     let (mut last, value) = (0, RawValue::from(true));
    ///     for key in keys {
    ///         last = client.set(key, &value, &WriteOptions::durability(Level::Queued)).await?;
    ///     }
    ///     client.wait(last, Level::Synced, None).await?;
    ///     Ok(())
    /// }
    /// ```
    pub async fn wait(
        &mut self,
        seq: u64,
        level: Level,
        timeout: Option<Duration>,
    ) -> Result<bool, ClientError> {
        let request = Request::new("wait")
            .argument(&RawValue::from(seq))
            .argument(&RawValue::from(level.name()))
            .option_if("timeout_ms", timeout.map(milliseconds));
        let limit = self.reply_timeout.zip(timeout);
        let limit = limit.map(|(patience, timeout)| patience.saturating_add(timeout));
        self.call_for_within(limit, &request, |result| result.value().as_bool()).await
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Reads `[[[key, header, value]…], next]`.
fn history(result: &RawValue) -> Option<History> {
    let elements = result.elements()?;
    let [changes, next] = elements.as_slice() else { return None };
    let changes = changes.elements()?.iter().map(change).collect::<Option<_>>()?;
    Some(History { changes, next: next.value().as_u64()? })
}

fn change(parts: &RawValue) -> Option<Change> {
    let elements = parts.elements()?;
    let [key, header, value] = elements.as_slice() else { return None };
    match decode(&[key_bytes(key)?, header.to_bytes(), value.to_bytes()]) {
        Ok(Publication::Change(change)) => Some(change),
        _ => None,
    }
}
