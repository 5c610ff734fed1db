//! `vatn append`: appends text or bytes to a value.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::Args;
use serde_json::json;

use super::Failure;
use super::connection::{Connection, Expiry, Writing, condition};
use super::key::{self, Key};
use super::output::Output;
use super::set::read_standard_input;
use crate::client::{Condition, RawValue};

const NOTE: &str = "\
Examples:
  vatn append log 'ebb, '
  vatn append photo - --raw < rest.jpg

A missing key is created; a value has at most 1 MiB afterwards.
Prints how many bytes the value has then.";

/// Append text or bytes to a value
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Append {
    /// The key; a byte that cannot be typed is \xNN, a backslash \\
    #[arg(value_parser = key::parser())]
    key: Key,

    /// The text or bytes to append; - reads them from standard input
    #[arg(allow_hyphen_values = true)]
    bytes: OsString,

    /// Append bytes, and make the value bytes; otherwise the argument is text
    #[arg(long)]
    raw: bool,

    /// Write only if the key is absent, present, or was last written with this sequence number
    #[arg(long = "if", value_name = "absent|present|SEQ", value_parser = condition)]
    condition: Option<Condition>,

    #[command(flatten)]
    expiry: Expiry,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    connection: Connection,
}

impl Append {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let mut client = self.connection.open().await?;
        let bytes = match self.bytes == "-" {
            true => read_standard_input(&mut client).await?,
            false => self.bytes.into_vec(),
        };
        let packed = match (self.raw, str::from_utf8(&bytes)) {
            (true, _) => RawValue::bin(&bytes),
            (false, Ok(text)) => RawValue::from(text),
            (false, Err(_)) => {
                return Err(Failure::usage("BYTES is not UTF-8: use --raw for bytes"));
            }
        };
        let mut options = self.writing.options();
        options.condition = self.condition;
        self.expiry.apply(&mut options);
        let bytes = client.append(self.key.as_bytes(), &packed, &options).await?;
        if out.json { out.json(&json!({ "bytes": bytes })) } else { out.line(bytes.to_string()) }
    }
}
