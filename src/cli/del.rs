//! `vatn del`: deletes keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use clap::Args;
use serde_json::json;

use super::Failure;
use super::connection::{Connection, Writing, condition};
use super::key::{self, Key};
use super::output::Output;
use super::stop::exit_on_interrupt;
use crate::client::{Client, Condition, Range, WriteOptions};

const NOTE: &str = "\
Examples:
  vatn del boat:1 boat:2
  vatn del lock --if 812
  vatn del --prefix session:

Several keys are deleted as one atomic write. Those of a prefix are deleted page by page, each page
atomically. Prints how many there were. Exit code 3 when there were none.";

/// Delete keys, or all that begin with a prefix
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Del {
    /// The keys; a byte that cannot be typed is \xNN, a backslash \\
    #[arg(value_name = "KEY", value_parser = key::parser())]
    #[arg(required_unless_present_any = ["prefix", "all"], conflicts_with_all = ["prefix", "all"])]
    keys: Vec<Key>,

    /// Delete every key that begins with this prefix
    #[arg(long, value_name = "PREFIX", value_parser = key::parser(), conflicts_with = "all")]
    prefix: Option<Key>,

    /// Delete every key
    #[arg(long)]
    all: bool,

    /// Delete only if the key is present, or was last written with this sequence number
    #[arg(long = "if", value_name = "present|SEQ", value_parser = condition)]
    #[arg(conflicts_with_all = ["prefix", "all"])]
    condition: Option<Condition>,

    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    connection: Connection,
}

impl Del {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        if self.prefix.as_ref().is_some_and(|prefix| prefix.0.is_empty()) {
            return Err(Failure::usage("--prefix '': every key begins with that: say --all"));
        }
        if self.condition.is_some() && self.keys.len() > 1 {
            return Err(Failure::usage(
                "--if takes one key: each has a sequence number of its own",
            ));
        }
        let mut options = self.writing.options();
        options.condition = self.condition;
        let deleted = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&deleted);
        let is_one_write = !self.keys.is_empty();
        exit_on_interrupt(move || match counted.load(Relaxed) {
            _ if is_one_write => "interrupted; whether it took place is not known".to_owned(),
            count => format!("interrupted; {count} keys were deleted, and perhaps a page more"),
        })?;
        let mut client = self.connection.open().await?;
        let deleted = match self.keys.as_slice() {
            [] => {
                let prefix = self.prefix.clone().unwrap_or_default();
                delete_prefix(&mut client, prefix.0, &options, &deleted).await?
            }
            [key] => u64::from(client.delete(key.as_bytes(), &options).await?),
            keys => {
                let keys: Vec<&[u8]> = keys.iter().map(Key::as_bytes).collect();
                client.delete_multi(&keys, &options).await?
            }
        };
        let printed = match (out.json, deleted) {
            (true, _) => out.json(&json!({ "deleted": deleted })),
            (false, 0) => Ok(()),
            (false, _) => out.line(format!("{deleted} deleted")),
        };
        if deleted > 0 {
            return printed;
        }
        let failure = Failure::not_found(self.nothing());
        Err(failure.after(printed.and_then(|()| out.flush())))
    }

    fn nothing(&self) -> String {
        match &self.prefix {
            Some(prefix) => format!("no key begins with '{}'", key::show(prefix.as_bytes())),
            None if self.all => "there are no keys".to_owned(),
            None => {
                let names: Vec<_> = self.keys.iter().map(|key| key::show(key.as_bytes())).collect();
                format!("no key '{}'", names.join("', '"))
            }
        }
    }
}

/// Deletes the keys under `prefix`, page by page; returns how many. `deleted` holds the count so
/// far.
pub(super) async fn delete_prefix(
    client: &mut Client,
    prefix: Vec<u8>,
    options: &WriteOptions,
    deleted: &AtomicU64,
) -> Result<u64, Failure> {
    let mut range = Range { prefix: Some(prefix), ..Range::default() };
    loop {
        let count = deleted.load(Relaxed);
        let page = client.delete_range(&range, options).await.map_err(|error| {
            let failure = Failure::from(error);
            if count == 0 { failure } else { failure.adding(&format!("; {count} were deleted")) }
        })?;
        let count = count + page.count;
        deleted.store(count, Relaxed);
        let Some(next) = page.next else { return Ok(count) };
        range.after = Some(next.to_vec());
    }
}
