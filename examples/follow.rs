//! Keep a copy of all keys under a prefix: read the past from seq 0, then follow changes. The
//! client fetches changes that a lost connection missed, and reports a gap that cannot be filled.
//!
//! ```console
//! $ vatn serve                                  # in another terminal
//! $ cargo run --example follow                  # or: … -- tcp://COMMANDS tcp://CHANGES
//! seq 1: boat:1 is set
//! seq 3: boat:2 is set
//! seq 4: boat:1 is deleted
//! the copy holds ["boat:2"]
//! ```
//!
//! `tests/command_line/examples.rs` compares the output.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;

use vatn::client::{Client, ClientOptions, Event, Follower, Op, RawValue, WriteOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let router = arguments.next().unwrap_or("tcp://127.0.0.1:7533".to_owned());
    let publisher = arguments.next().unwrap_or("tcp://127.0.0.1:7534".to_owned());
    run(&router, &publisher, &mut std::io::stdout()).await
}

/// Runs the example: some writes, and a copy that follows them.
pub async fn run(
    router: &str,
    publisher: &str,
    out: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    let options = ClientOptions::default();
    let mut client = Client::connect(router, &options).await?;
    let any = WriteOptions::default();
    client.set(b"boat:1", &RawValue::from("Maren"), &any).await?;
    client.set(b"harbour", &RawValue::from("Bergen"), &any).await?;
    client.set(b"boat:2", &RawValue::from("Ruth"), &any).await?;
    client.delete(b"boat:1", &any).await?;
    let last = client.set(b"harbour", &RawValue::from("Oslo"), &any).await?;

    let mut copy = BTreeMap::new();
    let follower = Follower::connect(publisher, Some(router), b"boat:", Some(0), &options);
    let mut follower = follower.await?;
    loop {
        match follower.next().await? {
            Event::Change(change) => {
                let key = String::from_utf8_lossy(&change.key).into_owned();
                let what = match change.op {
                    Op::Set => "set",
                    Op::Touch => "given another time to live",
                    Op::Delete => "deleted",
                    Op::Expire => "expired",
                };
                writeln!(out, "seq {}: {key} is {what}", change.seq)?;
                match (change.op, change.value) {
                    (Op::Set, Some(value)) => drop(copy.insert(key, value)),
                    (Op::Delete | Op::Expire, _) => drop(copy.remove(&key)),
                    _ => {}
                }
            }
            // The broker publishes a beat each second: up to its seq, nothing is missing.
            Event::Beat { seq } if seq >= last => break,
            Event::Gap { after, through } => {
                return Err(format!("the history from {after} to {through} is gone").into());
            }
            Event::Beat { .. } | Event::Disconnected | Event::Reconnected => {}
        }
    }
    writeln!(out, "the copy holds {:?}", copy.keys().collect::<Vec<_>>())?;
    Ok(())
}
