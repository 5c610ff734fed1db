# Every task, in one place. `just` lists them (https://just.systems); each line below also works when it is typed.

_list:
    @just --list --unsorted

# Build and run a broker on ./vatn-data
serve *ARGUMENTS:
    cargo run --release -- serve {{ARGUMENTS}}

# Run every suite: Rust, pyzmq, the Python and Node clients, a browser, a proxy
test:
    tests/run

# Run what must hold on every commit: format, lints, licences, all tests
ci:
    .ci/run

# Run the quick checks: format, lints, unit tests, house rules
check:
    cargo fmt --check
    cargo clippy --quiet --all-targets -- -D warnings
    cargo test --quiet --lib --test tidy

# Run one file of a test binary, such as `just one zmq hostile::`
one BINARY FILTER="":
    cargo test --test {{BINARY}} {{FILTER}}

# Run the examples of the documentation
doc-tests:
    cargo test --doc

# Build the documentation of the Rust API
doc:
    cargo doc --no-deps --open

# Run an example against a broker that is running, such as `just example quick_start`
example NAME *ARGUMENTS:
    cargo run --quiet --example {{NAME}} -- {{ARGUMENTS}}

# Check the licences, advisories and sources of the dependencies (needs cargo-deny)
deny:
    cargo deny check

# Check that the oldest supported compiler builds everything (needs rustup)
msrv:
    cargo +1.93.0 check --locked --all-targets --target-dir target/msrv

# Fuzz the decoder of requests for a minute (needs nightly Rust and cargo-fuzz)
fuzz SECONDS="60":
    cargo +nightly fuzz run decode -- -max_total_time={{SECONDS}}

# Compile the fuzz targets with a stable compiler
fuzz-check:
    cargo check --manifest-path fuzz/Cargo.toml --target-dir target/fuzz

# Kill a broker 200 times and compare what is left with the ledger
kills:
    VATN_KILL_ROUNDS=200 cargo test --release --test durability kill -- --nocapture

# Count the instructions of the hot path (needs valgrind)
instructions:
    benches/instructions

# Compare with redis-server, two minutes
versus:
    benches/versus/run --quick
