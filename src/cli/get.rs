//! `vatn get`: prints the values of keys.

use clap::Args;
use rmpv::Value;
use serde_json::{Value as Json, json};

use super::connection::Connection;
use super::key::{self, Key};
use super::output::Output;
use super::{Failure, json};
use crate::client::{Entry, RawValue};

const NOTE: &str = "\
Examples:
  vatn get greeting
  vatn get boat:1 boat:2 --json
  vatn get photo --raw > photo.jpg

A string is printed as it is, any other value as JSON. Of several keys each has a line: the key, a
tab, the value as JSON, or (nil) where there is no such key. With --json each has an object. Exit
code 3 when one of the keys was not found.";

/// How many bytes of a byte string a terminal shows.
const SHOWN_BYTES: usize = 2048;

/// Print the value of a key, or of several
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Get {
    /// The keys; a byte that cannot be typed is \xNN, a backslash \\
    #[arg(required = true, value_name = "KEY", value_parser = key::parser())]
    keys: Vec<Key>,

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
        if self.raw && self.keys.len() > 1 {
            return Err(Failure::usage("--raw takes one key: nothing would be between the values"));
        }
        let mut client = self.connection.open().await?;
        let keys: Vec<&[u8]> = self.keys.iter().map(Key::as_bytes).collect();
        // With metadata, a stored nil and an absent key are distinguishable.
        let entries = client.entries(&keys).await?;
        let mut absent = Vec::new();
        let mut printed = Ok(());
        for (key, entry) in keys.iter().zip(entries) {
            let Some(entry) = entry else {
                absent.push(key::show(key));
                printed = printed.and_then(|()| self.print_absent(key, out));
                continue;
            };
            printed = printed.and_then(|()| self.print(key, &entry, out));
        }
        if absent.is_empty() {
            return printed;
        }
        let failure = Failure::not_found(format!("no key '{}'", absent.join("', '")));
        Err(failure.after(printed.and_then(|()| out.flush())))
    }

    fn print_absent(&self, key: &[u8], out: &mut Output) -> Result<(), Failure> {
        match (out.json, self.keys.len()) {
            (true, _) => out.json(&json!({ "key": json::key(key), "found": false })),
            (false, 1) => Ok(()),
            (false, _) => out.line(format!("{}\t(nil)", key::show(key))),
        }
    }

    fn print(&self, key: &[u8], entry: &Entry, out: &mut Output) -> Result<(), Failure> {
        if self.raw {
            return print_raw(&entry.value, out);
        }
        if out.json {
            return out.json(&described(key, entry, self.meta));
        }
        let left = entry.ttl_ms.map_or("for ever".to_owned(), |ttl| format!("{ttl} ms"));
        if self.keys.len() > 1 {
            let meta = match self.meta {
                true => format!("\tseq {}\t{left}\t{}", entry.seq, entry.durability),
                false => String::new(),
            };
            let value = json::line(&entry.value.value());
            return out.line(format!("{}\t{value}{meta}", key::show(key)));
        }
        print_plain(&entry.value, out)?;
        if self.meta {
            out.line(format!("seq         {}", entry.seq))?;
            out.line(format!("lives       {left}"))?;
            out.line(format!("durability  {}", entry.durability))?;
        }
        Ok(())
    }
}

/// Prints a string as it is, bytes with invisible ones escaped, and other values as JSON.
pub(super) fn print_plain(value: &RawValue, out: &mut Output) -> Result<(), Failure> {
    match value.value() {
        Value::String(text) => match text.as_str() {
            Some(text) if out.is_terminal => out.line(for_terminal(text)),
            Some(text) => out.line(text),
            None => print_bytes(text.as_bytes(), out),
        },
        Value::Binary(bytes) => print_bytes(&bytes, out),
        other => out.line(json::readable(format!("{:#}", json::show(&other)))),
    }
}

/// Text that keeps its line breaks and tabs; other characters that control a terminal are escaped.
fn for_terminal(text: &str) -> String {
    let is_plain = |c: char| !key::is_hidden(c) || c == '\n' || c == '\t';
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_plain(character) {
            shown.push(character);
        } else {
            shown.push_str(&key::show(character.encode_utf8(&mut [0; 4]).as_bytes()));
        }
    }
    shown
}

fn print_bytes(bytes: &[u8], out: &mut Output) -> Result<(), Failure> {
    let shown = match bytes.get(..SHOWN_BYTES).filter(|_| out.is_terminal) {
        Some(shown) => shown,
        None => bytes,
    };
    out.line(key::show(shown))?;
    if shown.len() < bytes.len() {
        out.flush()?;
        let (shown, all) = (shown.len(), bytes.len());
        eprintln!(
            "the first {shown} of {all} bytes; --raw, into a file or a pipe, has all of them"
        );
    }
    Ok(())
}

/// Prints a string's or a byte string's own bytes, unless a terminal would interpret some as
/// commands.
fn print_raw(value: &RawValue, out: &mut Output) -> Result<(), Failure> {
    let bytes = match value.value() {
        Value::Binary(bytes) => bytes,
        Value::String(text) => text.into_bytes(),
        _ => {
            let text = "--raw prints strings and byte strings; this value is neither";
            return Err(Failure::failed(text));
        }
    };
    let is_clean = str::from_utf8(&bytes).is_ok_and(|text| for_terminal(text) == text);
    if !out.is_terminal || is_clean {
        return out.bytes(&bytes);
    }
    print_bytes(&bytes, out)?;
    out.flush()?;
    eprintln!("escaped for the terminal; into a file or a pipe, --raw prints the bytes themselves");
    Ok(())
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
