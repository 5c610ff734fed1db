//! `vatn get`: the value of a key.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use rmpv::Value;
use serde_json::{Value as Json, json};

use super::connection::Connection;
use super::output::Output;
use super::{Failure, json};
use crate::client::{Entry, Packed};

const NOTE: &str = "\
The value is printed as JSON, for people indented; strings and byte strings as they are with
--raw.";

/// Print the value of a key
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Get {
    /// The key
    key: OsString,

    /// Print a string's or a byte string's own bytes, and nothing else
    #[arg(long, conflicts_with_all = ["json", "meta"])]
    raw: bool,

    /// Also print the sequence number, the time left and the durability
    #[arg(long)]
    meta: bool,

    #[command(flatten)]
    connection: Connection,
}

impl Get {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let key = self.key.as_bytes();
        let mut client = self.connection.open().await?;
        // With its meta a stored nil can be told from a key that is not there.
        let Some(entry) = client.entry(key).await? else {
            let printed = match out.json {
                true => out.json(&json!({ "key": json::key(key), "found": false })),
                false => Ok(()),
            };
            let text = format!("no key '{}'", json::key_text(key));
            return Err(Failure::not_found(text).after(printed.and_then(|()| out.flush())));
        };
        if self.raw {
            return out.bytes(raw_bytes(&entry.value)?.as_slice());
        }
        if out.json {
            return out.json(&described(key, &entry, self.meta));
        }
        let shown = json::show(&entry.value.value());
        out.line(format!("{shown:#}"))?;
        if self.meta {
            out.line(format!("seq         {}", entry.seq))?;
            let left = entry.ttl_ms.map_or("for ever".to_owned(), |ttl| format!("{ttl} ms"));
            out.line(format!("lives       {left}"))?;
            out.line(format!("durability  {}", entry.durability))?;
        }
        Ok(())
    }
}

fn described(key: &[u8], entry: &Entry, meta: bool) -> Json {
    let mut described = json!({
        "key": json::key(key),
        "found": true,
        "value": json::exact(&entry.value),
    });
    if let (true, Some(members)) = (meta, described.as_object_mut()) {
        members.insert("seq".into(), entry.seq.into());
        members.insert("ttl_ms".into(), entry.ttl_ms.into());
        members.insert("durability".into(), entry.durability.name().into());
    }
    described
}

fn raw_bytes(value: &Packed) -> Result<Vec<u8>, Failure> {
    match value.value() {
        Value::Binary(bytes) => Ok(bytes),
        Value::String(text) => Ok(text.into_bytes()),
        _ => Err(Failure::failed("--raw prints strings and byte strings; this value is neither")),
    }
}
