//! Move an amount between two accounts: read, compute, and write both in one atomic batch that
//! takes place only if neither account has changed meanwhile. A conflict begins anew.
//!
//! ```console
//! $ vatn serve                                  # in another terminal
//! $ cargo run --example transfer                # or: … -- tcp://HOST:PORT
//! before: Ada 100, Bo 20
//! another client pays Bo 5: CONFLICT, so read again
//! after: Ada 70, Bo 55
//! ```
//!
//! `tests/command_line/examples.rs` compares the output.

use std::error::Error;
use std::io::Write;

use vatn::client::{Client, ClientError, ClientOptions, Entry, Level, RawValue, Request};
use vatn::client::{Step, WriteOptions};

const KEYS: [&[u8]; 2] = [b"account:ada", b"account:bo"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoint = std::env::args().nth(1).unwrap_or("tcp://127.0.0.1:7533".to_owned());
    run(&endpoint, &mut std::io::stdout()).await
}

/// Runs the example against the broker whose command endpoint is `endpoint`.
pub async fn run(endpoint: &str, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let mut client = Client::connect(endpoint, &ClientOptions::default()).await?;
    let opening = [(KEYS[0], RawValue::from(100)), (KEYS[1], RawValue::from(20))];
    client.set_multi(&opening, &WriteOptions::default()).await?;
    writeln!(out, "before: {}", balances(&mut client).await?)?;

    let stale = read(&mut client).await?;
    let mut other = Client::connect(endpoint, &ClientOptions::default()).await?;
    let five = Step { delta: Some(5), initial: None };
    other.incr(KEYS[1], &five, &WriteOptions::default()).await?;
    match transfer(&mut client, &stale, 30).await {
        Err(error) if error.code() == Some("CONFLICT") => {
            writeln!(out, "another client pays Bo 5: CONFLICT, so read again")?;
        }
        outcome => outcome?,
    }

    let fresh = read(&mut client).await?;
    transfer(&mut client, &fresh, 30).await?;
    writeln!(out, "after: {}", balances(&mut client).await?)?;
    Ok(())
}

/// Both accounts with the seq of their last write, read in one message.
async fn read(client: &mut Client) -> Result<[Entry; 2], Box<dyn Error>> {
    let entries = client.entries(&KEYS).await?.into_iter().collect::<Option<Vec<_>>>();
    let entries = entries.ok_or("an account is missing")?;
    Ok(entries.try_into().map_err(|_| "not two accounts")?)
}

/// One atomic write: both accounts as `seen` have them, less and plus the amount, or neither.
async fn transfer(client: &mut Client, seen: &[Entry; 2], amount: i128) -> Result<(), ClientError> {
    let moved = [-amount, amount];
    let writes: Vec<Request> = (0..2)
        .map(|side| {
            let balance = seen[side].value.as_integer().unwrap_or_default() + moved[side];
            let request = Request::new("set").key(KEYS[side]);
            request.argument(&RawValue::integer(balance)).option("if", seen[side].seq)
        })
        .collect();
    client.batch(&writes, Some(Level::Synced)).await?;
    Ok(())
}

async fn balances(client: &mut Client) -> Result<String, Box<dyn Error>> {
    let [ada, bo] = read(client).await?.map(|entry| entry.value.as_integer().unwrap_or_default());
    Ok(format!("Ada {ada}, Bo {bo}"))
}
