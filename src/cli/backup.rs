//! `vatn backup`: writes a consistent state of a running broker to a file, while writes go on.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use rmpv::Value;
use serde_json::json;

use super::Failure;
use super::atomic_file::AtomicFile;
use super::connection::Connection;
use super::output::Output;
use super::progress::Progress;
use super::stop::{unless_interrupted, unless_stopped};
use crate::client::{Change as ClientChange, Client, ClientError, HistoryOptions, Range, RawValue};
use crate::clock::{Clock, Millis};
use crate::protocol::{Change, Level, Op, Seq};
use crate::wal::archive::{ArchiveWriter, Origin, Summary};

/// How often the last times of expiry are requested while their keys keep changing.
const ROUNDS_MAX: usize = 5;
/// How long a write may take from its application to its appearance in the history.
const SETTLE: Duration = Duration::from_secs(10);
/// Keys requested in one message.
const ASK_KEYS: usize = 500;

const NOTE: &str = "\
Example:
  vatn backup vatn.backup

The broker goes on writing. The file is the state right after one write, whose seq is printed
and kept in it; what is of level memory is left out. `vatn check FILE` verifies it, and
`vatn restore FILE -b DIR` makes a store of it.";

/// Write a consistent backup of a running broker
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Backup {
    /// The file to write, replaced when all is written; - is standard output
    file: PathBuf,

    #[command(flatten)]
    connection: Connection,
}

impl Backup {
    pub(super) async fn run(self, out: &mut Output) -> Result<(), Failure> {
        let client = unless_interrupted(self.connection.open()).await?;
        let destination = Destination::open(self.file.clone())?;
        let is_file = destination.is_file();
        let copy = unless_stopped(is_file, async {
            let mut copy = Copy::begin(client, destination).await?;
            copy.entries().await?;
            copy.expiries().await.map(|()| copy)
        })
        .await?;
        let sentence = copy.progress.finish();
        let (mut described, store_id) = (copy.progress.described(), copy.store_id.clone());
        let (destination, summary) = copy.finish()?;
        destination.finish()?;
        let Summary { seq, changes, bytes, .. } = summary;
        if out.json && is_file {
            if let Some(members) = described.as_object_mut() {
                members.insert("changes".into(), json!(changes));
                members.insert("seq".into(), json!(seq));
                members.insert("bytes".into(), json!(bytes));
                members.insert("store_id".into(), json!(store_id));
            }
            return out.json(&described);
        }
        let line = format!(
            "{sentence}; with {changes} changes made meanwhile, the state at seq {seq}, \
             {bytes} bytes"
        );
        match is_file {
            true => out.line(line),
            false => {
                eprintln!("{line}");
                Ok(())
            }
        }
    }
}

/// A backup in progress.
struct Copy {
    client: Client,
    clock: Clock,
    archive: ArchiveWriter<Destination>,
    progress: Progress,
    store_id: String,
    /// The broker's last two seqs, with their times: later writes have a larger seq.
    seen: [(Seq, Millis); 2],
    /// The backup is complete up to this seq.
    seq: Seq,
    /// Keys that got a time to live meanwhile. A change states the time to live and not the time of
    /// the change.
    mortal: BTreeMap<Bytes, Mortal>,
}

/// A value that expires, written during the backup.
struct Mortal {
    seq: Seq,
    /// The entry as later read from the broker: its time of expiry is exact.
    exact: Option<(RawValue, Level, Millis)>,
}

impl Copy {
    async fn begin(mut client: Client, destination: Destination) -> Result<Self, Failure> {
        let clock = Clock::system();
        let began = clock.now();
        let hello = client.hello().await?;
        let strange = || Failure::failed("the broker's hello has no seq or no store_id");
        let seq = member(&hello, "seq").and_then(Value::as_u64).ok_or_else(strange)?;
        let store_id = member(&hello, "store_id").and_then(Value::as_str).map(str::to_owned);
        let store_id = store_id.ok_or_else(strange)?;
        let id_bytes = u128::from_str_radix(&store_id, 16).map_err(|_| strange())?;
        let origin = Origin { store_id: id_bytes.to_be_bytes(), first_seq: seq, time_ms: began };
        let progress = Progress::begin(Some(client.count(b"").await?));
        let archive = ArchiveWriter::begin(destination, &origin).map_err(unwritten)?;
        let mortal = BTreeMap::new();
        let seen = [(seq, began); 2];
        Ok(Copy { client, clock, archive, progress, store_id, seen, seq, mortal })
    }

    /// Copies the entries page by page, and after each page the changes made meanwhile.
    async fn entries(&mut self) -> Result<(), Failure> {
        let (mut range, mut seen) = (Range::default(), 0);
        loop {
            // Taken before the broker states the remaining times, so that no value outlives its
            // time.
            let now = self.clock.now();
            let page = self.client.range_entries(&range).await?;
            let mut kept = 0;
            for (key, entry) in &page.items {
                if entry.durability != Level::Memory {
                    let expires_at = entry.ttl_ms.map(|ttl| now.saturating_add(ttl));
                    let value = entry.value.as_bytes();
                    let entry = set(entry.seq, entry.durability, now, expires_at, key, value);
                    self.archive.entry(&entry).map_err(unwritten)?;
                    kept += 1;
                }
            }
            seen += page.items.len() as u64;
            self.progress.advance(kept, seen);
            // Copied now, while the broker still holds this history.
            self.catch_up().await?;
            let Some(next) = page.next else { return Ok(()) };
            range.after = Some(next.to_vec());
        }
    }

    /// Copies the changes made meanwhile, up to now.
    async fn catch_up(&mut self) -> Result<(), Failure> {
        let now = self.clock.now();
        let hello = self.client.hello().await?;
        let target = member(&hello, "seq").and_then(Value::as_u64).unwrap_or(self.seq);
        self.seen = [self.seen[1], (target, now)];
        while self.seq < target {
            // The last write has been applied, and may not be in the history yet.
            let options = HistoryOptions { wait: SETTLE, ..HistoryOptions::default() };
            let history = self.client.changes(self.seq, &options).await.map_err(outrun)?;
            let now = self.clock.now();
            for change in &history.changes {
                self.change(change, now)?;
            }
            if history.next <= self.seq {
                let text = format!(
                    "the broker says nothing of the changes after seq {} up to {target}",
                    self.seq
                );
                return Err(Failure::failed(text));
            }
            self.seq = history.next;
        }
        Ok(())
    }

    fn change(&mut self, change: &ClientChange, now: Millis) -> Result<(), Failure> {
        let is_kept = change.durability != Level::Memory;
        match (change.op, change.ttl_ms) {
            (Op::Set | Op::Touch, Some(_)) if is_kept => {
                let mortal = Mortal { seq: change.seq, exact: None };
                self.mortal.insert(change.key.clone(), mortal);
            }
            _ => {
                self.mortal.remove(&change.key);
            }
        }
        // A first estimate: counted from a time before the write.
        let [before, latest] = self.seen;
        let since = if change.seq > latest.0 { latest.1 } else { before.1 };
        let expires_at = change.ttl_ms.map(|ttl| since.saturating_add(ttl));
        let value = change.value.as_ref().map_or(&[][..], RawValue::as_bytes);
        let set = set(change.seq, change.durability, now, expires_at, &change.key, value);
        self.archive.change(&Change { op: change.op, ..set }).map_err(unwritten)
    }

    /// The exact times of expiry of the values written meanwhile, from their entries. For a key
    /// that was written again, the changes are copied first.
    async fn expiries(&mut self) -> Result<(), Failure> {
        for _ in 0..ROUNDS_MAX {
            if self.ask_expiries().await? {
                break;
            }
            self.catch_up().await?;
        }
        for (key, mortal) in &self.mortal {
            if let Some((value, level, expires_at)) = &mortal.exact {
                let time = self.clock.now();
                let value = value.as_bytes();
                let entry = set(mortal.seq, *level, time, Some(*expires_at), key, value);
                self.archive.entry(&entry).map_err(unwritten)?;
            }
        }
        Ok(())
    }

    /// Whether all times are known now.
    async fn ask_expiries(&mut self) -> Result<bool, Failure> {
        let unknown = self.mortal.iter().filter(|(_, mortal)| mortal.exact.is_none());
        let keys: Vec<Bytes> = unknown.map(|(key, _)| key.clone()).collect();
        let mut all = true;
        for keys in keys.chunks(ASK_KEYS) {
            let now = self.clock.now();
            let entries = self.client.entries(keys).await?;
            for (key, entry) in keys.iter().zip(entries) {
                let Some(mortal) = self.mortal.get_mut(key) else { continue };
                let found = entry.filter(|entry| entry.seq == mortal.seq);
                let exact = found.and_then(|entry| {
                    let expires_at = now.saturating_add(entry.ttl_ms?);
                    Some((entry.value, entry.durability, expires_at))
                });
                all &= exact.is_some();
                mortal.exact = exact;
            }
        }
        Ok(all)
    }

    fn finish(self) -> Result<(Destination, Summary), Failure> {
        self.archive.finish(self.seq, self.clock.now()).map_err(unwritten)
    }
}

fn set<'a>(
    seq: Seq,
    level: Level,
    time_ms: Millis,
    expires_at: Option<Millis>,
    key: &'a [u8],
    value: &'a [u8],
) -> Change<'a> {
    let (op, index, count, covers) = (Op::Set, 0, 1, false);
    Change { seq, time_ms, level, index, count, op, covers, expires_at, key, value }
}

fn member<'v>(map: &'v Value, name: &str) -> Option<&'v Value> {
    let mut members = map.as_map()?.iter();
    members.find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
}

/// The history was trimmed faster than the backup could read.
fn outrun(error: ClientError) -> Failure {
    if error.code() != Some("COMPACTED") {
        return error.into();
    }
    Failure::failed(format!(
        "{error}: more was written while the backup was made than the broker keeps as history; \
         serve with a larger --retain-bytes (and --retain-age-ms), or back up when less is written"
    ))
}

fn unwritten(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::failed("the reader of the backup has closed it"),
        _ => Failure::failed(format!("cannot write the backup: {error}")),
    }
}

/// The destination of the backup.
#[derive(Debug)]
enum Destination {
    File(AtomicFile),
    Stdout(BufWriter<Stdout>),
}

impl Destination {
    fn open(path: PathBuf) -> Result<Self, Failure> {
        if path.as_os_str() != "-" {
            return Ok(Destination::File(AtomicFile::begin(path)?));
        }
        match io::stdout().is_terminal() {
            true => Err(Failure::usage("a backup is not for a terminal: name a file, or pipe it")),
            false => Ok(Destination::Stdout(BufWriter::with_capacity(1 << 18, io::stdout()))),
        }
    }

    /// Whether it goes to a file, and not to a reader.
    fn is_file(&self) -> bool {
        match self {
            Destination::File(file) => file.is_file(),
            Destination::Stdout(_) => false,
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Destination::File(file) => file.finish(),
            Destination::Stdout(mut out) => out.flush().map_err(unwritten),
        }
    }
}

impl Write for Destination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Destination::File(file) => file.write(bytes),
            Destination::Stdout(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Destination::File(file) => file.flush(),
            Destination::Stdout(out) => out.flush(),
        }
    }
}
