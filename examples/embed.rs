//! Run a broker inside a program: start it on a directory, use it, stop it in order.
//!
//! ```console
//! $ cargo run --example embed                   # or: … -- DIRECTORY
//! the store has 0 keys
//! written at seq 1
//! stopped
//! the store has 1 keys, among them "Maren"
//! stopped
//! ```
//!
//! `tests/command_line/examples.rs` compares the output.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};

use vatn::client::{Client, ClientOptions, RawValue, WriteOptions};
use vatn::config::Config;
use vatn::server::Broker;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).map_or("vatn-embedded".into(), PathBuf::from);
    run(&directory, &mut std::io::stdout()).await
}

/// Runs the example: two brokers, one after the other, on the store in `directory`.
pub async fn run(directory: &Path, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let broker = start(directory).await?;
    let mut client = connect(&broker).await?;
    writeln!(out, "the store has {} keys", client.count(b"").await?)?;
    let value = RawValue::from("Maren");
    let seq = client.set(b"boat:1", &value, &WriteOptions::default()).await?;
    writeln!(out, "written at seq {seq}")?;
    broker.stop().await?;
    writeln!(out, "stopped")?;

    let broker = start(directory).await?;
    let mut client = connect(&broker).await?;
    let value = client.get(b"boat:1").await?.ok_or("the value is gone")?;
    let (count, name): (u64, String) = (client.count(b"").await?, value.decode()?);
    writeln!(out, "the store has {count} keys, among them {name:?}")?;
    broker.stop().await?;
    writeln!(out, "stopped")?;
    Ok(())
}

/// A broker with one endpoint of each kind; port 0 asks the system for a free one.
async fn start(directory: &Path) -> Result<Broker, Box<dyn Error>> {
    let config = Config {
        http_host: "127.0.0.1".to_owned(),
        routers: vec!["tcp://127.0.0.1:0".to_owned()],
        publishers: vec!["tcp://127.0.0.1:0".to_owned()],
        ..Config::without_edges(directory)
    };
    Ok(Broker::start(config, |_| {}).await?)
}

async fn connect(broker: &Broker) -> Result<Client, Box<dyn Error>> {
    let endpoint = broker.endpoints().routers.first().ok_or("no command endpoint")?;
    Ok(Client::connect(endpoint, &ClientOptions::default()).await?)
}
