//! `vatn check`: verifies a backup or a store.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use clap::Args;
use serde_json::json;

use super::Failure;
use super::output::Output;
use super::progress::Progress;
use super::stop::exit_on_interrupt;
use crate::storage::files;
use crate::storage::{StorageError, StoreView};
use crate::wal::archive_reader::ArchiveReader;
use crate::wal::check::{Checked, check};
use crate::wal::repair::{Repaired, repair};

const NOTE: &str = "\
Example:
  vatn check ./vatn-data --repair

Reads every byte and compares it with its checksum, and the tables with the log; changes nothing. \
The broker must not be running.

With --repair a damaged store is made anew of all that can be read; the damaged files are kept in \
DIR/damaged-1 (or -2, ...), to be removed when nothing of them is wanted any more. What is lost is \
listed: by key where keys are known, by seq or by a range of keys elsewhere. The store holds the \
newest value of each key that was found; where writes of the log are lost, that need not be the \
state at one moment.

Exit codes:
  0  it is whole; with --repair: it is whole now, and nothing was lost
  1  something is wrong, or it could not be read or repaired
  2  the command line makes no sense
  3  it was repaired and is whole now, and something was lost, which is listed";

/// Verify a backup, or the store in a directory
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Check {
    /// A file that `vatn backup` wrote, or the directory of a broker that is not running
    path: PathBuf,

    /// Keep what can be read of a damaged store, remove what cannot, and list what was lost
    #[arg(long)]
    repair: bool,
}

/// The result of a check.
#[derive(Default)]
struct Findings {
    faults: Vec<String>,
    done: Repaired,
    /// The contents of the store; empty where its creation was interrupted.
    checked: Option<Checked>,
    /// The path of the damaged store now.
    kept: Option<PathBuf>,
}

impl Check {
    pub(super) fn run(self, out: &mut Output) -> Result<(), Failure> {
        let metadata = std::fs::metadata(&self.path)
            .map_err(|error| self.failed(format!("it cannot be read: {error}")))?;
        if !metadata.is_dir() {
            return self.backup(metadata.len(), out);
        }
        if files::is_restoring(&self.path) {
            return Err(self.failed(files::IS_RESTORING));
        }
        if !files::is_store(&self.path) {
            return Err(self.failed("there is no store in it"));
        }
        let mut findings = Findings::default();
        self.unfinished(&mut findings)?;
        let mut progress = Progress::begin(None);
        let is_unmade = self.is_unmade()?;
        if findings.faults.is_empty() && !is_unmade {
            self.store(&mut progress, &mut findings)?;
        }
        progress.finish();
        let printed = self.print(&findings, out).and_then(|()| out.flush());
        match self.verdict(&findings) {
            Ok(()) => printed,
            Err(failure) => Err(failure.after(printed)),
        }
    }

    /// Completes or reports a repair that was interrupted after its store was complete.
    fn unfinished(&self, findings: &mut Findings) -> Result<(), Failure> {
        let failed = |error: std::io::Error| self.failed(error);
        let Some(left) = files::unfinished_repair(&self.path).map_err(failed)? else {
            return Ok(());
        };
        if !self.repair {
            let text = "a repair was cut short; the next start ends it, or --repair does";
            findings.faults.push(format!("{left}: {text}"));
            return Ok(());
        }
        match files::lock(&self.path).map_err(failed)? {
            Some(_lock) => files::finish_repair(&self.path).map_err(failed),
            None => Err(self.failed("another broker has it open; stop that one")),
        }
    }

    /// Whether nothing was written to the store yet, and no process is about to.
    fn is_unmade(&self) -> Result<bool, Failure> {
        let _lock = match files::lock(&self.path) {
            Ok(None) => return Ok(false),
            lock => lock,
        };
        files::is_unmade(&self.path).map_err(|error| self.failed(error))
    }

    fn failed(&self, what: impl std::fmt::Display) -> Failure {
        Failure::failed(format!("{}: {what}", self.path.display()))
    }

    fn backup(&self, size: u64, out: &mut Output) -> Result<(), Failure> {
        if self.repair {
            let text = "--repair is for a store; a damaged backup is replaced by a new one";
            return Err(Failure::usage(text));
        }
        let mut progress = Progress::begin(Some(size));
        let (read, path) = (progress.counter(), self.path.clone());
        exit_on_interrupt(move || {
            let (read, path) = (read.load(Ordering::Relaxed), path.display());
            format!("{path}: interrupted after {read} items were read, in which nothing was wrong")
        })?;
        let file = File::open(&self.path).map_err(|error| self.failed(error))?;
        let mut done = 0;
        let verified = ArchiveReader::open(BufReader::new(file)).and_then(|archive| {
            archive.verify(&mut |items, bytes| {
                progress.advance(items - done, bytes);
                done = items;
            })
        });
        let (origin, summary) = match verified {
            Ok(verified) => verified,
            Err(error) => {
                let printed = match out.json {
                    true => out.json(&json!({ "ok": false, "faults": [error.to_string()] })),
                    false => Ok(()),
                };
                return Err(self.failed(error).after(printed.and_then(|()| out.flush())));
            }
        };
        let store_id = format!("{:032x}", u128::from_be_bytes(origin.store_id));
        progress.finish();
        if out.json {
            return out.json(&json!({
                "ok": true, "faults": [], "seq": summary.seq, "items": summary.entries,
                "changes": summary.changes, "bytes": summary.bytes, "store_id": store_id,
                "began_ms": origin.time_ms, "finished_ms": summary.time_ms,
            }));
        }
        out.line(format!(
            "a whole backup of store {store_id} at seq {}: {} items and {} changes made meanwhile, \
             {} bytes",
            summary.seq, summary.entries, summary.changes, summary.bytes
        ))
    }

    /// Checks the files, then their contents; repairs faults on request.
    fn store(&self, progress: &mut Progress, findings: &mut Findings) -> Result<(), Failure> {
        let (read, path, is_repair) = (progress.counter(), self.path.clone(), self.repair);
        exit_on_interrupt(move || {
            let (read, path) = (read.load(Ordering::Relaxed), path.display());
            let rest = match is_repair {
                true => "repair was cut short: run it again",
                false => "nothing was changed",
            };
            format!("{path}: interrupted after {read} items and records were read; {rest}")
        })?;
        let mut done = 0;
        let mut report = |read: u64| {
            progress.advance(read.saturating_sub(done), read);
            done = read;
        };
        let (view, faults) = StoreView::open(&self.path, &mut |_| {}).map_err(refused)?;
        let checked = check(&view, &mut report).map_err(refused)?;
        findings.faults.extend(faults.iter().map(ToString::to_string));
        let is_harmless = faults.iter().all(files::is_about_no_data);
        if is_harmless {
            // Faults of rows in damaged files are consequences.
            let rows =
                checked.faults.iter().map(|fault| format!("{}: {}", fault.place, fault.what));
            findings.faults.extend(rows);
        }
        if findings.faults.is_empty() || !self.repair {
            findings.checked = Some(checked);
            return Ok(());
        }
        for fault in faults.iter().filter(|fault| files::is_about_no_data(fault)) {
            let made = files::make_anew(&self.path, fault).map_err(|error| self.failed(error))?;
            findings.done.mended.push(format!("{}: {made}", fault.file.display()));
        }
        findings.checked = Some(match is_harmless && checked.faults.is_empty() {
            true => checked,
            false => {
                let repaired = repair(&self.path, &view, &checked, &mut report).map_err(refused)?;
                let data = faults.iter().filter(|fault| !files::is_about_no_data(fault));
                let made = data.map(|fault| format!("{}: made anew", fault.file.display()));
                findings.done.mended.extend(made.chain(repaired.done.mended));
                findings.done.lost.extend(repaired.done.lost);
                findings.kept = Some(repaired.kept);
                repaired.checked
            }
        });
        Ok(())
    }

    fn print(&self, findings: &Findings, out: &mut Output) -> Result<(), Failure> {
        let Findings { faults, done, checked, kept } = findings;
        if out.json {
            let is_sound = faults.is_empty() || self.repair;
            let mut described = json!({
                "ok": faults.is_empty(), "sound": is_sound, "faults": faults,
                "repaired": self.repair, "mended": done.mended, "lost": done.lost,
                "kept": kept.as_ref().map(|kept| kept.display().to_string()),
            });
            if let (Some(checked), Some(members)) = (checked, described.as_object_mut()) {
                members.insert("items".into(), json!(checked.items));
                members.insert("records".into(), json!(checked.records));
                members.insert("segments".into(), json!(checked.segments));
                members.insert("seq".into(), json!(checked.last_seq));
                members.insert("checkpointed".into(), json!(checked.checkpointed));
            }
            return out.json(&described);
        }
        for fault in faults {
            out.line(format!("wrong: {fault}"))?;
        }
        for mended in &done.mended {
            out.line(format!("mended: {mended}"))?;
        }
        for lost in &done.lost {
            out.line(format!("lost: {lost}"))?;
        }
        if let Some(kept) = kept {
            out.line(format!("kept: the damaged store, in {}", kept.display()))?;
        }
        let Some(checked) = checked else {
            return out.line("nothing was written to it yet: the next start makes it anew");
        };
        out.line(format!(
            "{} items in the tables, {} records in {} log segments, up to seq {}",
            checked.items, checked.records, checked.segments, checked.last_seq
        ))
    }

    /// The verdict on a store with faults.
    fn verdict(&self, findings: &Findings) -> Result<(), Failure> {
        let faults = findings.faults.len();
        let things = if faults == 1 { "1 fault".to_owned() } else { format!("{faults} faults") };
        let Repaired { mended, lost } = &findings.done;
        match (self.repair, lost.len()) {
            (_, _) if faults == 0 => Ok(()),
            (false, _) => Err(self.failed(format!("{things}; --repair keeps what can be read"))),
            (true, 0) => Ok(()),
            (true, losses) => {
                let text = format!("{things} repaired: {} mended, {losses} lost", mended.len());
                Err(Failure::with_loss(format!("{}: {text}", self.path.display())))
            }
        }
    }
}

fn refused(error: StorageError) -> Failure {
    Failure::failed(error.to_string())
}
