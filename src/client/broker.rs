//! The broker itself, and commands as a whole.

use rmpv::Value;

use super::{Client, ClientError, Level, RawValue, Request};

impl Client {
    /// `hello`: the broker's identity and limits, as a map.
    pub async fn hello(&mut self) -> Result<Value, ClientError> {
        let name = concat!("vatn ", env!("CARGO_PKG_VERSION"));
        let request = Request::new("hello").option("client", name);
        self.call_for(&request, |result| Some(result.value()).filter(Value::is_map)).await
    }

    /// `ping`: returns the payload.
    pub async fn ping(&mut self, payload: &RawValue) -> Result<RawValue, ClientError> {
        self.call(&Request::new("ping").argument(payload)).await
    }

    /// `batch`: executes the requests as one atomic write; their results in order.
    ///
    /// When one is refused, nothing has happened, and the refusal's details name its index.
    ///
    /// ```no_run
    /// use vatn::client::{Client, ClientError, Level, Request};
    ///
    /// async fn rename(client: &mut Client) -> Result<(), ClientError> {
    ///     let Some(value) = client.get(b"old").await? else { return Ok(()) };
    ///     let requests = [
    ///         Request::new("set").key(b"new").argument(&value).option("if", "absent"),
    ///         Request::new("delete").key(b"old"),
    ///     ];
    ///     client.batch(&requests, Some(Level::Synced)).await?;
    ///     Ok(())
    /// }
    /// ```
    pub async fn batch(
        &mut self,
        requests: &[Request],
        durability: Option<Level>,
    ) -> Result<Vec<RawValue>, ClientError> {
        let request = Request::new("batch")
            .requests(requests)
            .option_if("durability", durability.map(Level::name));
        self.call_for(&request, RawValue::elements).await
    }

    /// `flush`: returns LeakDB's status line once everything queued is in the tables and on the
    /// disk. It waits as long as the connection lives.
    pub async fn flush(&mut self) -> Result<String, ClientError> {
        let status = |result: &RawValue| result.value().as_str().map(str::to_owned);
        self.call_for_within(None, &Request::new("flush"), status).await
    }

    /// `compact`: returns the number of the requested compaction.
    pub async fn compact(&mut self) -> Result<u64, ClientError> {
        self.call_for(&Request::new("compact"), |result| result.value().as_u64()).await
    }

    /// `stats`: the broker's figures, as a map.
    pub async fn stats(&mut self) -> Result<Value, ClientError> {
        let request = Request::new("stats");
        self.call_for(&request, |result| Some(result.value()).filter(Value::is_map)).await
    }
}
