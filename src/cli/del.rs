//! `vatn del`: keys away.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use serde_json::json;

use super::connection::{Connection, Writing};
use super::output::Output;
use super::{Failure, json};

const NOTE: &str = "\
Several keys are deleted as one atomic write. Prints how many there were.";

/// Delete keys
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Del {
    /// The keys
    #[arg(required = true)]
    keys: Vec<OsString>,

    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    connection: Connection,
}

impl Del {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let options = self.writing.options();
        let mut client = self.connection.open().await?;
        let deleted = match self.keys.as_slice() {
            [key] => u64::from(client.delete(key.as_bytes(), &options).await?),
            keys => {
                let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
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
        let names: Vec<_> = self.keys.iter().map(|key| json::key_text(key.as_bytes())).collect();
        let failure = Failure::not_found(format!("no key '{}'", names.join("', '")));
        Err(failure.after(printed.and_then(|()| out.flush())))
    }
}
