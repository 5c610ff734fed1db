//! `vatn watch`: prints changes as they happen, and the gaps in them.

use clap::Args;
use serde_json::json;

use super::connection::{Patience, naming_flag};
use super::key::{self, Key};
use super::output::Output;
use super::stop::{Stop, unless_interrupted};
use super::{Failure, change, json};
use crate::client::{ClientError, Event, Follower};

const NOTE: &str = "\
Examples:
  vatn watch boat:
  vatn watch --from 0 --json

Prints one change a line. Where changes were lost on the way, as over a reconnect, they are fetched
with `changes` from --connect, in order. What cannot be fetched any more is said: for people on
stderr, with --json as {\"gap\": {\"after\": SEQ, \"through\": SEQ}}; with --from it is an error.
Ctrl-C ends it.";

const SUBSCRIBE: &str = "tcp://127.0.0.1:7534";
const CONNECT: &str = "tcp://127.0.0.1:7533";

/// Follow changes until interrupted
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Watch {
    /// Only keys that begin with this prefix
    #[arg(default_value = "", hide_default_value = true, value_parser = key::parser())]
    prefix: Key,

    /// Begin with the changes of writes later than this; 0 means from the beginning
    #[arg(long, value_name = "SEQ")]
    from: Option<u64>,

    /// End after this many changes
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// The broker's change endpoint, tcp://HOST:PORT or ipc://PATH
    #[arg(long, env = "VATN_SUBSCRIBE", value_name = "ENDPOINT", help_heading = "Connection")]
    #[arg(default_value = SUBSCRIBE)]
    subscribe: String,

    /// The same broker's command endpoint, for what was missed [default: tcp://127.0.0.1:7533 where
    /// --subscribe has its default too]
    #[arg(long, env = "VATN_CONNECT", value_name = "ENDPOINT", help_heading = "Connection")]
    connect: Option<String>,

    #[command(flatten, next_help_heading = "Connection")]
    patience: Patience,
}

impl Watch {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let mut follower = unless_interrupted(self.open()).await?;
        let mut stop = Stop::new()?;
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut begun = false;
        while left > 0 {
            let event = tokio::select! {
                event = follower.next() => event,
                () = stop.requested() => break,
            };
            match event {
                Ok(Event::Change(change)) => {
                    left -= 1;
                    change::print(&change, out)?;
                }
                Ok(Event::Beat { seq }) => {
                    if !begun {
                        self.report_begin(seq, out)?;
                    }
                    begun = true;
                }
                Ok(Event::Gap { after, through }) => self.report_gap(after, through, out)?,
                Ok(Event::Disconnected) => {
                    eprintln!("{} is gone; waiting for it", follower.endpoint());
                }
                Ok(Event::Reconnected) => eprintln!("{} is back", follower.endpoint()),
                Err(error) => self.go_on_after(error, &mut follower)?,
            }
            out.flush()?;
        }
        Ok(())
    }

    async fn open(&self) -> Result<Follower, Failure> {
        let prefix = self.prefix.as_bytes();
        let router = match &self.connect {
            Some(given) => Some(given.as_str()),
            None if self.subscribe == SUBSCRIBE => Some(CONNECT),
            None => None,
        };
        if self.from.is_some() && router.is_none() {
            let text = "--from needs --connect, the command endpoint of the broker at --subscribe";
            return Err(Failure::usage(text));
        }
        let options = self.patience.options();
        let follower =
            Follower::connect(&self.subscribe, router, prefix, self.from, &options).await;
        follower.map_err(|error| match &error {
            ClientError::BadEndpoint(bad) if bad.text != self.subscribe => {
                naming_flag("--connect", error)
            }
            _ => naming_flag("--subscribe", error),
        })
    }

    /// A watch from a seq needs every change, and fails; a watch of the present continues.
    fn go_on_after(&self, error: ClientError, follower: &mut Follower) -> Result<(), Failure> {
        if self.from.is_some() || !follower.is_missing() {
            return Err(error.into());
        }
        eprintln!("{}", Failure::from(error));
        follower.give_up();
        Ok(())
    }

    /// The first beat proves that the subscription has taken effect: nothing is missed from here
    /// on.
    fn report_begin(&self, seq: u64, out: &mut Output) -> Result<(), Failure> {
        let seq = self.from.unwrap_or(seq);
        if out.json {
            return match self.from {
                // The lines already contain everything since then.
                Some(_) => Ok(()),
                None => {
                    let prefix = json::key(self.prefix.as_bytes());
                    out.json(&json!({ "watching": prefix, "seq": seq }))
                }
            };
        }
        let what = match self.prefix.as_bytes() {
            b"" => "all keys".to_owned(),
            prefix => format!("keys that begin with '{}'", key::show(prefix)),
        };
        eprintln!("watching {what} on {} since seq {seq}", self.subscribe);
        Ok(())
    }

    fn report_gap(&self, after: u64, through: u64, out: &mut Output) -> Result<(), Failure> {
        if self.from.is_some() {
            return Err(Failure::failed(format!(
                "{} went from seq {after} to {through}: another history; take the state anew",
                self.subscribe
            )));
        }
        if out.json {
            return out.json(&json!({ "gap": { "after": after, "through": through } }));
        }
        if through < after {
            eprintln!("the sequence numbers went back from {after} to {through}: another store?");
        } else {
            eprintln!("changes after seq {after} up to {through} may have been missed");
        }
        Ok(())
    }
}
