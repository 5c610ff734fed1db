//! Values under keys: read, write, delete.

use std::time::Duration;

use bytes::Bytes;

use super::raw_value::{RawValue, key_bytes};
use super::{Client, ClientError, Level, Request, WriteOptions};

/// A value with the broker's metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The value.
    pub value: RawValue,
    /// The sequence number of the write that set it.
    pub seq: u64,
    /// The remaining time to live, in milliseconds; `None` when the value does not expire.
    pub ttl_ms: Option<u64>,
    /// The level of the write.
    pub durability: Level,
}

impl Client {
    /// `get`: the value of a key. A stored nil and an absent key look the same here;
    /// [`Client::entry`] distinguishes them.
    pub async fn get(&mut self, key: &[u8]) -> Result<Option<RawValue>, ClientError> {
        let result = self.call(&Request::new("get").key(key)).await?;
        Ok((!result.is_nil()).then_some(result))
    }

    /// `get` with `meta`: the value of a key with its sequence number, its time to live and its
    /// level.
    pub async fn entry(&mut self, key: &[u8]) -> Result<Option<Entry>, ClientError> {
        let request = Request::new("get").key(key).option("meta", true);
        let result = self.call(&request).await?;
        if result.is_nil() {
            return Ok(None);
        }
        let entry = entry(&result).ok_or_else(|| self.protocol("get's meta is not an entry"))?;
        Ok(Some(entry))
    }

    /// `get` with `meta` of many keys, in one message.
    pub async fn entries<K: AsRef<[u8]>>(
        &mut self,
        keys: &[K],
    ) -> Result<Vec<Option<Entry>>, ClientError> {
        let get = |key: &K| Request::new("get").key(key.as_ref()).option("meta", true);
        let requests: Vec<Request> = keys.iter().map(get).collect();
        let mut entries = Vec::with_capacity(keys.len());
        for outcome in self.call_many(&requests).await? {
            let result = outcome?;
            let strange = || self.protocol("get's meta is not an entry");
            let is_absent = result.is_nil();
            entries.push(if is_absent { None } else { Some(entry(&result).ok_or_else(strange)?) });
        }
        Ok(entries)
    }

    /// `get_multi`: the existing keys with their values, in the order of the request.
    pub async fn get_multi<K: AsRef<[u8]>>(
        &mut self,
        keys: &[K],
    ) -> Result<Vec<(Bytes, RawValue)>, ClientError> {
        let result = self.call(&Request::new("get_multi").keys(keys)).await?;
        pairs(&result).ok_or_else(|| self.protocol("get_multi's result is not pairs"))
    }

    /// `set`: writes a value and returns its sequence number.
    pub async fn set(
        &mut self,
        key: &[u8],
        value: &RawValue,
        options: &WriteOptions,
    ) -> Result<u64, ClientError> {
        let request = options.apply(Request::new("set").key(key).argument(value));
        self.call_for(&request, |result| result.value().as_u64()).await
    }

    /// `set` with `return_value`: writes a value and returns the previous one.
    pub async fn replace(
        &mut self,
        key: &[u8],
        value: &RawValue,
        options: &WriteOptions,
    ) -> Result<Option<RawValue>, ClientError> {
        let request = Request::new("set").key(key).argument(value).option("return_value", true);
        let result = self.call(&options.apply(request)).await?;
        Ok((!result.is_nil()).then_some(result))
    }

    /// `set_multi`: writes many values as one atomic write and returns its sequence number.
    pub async fn set_multi<K: AsRef<[u8]>>(
        &mut self,
        pairs: &[(K, RawValue)],
        options: &WriteOptions,
    ) -> Result<u64, ClientError> {
        let request = options.apply(Request::new("set_multi").pairs(pairs));
        self.call_for(&request, |result| result.value().as_u64()).await
    }

    /// `append`: appends text or bytes to a value, or makes them the value of a missing key.
    /// Returns the new length of the value, in bytes.
    pub async fn append(
        &mut self,
        key: &[u8],
        bytes: &RawValue,
        options: &WriteOptions,
    ) -> Result<u64, ClientError> {
        let request = options.apply(Request::new("append").key(key).argument(bytes));
        self.call_for(&request, |result| result.value().as_u64()).await
    }

    /// `delete`: returns whether the key existed.
    pub async fn delete(
        &mut self,
        key: &[u8],
        options: &WriteOptions,
    ) -> Result<bool, ClientError> {
        let request = options.apply(Request::new("delete").key(key));
        self.call_for(&request, |result| result.value().as_bool()).await
    }

    /// `delete` with `return_value`: returns the deleted value.
    pub async fn take(
        &mut self,
        key: &[u8],
        options: &WriteOptions,
    ) -> Result<Option<RawValue>, ClientError> {
        let request = Request::new("delete").key(key).option("return_value", true);
        let result = self.call(&options.apply(request)).await?;
        Ok((!result.is_nil()).then_some(result))
    }

    /// `delete_multi`: deletes many keys as one atomic write; returns how many existed.
    pub async fn delete_multi<K: AsRef<[u8]>>(
        &mut self,
        keys: &[K],
        options: &WriteOptions,
    ) -> Result<u64, ClientError> {
        let request = options.apply(Request::new("delete_multi").keys(keys));
        self.call_for(&request, |result| result.value().as_u64()).await
    }

    /// `touch`: changes or removes the time to live of a key; returns whether the key exists.
    pub async fn touch(
        &mut self,
        key: &[u8],
        ttl_ms: Option<u64>,
        options: &WriteOptions,
    ) -> Result<bool, ClientError> {
        let ttl_ms = ttl_ms.map_or_else(RawValue::nil, RawValue::from);
        let request = options.apply(Request::new("touch").key(key).argument(&ttl_ms));
        self.call_for(&request, |result| result.value().as_bool()).await
    }

    /// Calls, and decodes a result whose type the protocol fixes.
    pub(super) async fn call_for<T>(
        &mut self,
        request: &Request,
        read: impl FnOnce(&RawValue) -> Option<T>,
    ) -> Result<T, ClientError> {
        self.call_for_within(self.reply_timeout, request, read).await
    }

    /// Like `call_for`, with its own timeout.
    pub(super) async fn call_for_within<T>(
        &mut self,
        limit: Option<Duration>,
        request: &Request,
        read: impl FnOnce(&RawValue) -> Option<T>,
    ) -> Result<T, ClientError> {
        let result = self.call_within(limit, request).await?;
        read(&result).ok_or_else(|| {
            self.protocol(format!("{}'s result is {}", request.method(), result.value()))
        })
    }
}

/// Reads `[value, seq, ttl_ms, level]`.
pub(super) fn entry(result: &RawValue) -> Option<Entry> {
    let elements = result.elements()?;
    let [value, seq, ttl_ms, level] = elements.as_slice() else { return None };
    let ttl_ms = if ttl_ms.is_nil() { None } else { Some(ttl_ms.value().as_u64()?) };
    Some(Entry {
        value: value.clone(),
        seq: seq.value().as_u64()?,
        ttl_ms,
        durability: level.value().as_str()?.parse().ok()?,
    })
}

/// Reads `[[key, value]…]`.
pub(super) fn pairs(result: &RawValue) -> Option<Vec<(Bytes, RawValue)>> {
    let read = |pair: RawValue| {
        let elements = pair.elements()?;
        let [key, value] = elements.as_slice() else { return None };
        Some((key_bytes(key)?, value.clone()))
    };
    result.elements()?.into_iter().map(read).collect()
}
