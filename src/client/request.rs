//! Builds and encodes requests.

use bytes::Bytes;

use super::raw_value::RawValue;
use crate::protocol::writer;

/// One request before it is sent: a method, its arguments in order, and its options.
///
/// ```
/// use vatn::client::Request;
/// let request = Request::new("delete").key(b"user:1").option("return_value", true);
/// ```
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    arguments: usize,
    argument_bytes: Vec<u8>,
    options: usize,
    option_bytes: Vec<u8>,
}

impl Request {
    /// A request without arguments so far.
    pub fn new(method: impl Into<String>) -> Self {
        Request {
            method: method.into(),
            arguments: 0,
            argument_bytes: Vec::new(),
            options: 0,
            option_bytes: Vec::new(),
        }
    }

    /// The method's name.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Adds an argument.
    pub fn argument(mut self, value: &RawValue) -> Self {
        self.arguments += 1;
        self.argument_bytes.extend_from_slice(value.as_bytes());
        self
    }

    /// Adds a key as an argument.
    pub fn key(mut self, key: &[u8]) -> Self {
        self.arguments += 1;
        writer::key(&mut self.argument_bytes, key);
        self
    }

    /// Adds one argument that is an array of keys.
    pub fn keys<K: AsRef<[u8]>>(mut self, keys: &[K]) -> Self {
        self.arguments += 1;
        writer::array_len(&mut self.argument_bytes, keys.len());
        for key in keys {
            writer::key(&mut self.argument_bytes, key.as_ref());
        }
        self
    }

    /// Adds one argument that is an array of pairs of a key and its value.
    pub fn pairs<K: AsRef<[u8]>>(mut self, pairs: &[(K, RawValue)]) -> Self {
        self.arguments += 1;
        writer::array_len(&mut self.argument_bytes, pairs.len());
        for (key, value) in pairs {
            writer::array_len(&mut self.argument_bytes, 2);
            writer::key(&mut self.argument_bytes, key.as_ref());
            self.argument_bytes.extend_from_slice(value.as_bytes());
        }
        self
    }

    /// Adds one argument that is an array of `[method, params]`, as `batch` takes it.
    pub fn requests(mut self, requests: &[Request]) -> Self {
        self.arguments += 1;
        writer::array_len(&mut self.argument_bytes, requests.len());
        for request in requests {
            writer::array_len(&mut self.argument_bytes, 2);
            writer::str(&mut self.argument_bytes, &request.method);
            request.write_params(&mut self.argument_bytes);
        }
        self
    }

    /// Adds an option to the map that ends the arguments.
    pub fn option(mut self, name: &str, value: impl Into<RawValue>) -> Self {
        self.options += 1;
        writer::str(&mut self.option_bytes, name);
        self.option_bytes.extend_from_slice(value.into().as_bytes());
        self
    }

    /// Adds an option if it has a value.
    pub fn option_if(self, name: &str, value: Option<impl Into<RawValue>>) -> Self {
        match value {
            Some(value) => self.option(name, value),
            None => self,
        }
    }

    /// The frame of a request with a reply: `[0, id, method, params]`.
    pub fn encode(&self, id: u64) -> Bytes {
        let mut out = self.sized_buffer();
        out.extend_from_slice(&[0x94, 0]);
        writer::uint(&mut out, id);
        writer::str(&mut out, &self.method);
        self.write_params(&mut out);
        out.into()
    }

    /// The frame of a notification, which has no reply: `[2, method, params]`.
    pub fn encode_notification(&self) -> Bytes {
        let mut out = self.sized_buffer();
        out.extend_from_slice(&[0x93, 2]);
        writer::str(&mut out, &self.method);
        self.write_params(&mut out);
        out.into()
    }

    fn sized_buffer(&self) -> Vec<u8> {
        Vec::with_capacity(self.argument_bytes.len() + self.option_bytes.len() + 48)
    }

    fn write_params(&self, out: &mut Vec<u8>) {
        let with_options = usize::from(self.options > 0);
        writer::array_len(out, self.arguments + with_options);
        out.extend_from_slice(&self.argument_bytes);
        if self.options > 0 {
            writer::map_len(out, self.options);
            out.extend_from_slice(&self.option_bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::hex;

    #[test]
    fn a_request_is_four_elements_with_the_options_last() {
        let request = Request::new("incr").key(b"n").option("delta", 2);
        assert_eq!(hex(&request.encode(300)), "9400cd012ca4696e637292a16e81a564656c746102");
    }

    #[test]
    fn a_notification_has_no_id() {
        let request = Request::new("set").key(b"k").argument(&RawValue::from(true));
        assert_eq!(hex(&request.encode_notification()), "9302a373657492a16bc3");
    }

    #[test]
    fn a_batch_holds_its_requests_without_ids() {
        let inner = [Request::new("get").key(b"k"), Request::new("count")];
        let outer = Request::new("batch").requests(&inner);
        let expected = "940001a56261746368919292a367657491a16b92a5636f756e7490";
        assert_eq!(hex(&outer.encode(1)), expected);
    }
}
