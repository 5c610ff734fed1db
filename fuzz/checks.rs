//! Checks that must hold for any bytes at all. The fuzz targets call it, and so does a test with
//! stable Rust (`tests/state/fuzz_checks.rs`), so it always compiles.

use vatn::client::RawValue;
use vatn::commands::Request;
use vatn::protocol::Reader;
use vatn::protocol::reader::Fault;

/// Most keys, pairs and commands: small, so that the limit is met.
const ITEMS: usize = 64;

/// The decoder of requests does not panic, takes only whole frames, and agrees with the client
/// about the extent of one value.
pub fn decode(bytes: &[u8]) {
    let request = Request::decode_within(bytes, ITEMS);
    assert_eq!(request.notification, Request::is_notification(bytes));
    if request.command.is_ok() {
        let longer = [bytes, &[0xc0]].concat();
        assert!(Request::decode_within(&longer, ITEMS).command.is_err(), "it takes a byte more");
        let shorter = &bytes[..bytes.len() - 1];
        assert!(Request::decode_within(shorter, ITEMS).command.is_err(), "it takes a byte less");
    }

    let mut reader = Reader::new(bytes);
    let is_value = match reader.value() {
        Ok(_) => reader.is_empty(),
        // The client sets no limit to the depth.
        Err(Fault::TooDeep) => return,
        Err(_) => false,
    };
    let packed = RawValue::new(bytes.to_vec());
    assert_eq!(packed.is_some(), is_value, "broker and client differ about one value");
    if let Some(packed) = packed {
        assert_eq!(packed.as_bytes(), bytes);
        // Reads it as a tree, or as nil: it must end.
        drop(packed.value());
    }
}
