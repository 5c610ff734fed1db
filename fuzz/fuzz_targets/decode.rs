//! Any bytes as a request and as a value: `cargo +nightly fuzz run decode`.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::decode(bytes));
