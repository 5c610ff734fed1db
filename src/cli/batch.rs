//! `vatn batch`: executes many commands as one atomic write.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value as Json;

use super::connection::{Connection, Writing};
use super::lines::{Lines, Place};
use super::output::Output;
use super::{Failure, json};
use crate::client::{ClientError, Request};

const NOTE: &str = "\
Example:
  printf '%s\\n' '[\"set\", [\"a\", 1]]' '[\"incr\", [\"n\", {\"initial\": 0}]]' | vatn batch

Each line is [\"method\", [arguments…]] as the protocol has it, such as [\"set\", [\"k\", 1]]. All
of them take place or none. Prints one result a line.";

/// Execute many commands as one atomic write
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Batch {
    /// A file of JSON Lines; - is standard input
    #[arg(default_value = "-")]
    file: PathBuf,

    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    connection: Connection,
}

impl Batch {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let mut lines = Lines::open(&self.file)?;
        let mut requests = Vec::new();
        let mut places = Vec::new();
        while let Some((place, line)) = lines.next()? {
            requests.push(request(&line).map_err(|reason| place.failure(reason))?);
            places.push(place);
        }
        let mut client = self.connection.open().await?;
        let outcome = client.batch(&requests, self.writing.durability).await;
        let results = outcome.map_err(|error| match refused_at(&error, &places) {
            Some(place) => Failure::from(error).at(place),
            None => error.into(),
        })?;
        if out.json {
            return out.json(&results.iter().map(json::exact).collect());
        }
        for result in results {
            out.line(json::line(&result.value()))?;
        }
        Ok(())
    }
}

/// The line of the refused command.
fn refused_at<'a>(error: &ClientError, places: &'a [Place]) -> Option<&'a Place> {
    let ClientError::Refused(refusal) = error else { return None };
    let (_, index) = refusal.details.iter().find(|(name, _)| name == "index")?;
    places.get(usize::try_from(index.as_u64()?).ok()?)
}

fn request(line: &Json) -> Result<Request, String> {
    let Some([Json::String(method), Json::Array(arguments)]) = line.as_array().map(Vec::as_slice)
    else {
        return Err("a line is [\"method\", [arguments…]]".to_owned());
    };
    arguments.iter().try_fold(Request::new(method.as_str()), |request, argument| {
        Ok(request.argument(&json::pack(argument)?))
    })
}
