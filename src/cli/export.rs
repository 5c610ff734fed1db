//! `vatn export`: all items as JSON Lines.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use serde_json::json;

use super::connection::Connection;
use super::output::Output;
use super::progress::Progress;
use super::replacement::Replacement;
use super::{Failure, json};
use crate::client::{Packed, Range};

const NOTE: &str = "\
Writes {\"key\": …, \"value\": …} a line, which `vatn import` reads back byte for byte. Items
that are written meanwhile may or may not be among them.";

/// Write all items as JSON Lines
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Export {
    /// The file to write, replaced when all is written; without it, or with -, standard output
    #[arg(default_value = "-", hide_default_value = true)]
    file: PathBuf,

    /// Only keys that begin with it
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: OsString,

    #[command(flatten)]
    connection: Connection,
}

impl Export {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let mut client = self.connection.open().await?;
        let prefix = self.prefix.as_bytes();
        let mut progress = Progress::begin(Some(client.count(prefix).await?));
        let mut file = match self.file.as_os_str().as_bytes() {
            b"-" => None,
            _ => Some(Replacement::begin(self.file.clone())?),
        };
        let mut range =
            Range { prefix: (!prefix.is_empty()).then(|| prefix.to_vec()), ..Range::default() };
        loop {
            let page = client.range(&range).await?;
            for (key, value) in &page.items {
                let line = line(key, value);
                match &mut file {
                    Some(file) => {
                        file.write_all(line.as_bytes()).map_err(|error| file.failed(&error))?;
                    }
                    None => out.bytes(line.as_bytes())?,
                }
            }
            let count = page.items.len() as u64;
            progress.advance(count, progress.items() + count);
            let Some(next) = page.next else { break };
            range.after = Some(next.to_vec());
        }
        let summary = progress.finish();
        let Some(file) = file else { return Ok(()) };
        file.finish()?;
        if out.json { out.json(&progress.described()) } else { out.line(summary) }
    }
}

fn line(key: &Bytes, value: &Packed) -> String {
    let mut line = json!({ "key": json::key(key), "value": json::exact(value) }).to_string();
    line.push('\n');
    line
}
