//! `vatn set`: a value under a key.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::Args;
use serde_json::json;

use super::connection::{Connection, Writing};
use super::output::Output;
use super::{Failure, json};
use crate::client::{Condition, Packed};

const NOTE: &str = "\
Prints the sequence number of the write. {\"base64\": \"…\"} as the value is a byte string.";

/// Write a value under a key
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Set {
    /// The key
    key: OsString,

    /// The value as JSON; - reads it from standard input
    #[arg(allow_hyphen_values = true)]
    value: OsString,

    /// The value is bytes, not JSON
    #[arg(long)]
    raw: bool,

    /// Write only if the key is absent, present, or was last written with this sequence number
    #[arg(long = "if", value_name = "absent|present|SEQ", value_parser = condition)]
    condition: Option<Condition>,

    /// After how many milliseconds the key expires
    #[arg(long, value_name = "MS")]
    ttl_ms: Option<u64>,

    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    connection: Connection,
}

impl Set {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let value = self.packed_value()?;
        let mut client = self.connection.open().await?;
        let mut options = self.writing.options();
        options.condition = self.condition;
        options.ttl_ms = self.ttl_ms;
        let seq = client.set(self.key.as_bytes(), &value, &options).await?;
        if out.json { out.json(&json!({ "seq": seq })) } else { out.line(seq.to_string()) }
    }

    fn packed_value(&self) -> Result<Packed, Failure> {
        let bytes = if self.value == "-" {
            let mut bytes = Vec::new();
            std::io::stdin()
                .read_to_end(&mut bytes)
                .map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))?;
            bytes
        } else {
            self.value.clone().into_vec()
        };
        if self.raw {
            return Ok(Packed::bin(&bytes));
        }
        let text = str::from_utf8(&bytes)
            .map_err(|_| Failure::usage("VALUE is not UTF-8: use --raw for bytes"))?;
        json::pack_text(text).map_err(|reason| {
            Failure::usage(format!(
                "VALUE is not JSON ({reason}): write a string as '\"text\"', or use --raw for bytes"
            ))
        })
    }
}

fn condition(text: &str) -> Result<Condition, String> {
    match text {
        "absent" => Ok(Condition::Absent),
        "present" => Ok(Condition::Present),
        _ => text
            .parse()
            .map(Condition::Seq)
            .map_err(|_| "it is none of absent, present, or a sequence number".to_owned()),
    }
}
