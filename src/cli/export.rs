//! `vatn export`: all items as JSON Lines.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use serde_json::json;

use super::connection::Connection;
use super::output::Output;
use super::progress::Progress;
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
                    Some(file) => file.write(line.as_bytes())?,
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

/// A file that takes its name only when it is whole, so that a half one is never taken for it.
struct Replacement {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
}

impl Replacement {
    fn begin(path: PathBuf) -> Result<Self, Failure> {
        let mut partial = path.clone().into_os_string().into_vec();
        partial.extend_from_slice(b".partial");
        let partial = PathBuf::from(OsString::from_vec(partial));
        let file = File::create(&partial).map_err(|error| {
            Failure::failed(format!("cannot write {}: {error}", partial.display()))
        })?;
        Ok(Replacement { path, partial, file: BufWriter::with_capacity(1 << 18, file) })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| {
            Failure::failed(format!("cannot write {}: {error}", self.partial.display()))
        })
    }

    fn finish(mut self) -> Result<(), Failure> {
        let named = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all())
            .and_then(|()| std::fs::rename(&self.partial, &self.path));
        named.map_err(|error| {
            Failure::failed(format!("cannot write {}: {error}", self.path.display()))
        })
    }
}
