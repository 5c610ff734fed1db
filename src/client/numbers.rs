//! Counters.

use super::{Client, ClientError, RawValue, Request, WriteOptions};

/// Options of `incr` and `decr`, besides those of every write.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// The amount; 1 when not given.
    pub delta: Option<u64>,
    /// The number that a missing key gets, without the step; if not given, a missing key is
    /// `NOT_FOUND`.
    pub initial: Option<i128>,
}

impl Client {
    /// `incr`: adds to an integer and returns the new number, from -2^63 to 2^64-1.
    pub async fn incr(
        &mut self,
        key: &[u8],
        step: &Step,
        options: &WriteOptions,
    ) -> Result<i128, ClientError> {
        self.step("incr", key, step, options).await
    }

    /// `decr`: subtracts from an integer and returns the new number.
    pub async fn decr(
        &mut self,
        key: &[u8],
        step: &Step,
        options: &WriteOptions,
    ) -> Result<i128, ClientError> {
        self.step("decr", key, step, options).await
    }

    async fn step(
        &mut self,
        method: &str,
        key: &[u8],
        step: &Step,
        options: &WriteOptions,
    ) -> Result<i128, ClientError> {
        let request = Request::new(method)
            .key(key)
            .option_if("delta", step.delta)
            .option_if("initial", step.initial.map(RawValue::integer));
        self.call_for(&options.apply(request), RawValue::as_integer).await
    }
}
