//! `vatn watch`: changes as they happen.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use serde_json::{Value as Json, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::connection::{Patience, naming_flag};
use super::output::Output;
use super::{Failure, json};
use crate::client::{Change, Event, Subscriber};

const NOTE: &str = "\
Prints one change a line. What may have been missed is said too: for people on stderr, with
--json as {\"gap\": {\"after\": SEQ, \"through\": SEQ}}. Ctrl-C ends it.";

/// Follow changes until interrupted
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Watch {
    /// Only keys that begin with it
    #[arg(default_value = "", hide_default_value = true)]
    prefix: OsString,

    /// End after so many changes
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// The broker's change endpoint, tcp://HOST:PORT or ipc://PATH
    #[arg(long, env = "VATN_SUBSCRIBE", value_name = "ENDPOINT", help_heading = "Connection")]
    #[arg(default_value = "tcp://127.0.0.1:7534")]
    subscribe: String,

    #[command(flatten, next_help_heading = "Connection")]
    patience: Patience,
}

impl Watch {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let mut stop = Stop::new()?;
        let prefix = self.prefix.as_bytes();
        let options = self.patience.options();
        let mut subscriber = Subscriber::connect(&self.subscribe, prefix, &options)
            .await
            .map_err(|error| naming_flag("--subscribe", error))?;
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut begun = false;
        while left > 0 {
            let event = tokio::select! {
                event = subscriber.next() => event?,
                () = stop.asked() => break,
            };
            match event {
                Event::Change(change) => {
                    left -= 1;
                    print_change(&change, out)?;
                }
                Event::Beat { seq } => {
                    if !begun {
                        self.report_begin(seq, out)?;
                    }
                    begun = true;
                }
                Event::Gap { after, through } => report_gap(after, through, out)?,
                Event::Disconnected => {
                    eprintln!("{} is gone; waiting for it", subscriber.endpoint());
                }
                Event::Reconnected => eprintln!("{} is back", subscriber.endpoint()),
            }
            out.flush()?;
        }
        Ok(())
    }

    /// The first beat proves that the subscription has taken effect: nothing is missed from here.
    fn report_begin(&self, seq: u64, out: &mut Output) -> Result<(), Failure> {
        if out.json {
            return out.json(&json!({ "watching": json::key(self.prefix.as_bytes()), "seq": seq }));
        }
        let what = match self.prefix.as_bytes() {
            b"" => "all keys".to_owned(),
            prefix => format!("keys that begin with '{}'", json::key_text(prefix)),
        };
        eprintln!("watching {what} on {} since seq {seq}", self.subscribe);
        Ok(())
    }
}

fn print_change(change: &Change, out: &mut Output) -> Result<(), Failure> {
    if out.json {
        return out.json(&described(change));
    }
    let key = json::key_text(&change.key);
    let start = format!("{}\t{}\t{key}", change.seq, change.op.name());
    match &change.value {
        Some(value) => out.line(format!("{start}\t{}", json::show(&value.value()))),
        None => out.line(start),
    }
}

fn described(change: &Change) -> Json {
    let mut described = json!({
        "seq": change.seq,
        "op": change.op.name(),
        "key": json::key(&change.key),
        "index": change.index,
        "count": change.count,
        "prev": change.prev,
        "ttl_ms": change.ttl_ms,
        "durability": change.durability.name(),
    });
    if let (Some(value), Some(members)) = (&change.value, described.as_object_mut()) {
        members.insert("value".into(), json::exact(value));
    }
    described
}

fn report_gap(after: u64, through: u64, out: &mut Output) -> Result<(), Failure> {
    if out.json {
        return out.json(&json!({ "gap": { "after": after, "through": through } }));
    }
    if through < after {
        eprintln!("the sequence numbers went back from {after} to {through}: is it another store?");
    } else {
        eprintln!("changes after seq {after} up to {through} may have been missed");
    }
    Ok(())
}

/// The two signals that ask a process to end.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))
        };
        Ok(Stop {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
