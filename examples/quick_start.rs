//! The first five minutes with the Rust client: write, read, condition, counter, error.
//!
//! ```console
//! $ vatn serve                                  # in another terminal
//! $ cargo run --example quick_start             # or: … -- tcp://HOST:PORT
//! set boat:1 at seq 1
//! boat:1 is Maren with 2 oars
//! the second set is refused with CONFLICT
//! visits: 1
//! visits: 2
//! keys under boat: ["boat:1"]
//! ```
//!
//! The output is that of an empty store; `tests/command_line/examples.rs` compares it.

use std::error::Error;
use std::io::Write;

use serde::{Deserialize, Serialize};
use vatn::client::{Client, ClientOptions, Condition, Range, RawValue, Step, WriteOptions};

/// A value can be any type that serde knows; a struct is stored as a map.
#[derive(Serialize, Deserialize)]
struct Boat {
    name: String,
    oars: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoint = std::env::args().nth(1).unwrap_or("tcp://127.0.0.1:7533".to_owned());
    run(&endpoint, &mut std::io::stdout()).await
}

/// Runs the example against the broker whose command endpoint is `endpoint`.
pub async fn run(endpoint: &str, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let mut client = Client::connect(endpoint, &ClientOptions::default()).await?;
    let options = WriteOptions::default();

    let maren = Boat { name: "Maren".to_owned(), oars: 2 };
    let seq = client.set(b"boat:1", &RawValue::of(&maren)?, &options).await?;
    writeln!(out, "set boat:1 at seq {seq}")?;

    if let Some(value) = client.get(b"boat:1").await? {
        let boat: Boat = value.decode()?;
        writeln!(out, "boat:1 is {} with {} oars", boat.name, boat.oars)?;
    }

    // The write takes place only if the key is absent.
    let absent = WriteOptions { condition: Some(Condition::Absent), ..options.clone() };
    if let Err(error) = client.set(b"boat:1", &RawValue::from("Ruth"), &absent).await {
        let code = error.code().unwrap_or("no code: the broker was not reached");
        writeln!(out, "the second set is refused with {code}")?;
    }

    let from_zero = Step { initial: Some(1), ..Step::default() };
    for _ in 0..2 {
        let visits = client.incr(b"visits", &from_zero, &options).await?;
        writeln!(out, "visits: {visits}")?;
    }

    let boats = Range { prefix: Some(b"boat:".to_vec()), ..Range::default() };
    let page = client.range_keys(&boats).await?;
    let keys: Vec<_> = page.items.iter().map(|key| String::from_utf8_lossy(key)).collect();
    writeln!(out, "keys under boat: {keys:?}")?;
    Ok(())
}
