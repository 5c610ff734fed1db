//! `vatn range`: keys and values in order.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use bytes::Bytes;
use clap::Args;
use serde_json::json;

use super::connection::Connection;
use super::output::Output;
use super::{Failure, json};
use crate::client::{self, Client, Packed, Page};

const NOTE: &str = "\
Prints one key and its value a line, in the bytewise order of the keys; with --json one
object a line.";

/// Print keys and values in the order of the keys
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Range {
    /// Only keys that begin with it
    prefix: Option<OsString>,

    /// Begin with this key
    #[arg(long, value_name = "KEY")]
    from: Option<OsString>,

    /// Begin after this key
    #[arg(long, value_name = "KEY")]
    after: Option<OsString>,

    /// End before this key
    #[arg(long, value_name = "KEY")]
    to: Option<OsString>,

    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,

    /// All of them, however many
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
        let bytes = |text: &Option<OsString>| text.clone().map(OsStringExt::into_vec);
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
            // The broker has a cap of its own; a page may be shorter than what is wanted.
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
                    eprintln!("there is more: --after '{}', or --all", json::key_text(&next));
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    async fn page(
        &self,
        client: &mut Client,
        range: &client::Range,
    ) -> Result<Page<(Bytes, Option<Packed>)>, Failure> {
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

fn print_item(key: &[u8], value: Option<&Packed>, out: &mut Output) -> Result<(), Failure> {
    match (value, out.json) {
        (Some(value), true) => {
            out.json(&json!({ "key": json::key(key), "value": json::exact(value) }))
        }
        (None, true) => out.json(&json!({ "key": json::key(key) })),
        (Some(value), false) => {
            out.line(format!("{}\t{}", json::key_text(key), json::show(&value.value())))
        }
        (None, false) => out.line(json::key_text(key)),
    }
}
