//! `vatn range`: prints keys and values in order.

use bytes::Bytes;
use clap::Args;
use serde_json::json;

use super::connection::Connection;
use super::connection::DEFAULT_ROUTER;
use super::key::{self, Key, quoted};
use super::output::Output;
use super::{Failure, json};
use crate::client::{self, Client, Page, RawValue};

const NOTE: &str = "\
Examples:
  vatn range boat: --limit 10
  vatn range --all --keys-only

Prints one key and its value a line, in the bytewise order of the keys; with --json one
object a line.";

/// Print keys and values in the order of the keys
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Range {
    /// Only keys that begin with this prefix; a byte that cannot be typed is \xNN, a backslash \\
    #[arg(value_parser = key::parser())]
    prefix: Option<Key>,

    /// Begin with this key
    #[arg(long, value_name = "KEY", value_parser = key::parser())]
    from: Option<Key>,

    /// Begin after this key
    #[arg(long, value_name = "KEY", value_parser = key::parser())]
    after: Option<Key>,

    /// End before this key
    #[arg(long, value_name = "KEY", value_parser = key::parser())]
    to: Option<Key>,

    /// Print at most this many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,

    /// Print all, however many there are
    #[arg(long, conflicts_with = "limit")]
    all: bool,

    /// From the last key to the first
    #[arg(long)]
    reverse: bool,

    /// Print keys without their values
    #[arg(long)]
    keys_only: bool,

    #[command(flatten)]
    connection: Connection,
}

impl Range {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let mut client = self.connection.open().await?;
        let bytes = |key: &Option<Key>| key.clone().map(|key| key.0);
        let mut range = client::Range {
            from: bytes(&self.from),
            after: bytes(&self.after),
            to: bytes(&self.to),
            prefix: bytes(&self.prefix),
            limit: None,
            reverse: self.reverse,
        };
        let mut wanted = if self.all { u64::MAX } else { self.limit };
        loop {
            // The broker has its own limit; a page may be shorter than requested.
            range.limit = (!self.all).then_some(wanted);
            let page = self.page(&mut client, &range).await?;
            wanted = wanted.saturating_sub(page.items.len() as u64);
            for (key, value) in &page.items {
                print_item(key, value.as_ref(), out)?;
            }
            out.flush()?;
            match page.next {
                Some(next) if wanted > 0 => range.after = Some(next.to_vec()),
                Some(next) if !out.json => {
                    eprintln!("there is more: {}, or --all", self.next_command(&next));
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    /// The command that prints the next page.
    fn next_command(&self, after: &[u8]) -> String {
        let mut command = format!("vatn range --limit {}", self.limit);
        for (flag, is_given) in [("--reverse", self.reverse), ("--keys-only", self.keys_only)] {
            if is_given {
                command.push_str(&format!(" {flag}"));
            }
        }
        let option = |flag: &str, key: &[u8]| {
            let text = key::show(key);
            // A word that begins with a dash would be parsed as an option.
            let between = if text.starts_with('-') { '=' } else { ' ' };
            format!(" {flag}{between}{}", quoted(&text))
        };
        for (flag, key) in [("--from", &self.from), ("--to", &self.to)] {
            if let Some(key) = key {
                command.push_str(&option(flag, key.as_bytes()));
            }
        }
        command.push_str(&option("--after", after));
        let connect = &self.connection.connect;
        let is_known = std::env::var("VATN_CONNECT").is_ok_and(|known| known == *connect);
        if connect != DEFAULT_ROUTER && !is_known {
            command.push_str(&format!(" --connect {}", quoted(connect)));
        }
        if let Some(prefix) = &self.prefix {
            let text = key::show(prefix.as_bytes());
            let dashes = if text.starts_with('-') { " --" } else { "" };
            command.push_str(&format!("{dashes} {}", quoted(&text)));
        }
        command
    }

    async fn page(
        &self,
        client: &mut Client,
        range: &client::Range,
    ) -> Result<Page<(Bytes, Option<RawValue>)>, Failure> {
        if self.keys_only {
            let page = client.range_keys(range).await?;
            let items = page.items.into_iter().map(|key| (key, None)).collect();
            return Ok(Page { items, next: page.next });
        }
        let page = client.range(range).await?;
        let items = page.items.into_iter().map(|(key, value)| (key, Some(value))).collect();
        Ok(Page { items, next: page.next })
    }
}

fn print_item(key: &[u8], value: Option<&RawValue>, out: &mut Output) -> Result<(), Failure> {
    match (value, out.json) {
        (Some(value), true) => {
            out.json(&json!({ "key": json::key(key), "value": json::exact(value) }))
        }
        (None, true) => out.json(&json!({ "key": json::key(key) })),
        (Some(value), false) => {
            out.line(format!("{}\t{}", key::show(key), json::line(&value.value())))
        }
        (None, false) => out.line(key::show(key)),
    }
}
