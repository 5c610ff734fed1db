//! Keys in order.

use bytes::Bytes;

use super::raw_value::{RawValue, key_bytes};
use super::values::{Entry, entry, pairs};
use super::{Client, ClientError, Request, WriteOptions};

/// Which keys a `range` covers; the default is all of them.
///
/// ```no_run
/// use vatn::client::{Client, ClientError, Range};
///
/// /// Prints all keys under a prefix, page by page.
/// async fn print_keys(client: &mut Client, prefix: &[u8]) -> Result<(), ClientError> {
///     let mut range = Range { prefix: Some(prefix.to_vec()), ..Range::default() };
///     loop {
///         let page = client.range_keys(&range).await?;
///         page.items.iter().for_each(|key| println!("{}", key.escape_ascii()));
///         let Some(next) = page.next else { return Ok(()) };
///         range.after = Some(next.to_vec());
///     }
/// }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Range {
    /// The first key, inclusive.
    pub from: Option<Vec<u8>>,
    /// The key to continue after, exclusive: a page's `next`.
    pub after: Option<Vec<u8>>,
    /// The end, exclusive.
    pub to: Option<Vec<u8>>,
    /// Only keys that begin with these bytes.
    pub prefix: Option<Vec<u8>>,
    /// The most items; the broker also limits the count and the bytes.
    pub limit: Option<u64>,
    /// From the last key to the first.
    pub reverse: bool,
}

/// The result of one `range`.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// Pass it as [`Range::after`] for the next page; `None` when this was the last.
    pub next: Option<Bytes>,
}

/// The result of one `delete_range`.
#[derive(Debug, Clone, PartialEq)]
pub struct Deleted {
    /// The number of keys that it deleted.
    pub count: u64,
    /// Pass it as [`Range::after`] for the next page; `None` when the range has no further key.
    pub next: Option<Bytes>,
}

impl Client {
    /// `range`: keys and values in the order of the keys' bytes, one page.
    pub async fn range(&mut self, range: &Range) -> Result<Page<(Bytes, RawValue)>, ClientError> {
        self.call_for(&range.request(), |result| page(result, pairs)).await
    }

    /// `range` with `meta`: one page of keys with their entries.
    pub async fn range_entries(
        &mut self,
        range: &Range,
    ) -> Result<Page<(Bytes, Entry)>, ClientError> {
        let request = range.request().option("meta", true);
        let entries = |items: &RawValue| {
            pairs(items)?.into_iter().map(|(key, meta)| Some((key, entry(&meta)?))).collect()
        };
        self.call_for(&request, |result| page(result, entries)).await
    }

    /// `range` with `keys_only`: one page of keys.
    pub async fn range_keys(&mut self, range: &Range) -> Result<Page<Bytes>, ClientError> {
        let request = range.request().option("keys_only", true);
        let keys = |items: &RawValue| items.elements()?.iter().map(key_bytes).collect();
        self.call_for(&request, |result| page(result, keys)).await
    }

    /// `delete_range`: deletes one page of the keys of a range as one atomic write. One of `from`,
    /// `to` and `prefix` must be given. Repeat it with [`Range::after`] until there is no `next`.
    pub async fn delete_range(
        &mut self,
        range: &Range,
        options: &WriteOptions,
    ) -> Result<Deleted, ClientError> {
        let request = options.apply(range.applied_to(Request::new("delete_range")));
        self.call_for(&request, deleted).await
    }

    /// `count`: how many keys begin with the prefix.
    pub async fn count(&mut self, prefix: &[u8]) -> Result<u64, ClientError> {
        let prefix = (!prefix.is_empty()).then(|| RawValue::key(prefix));
        let request = Request::new("count").option_if("prefix", prefix);
        self.call_for(&request, |result| result.value().as_u64()).await
    }
}

impl Range {
    fn request(&self) -> Request {
        self.applied_to(Request::new("range"))
    }

    fn applied_to(&self, request: Request) -> Request {
        let key = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(RawValue::key);
        request
            .option_if("from", key(&self.from))
            .option_if("after", key(&self.after))
            .option_if("to", key(&self.to))
            .option_if("prefix", key(&self.prefix))
            .option_if("limit", self.limit)
            .option_if("reverse", self.reverse.then_some(true))
    }
}

/// Reads `[count, next]`.
fn deleted(result: &RawValue) -> Option<Deleted> {
    let elements = result.elements()?;
    let [count, next] = elements.as_slice() else { return None };
    Some(Deleted { count: count.value().as_u64()?, next: cursor(next)? })
}

/// Reads a key or nil.
fn cursor(next: &RawValue) -> Option<Option<Bytes>> {
    if next.is_nil() { Some(None) } else { key_bytes(next).map(Some) }
}

/// Reads `[items, next]`.
fn page<T>(result: &RawValue, read: impl FnOnce(&RawValue) -> Option<Vec<T>>) -> Option<Page<T>> {
    let elements = result.elements()?;
    let [items, next] = elements.as_slice() else { return None };
    Some(Page { items: read(items)?, next: cursor(next)? })
}
