//! `vatn stats`: prints the broker's statistics.

use clap::Args;
use serde_json::Value as Json;

use super::connection::Connection;
use super::output::Output;
use super::{Failure, json};

const NOTE: &str = "\
Example:
  vatn stats --json

The first line is LeakDB's: PATH N bytes :: N items in queue :: N items in storage memory.";

/// Print the broker's figures
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Stats {
    #[command(flatten)]
    connection: Connection,
}

impl Stats {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let mut client = self.connection.open().await?;
        let stats = json::show(&client.stats().await?);
        if out.json {
            return out.json(&stats);
        }
        let mut figures = Vec::new();
        flatten("", &stats, &mut figures);
        if let Some((_, status)) = figures.iter().find(|(name, _)| name == "status") {
            out.line(status)?;
        }
        figures.retain(|(name, _)| name != "status");
        let width = figures.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, figure) in figures {
            out.line(format!("{name:width$}  {figure}"))?;
        }
        Ok(())
    }
}

/// Names each figure by its path: `write_queue.items`.
fn flatten(path: &str, json: &Json, figures: &mut Vec<(String, String)>) {
    match json {
        Json::Object(members) => {
            for (name, member) in members {
                let dot = if path.is_empty() { "" } else { "." };
                flatten(&format!("{path}{dot}{name}"), member, figures);
            }
        }
        Json::String(text) => figures.push((path.to_owned(), text.clone())),
        other => figures.push((path.to_owned(), other.to_string())),
    }
}
