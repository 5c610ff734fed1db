//! Reads the history continuously, over a connection that is made again when it is lost.

use std::time::Duration;

use rmpv::Value;

use super::change::Change;
use super::{Client, ClientError, ClientOptions, HistoryOptions};

/// A position in the history of one store, and a reader of the changes after it.
///
/// A lost connection is an error of [`Replay::next`]; another call continues where the last one
/// ended. Each new connection checks that the history is still the same.
///
/// ```no_run
/// use std::time::Duration;
/// use vatn::client::{ClientError, ClientOptions, Replay};
///
/// /// The number of changes that the broker's history holds.
/// async fn count() -> Result<usize, ClientError> {
///     let options = ClientOptions::default();
///     let mut history = Replay::new("tcp://127.0.0.1:7533", b"", 0, &options);
///     let mut count = 0;
///     loop {
///         match history.next(None, Duration::ZERO).await?.len() {
///             0 => return Ok(count),
///             more => count += more,
///         }
///     }
/// }
/// ```
pub struct Replay {
    endpoint: String,
    patience: ClientOptions,
    prefix: Vec<u8>,
    /// Everything up to this seq has been read.
    after: u64,
    /// The last change that was read.
    prev: u64,
    client: Option<Client>,
    /// The store's id, and its seq when the connection was made.
    store: Option<(String, u64)>,
}

impl Replay {
    /// The changes under `prefix` of writes later than `after`. Nothing is connected yet.
    pub fn new(endpoint: &str, prefix: &[u8], after: u64, patience: &ClientOptions) -> Self {
        Replay {
            endpoint: endpoint.to_owned(),
            patience: patience.clone(),
            prefix: prefix.to_vec(),
            after,
            prev: after,
            client: None,
            store: None,
        }
    }

    /// The endpoint of the history.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The seq up to which everything has been read.
    pub fn after(&self) -> u64 {
        self.after
    }

    /// Continues from another position.
    pub fn rewind(&mut self, after: u64) {
        (self.after, self.prev) = (after, after);
    }

    /// The broker's last seq when the connection was made; connects if there is no connection.
    pub async fn end(&mut self) -> Result<u64, ClientError> {
        self.connected().await?;
        Ok(self.store.as_ref().map_or(0, |(_, seq)| *seq))
    }

    /// The next changes: up to `limit` of them, in whole writes; none when none came within `wait`.
    /// The `prev` of each is the seq of the change before it, across all calls.
    pub async fn next(
        &mut self,
        limit: Option<u64>,
        wait: Duration,
    ) -> Result<Vec<Change>, ClientError> {
        let options = HistoryOptions { prefix: self.prefix.clone(), limit, wait };
        let after = self.after;
        let read = self.connected().await?.changes(after, &options).await;
        let mut page = read.inspect_err(|error| self.hear(error))?;
        for change in &mut page.changes {
            change.prev = std::mem::replace(&mut self.prev, change.seq);
        }
        self.after = page.next.max(self.after);
        Ok(page.changes)
    }

    fn hear(&mut self, error: &ClientError) {
        if error.is_passing() {
            self.client = None;
        }
    }

    async fn connected(&mut self) -> Result<&mut Client, ClientError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let mut client = Client::connect(&self.endpoint, &self.patience).await?;
                let (id, seq) = store(&client.hello().await?);
                let is_other = self.store.as_ref().is_some_and(|(known, _)| *known != id);
                if is_other || seq < self.after {
                    return Err(ClientError::AnotherHistory {
                        endpoint: self.endpoint.clone(),
                        seq,
                        after: self.after,
                    });
                }
                self.store = Some((id, seq));
                client
            }
        };
        Ok(self.client.insert(client))
    }
}

/// The store's id and its last seq.
fn store(hello: &Value) -> (String, u64) {
    let id = hello["store_id"].as_str().unwrap_or_default().to_owned();
    (id, hello["seq"].as_u64().unwrap_or_default())
}
