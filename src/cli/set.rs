//! `vatn set`: writes the value of a key.

use std::ffi::OsString;
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::connection::{Connection, Expiry, Writing, condition};
use super::key::{self, Key};
use super::output::Output;
use super::{Failure, get, json};
use crate::client::{Client, Condition, RawValue};

const NOTE: &str = "\
Examples:
  vatn set greeting hello
  vatn set boat:1 '{\"name\": \"Maren\", \"oars\": 2}' --ttl 10m
  vatn set photo - --raw < photo.jpg
  vatn set state open --return-value

A value that is JSON is stored as that, so 7 is a number; any other text is a string. --string,
--json-value and --raw say which one is meant. {\"base64\": \"…\"} is a byte string.
An object that has a name twice is refused. Prints the sequence number of the write.";

/// How long a connection may be idle before a new one is made for the next request.
const QUIET: Duration = Duration::from_secs(2);

/// Write a value under a key
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Set {
    /// The key; a byte that cannot be typed is \xNN, a backslash \\
    #[arg(value_parser = key::parser())]
    key: Key,

    /// The value, JSON or text; - reads it from standard input
    #[arg(allow_hyphen_values = true)]
    value: OsString,

    /// The value is text, also where it looks like JSON
    #[arg(long, group = "kind")]
    string: bool,

    /// The value is JSON; anything else is refused
    #[arg(long, group = "kind")]
    json_value: bool,

    /// The value is bytes
    #[arg(long, group = "kind")]
    raw: bool,

    /// Write only if the key is absent, present, or was last written with this sequence number
    #[arg(long = "if", value_name = "absent|present|SEQ", value_parser = condition)]
    condition: Option<Condition>,

    /// Print the previous value, or (nil), instead of the sequence number
    #[arg(long)]
    return_value: bool,

    #[command(flatten)]
    expiry: Expiry,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    connection: Connection,
}

impl Set {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let is_streamed = self.value == "-";
        // An invalid value is reported before a broker is contacted.
        let given = match is_streamed {
            true => None,
            false => Some(self.pack(self.value.clone().into_vec())?),
        };
        let mut client = self.connection.open().await?;
        let value = match given {
            Some(value) => value,
            None => {
                let begun = Instant::now();
                let value = self.pack(read_standard_input(&mut client).await?)?;
                if begun.elapsed() > QUIET {
                    // The broker may have closed a connection that was idle for so long.
                    client = self.connection.open().await?;
                }
                value
            }
        };
        let mut options = self.writing.options();
        options.condition = self.condition;
        self.expiry.apply(&mut options);
        if self.return_value {
            let old = client.replace(self.key.as_bytes(), &value, &options).await?;
            return print_replaced(old.as_ref(), out);
        }
        let seq = client.set(self.key.as_bytes(), &value, &options).await?;
        if out.json { out.json(&json!({ "seq": seq })) } else { out.line(seq.to_string()) }
    }

    fn pack(&self, bytes: Vec<u8>) -> Result<RawValue, Failure> {
        if self.raw {
            return Ok(RawValue::bin(&bytes));
        }
        let text = str::from_utf8(&bytes)
            .map_err(|_| Failure::usage("VALUE is not UTF-8: use --raw for bytes"))?;
        if self.string {
            return Ok(RawValue::from(text));
        }
        match json::pack_text(text) {
            Ok(value) => Ok(value),
            Err(json::Unpackable::Content(reason)) => Err(Failure::usage(format!(
                "VALUE cannot be stored as JSON ({reason}): use --string for the text itself"
            ))),
            Err(json::Unpackable::Syntax(reason)) if self.json_value => {
                Err(Failure::usage(format!("VALUE is not JSON: {reason}")))
            }
            Err(json::Unpackable::Syntax(reason)) => {
                if text.starts_with(['{', '[', '"']) {
                    eprintln!("vatn: stored as a string, since it is not JSON: {reason}");
                }
                Ok(RawValue::from(text))
            }
        }
    }
}

/// Prints what a write replaced, as `get` prints a value.
fn print_replaced(old: Option<&RawValue>, out: &mut Output) -> Result<(), Failure> {
    match old {
        _ if out.json => out.json(&json!({ "replaced": old.map(json::exact) })),
        Some(old) => get::print_plain(old, out),
        None => out.line("(nil)"),
    }
}

/// Reads the value, up to the broker's limit.
pub(super) async fn read_standard_input(client: &mut Client) -> Result<Vec<u8>, Failure> {
    let most = client.message_bytes().await?;
    if std::io::stdin().is_terminal() {
        eprintln!("vatn: waiting for the value on standard input; end it with Ctrl-D");
    }
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        std::io::stdin().take(most.saturating_add(1)).read_to_end(&mut bytes).map(|_| bytes)
    });
    let failed = |error: &dyn std::fmt::Display| {
        Failure::failed(format!("cannot read standard input: {error}"))
    };
    let bytes = read.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    if bytes.len() as u64 > most {
        return Err(Failure::failed(format!(
            "the value has more than the {most} bytes that {} takes as one message: serve with a \
             larger --max-message-bytes, or divide it",
            client.endpoint()
        )));
    }
    Ok(bytes)
}
