//! `vatn check`: is it as it was written?

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use clap::Args;
use serde_json::{Value as Json, json};

use super::Failure;
use super::output::Output;
use super::progress::Progress;
use super::stop::exit_when_asked;
use crate::disk::files::{self, Depth, FileFault};
use crate::disk::{DiskError, FjallDisk};
use crate::log::archive_reader::ArchiveReader;
use crate::log::check::{Checked, check};
use crate::log::repair::{Repaired, repair};

const NOTE: &str = "\
Example:
  vatn check ./vatn-data

Reads every byte and compares it with its checksum, and the tables with the log. The broker must
not be running. Exit code 1 says that something is wrong, or was, where --repair put it right.";

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

/// What a check of a store came to.
#[derive(Default)]
struct Findings {
    faults: Vec<String>,
    done: Repaired,
    /// The store, when it could be read.
    checked: Option<Checked>,
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
        let mut progress = Progress::begin(None);
        let mut findings = Findings::default();
        self.store(&mut progress, &mut findings)?;
        progress.finish();
        let printed = self.print(&findings, out).and_then(|()| out.flush());
        match findings.faults.len() {
            0 => printed,
            faults => Err(self.failed(self.verdict(faults, &findings)).after(printed)),
        }
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
        exit_when_asked(move || {
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

    /// The files first: fjall is to open nothing that it would believe wrongly.
    fn store(&self, progress: &mut Progress, findings: &mut Findings) -> Result<(), Failure> {
        let (read, path, is_repair) = (progress.counter(), self.path.clone(), self.repair);
        exit_when_asked(move || {
            let (read, path) = (read.load(Ordering::Relaxed), path.display());
            let rest = match is_repair {
                true => "repair was cut short: run it again",
                false => "nothing was changed",
            };
            format!("{path}: interrupted after {read} items and records were read; {rest}")
        })?;
        let failed = |error: DiskError| Failure::failed(error.to_string());
        let inspect = || {
            let inspected = FjallDisk::inspect(&self.path, Depth::Whole, &mut |_| {});
            inspected.map(|inspection| inspection.faults).map_err(failed)
        };
        let faults = inspect()?;
        findings.faults.extend(faults.iter().map(ToString::to_string));
        if self.repair {
            for fault in &faults {
                self.mend_file(fault, &mut findings.done)?;
            }
            if let Some(fault) = inspect()?.first() {
                let text = format!("{fault}; that cannot be mended here: restore a backup");
                return Err(self.failed(text));
            }
        } else if !faults.is_empty() {
            // Opening it would change it.
            return Ok(());
        }
        let Some(disk) = self.open(findings)? else { return Ok(()) };
        let mut done = 0;
        let mut report = |read: u64| {
            progress.advance(read - done, read);
            done = read;
        };
        let mut checked = check(&disk, &mut report).map_err(failed)?;
        findings.faults.extend(checked.faults.iter().map(|f| format!("{}: {}", f.place, f.what)));
        if self.repair && !checked.faults.is_empty() {
            let repaired = repair(&disk, &checked).map_err(failed)?;
            findings.done.mended.extend(repaired.mended);
            findings.done.lost.extend(repaired.lost);
            checked = check(&disk, &mut |_| {}).map_err(failed)?;
            if let Some(fault) = checked.faults.first() {
                return Err(self.failed(format!("{}: {}: it stays", fault.place, fault.what)));
            }
        }
        findings.checked = Some(checked);
        Ok(())
    }

    /// Opens the store, unless something is missing of its log that shows only now, and stays.
    fn open(&self, findings: &mut Findings) -> Result<Option<FjallDisk>, Failure> {
        let mut mend = |fault: &FileFault| {
            let text = fault.to_string();
            let is_known = findings.faults.contains(&text);
            if !is_known {
                findings.faults.push(text);
            }
            if !self.repair || is_known {
                return Ok(false);
            }
            let mended = self.mend_file(fault, &mut findings.done);
            mended.map(|()| true).map_err(|failure| DiskError::new("mending", failure))
        };
        match FjallDisk::open_or(&self.path, &mut mend) {
            Ok(disk) => Ok(Some(disk)),
            Err(_) if !self.repair && !findings.faults.is_empty() => Ok(None),
            Err(error) => Err(Failure::failed(error.to_string())),
        }
    }

    fn mend_file(&self, fault: &FileFault, done: &mut Repaired) -> Result<(), Failure> {
        let failed = |error| self.failed(format!("{}: {error}", fault.file.display()));
        if let Some(mended) = files::mend(&self.path, fault).map_err(failed)? {
            let list = if mended.is_loss { &mut done.lost } else { &mut done.mended };
            list.push(format!("{}: {}", fault.file.display(), mended.what));
        }
        Ok(())
    }

    fn print(&self, findings: &Findings, out: &mut Output) -> Result<(), Failure> {
        let Findings { faults, done, checked } = findings;
        if out.json {
            let mut described = json!({
                "ok": faults.is_empty(), "faults": faults, "repaired": self.repair,
                "mended": done.mended, "lost": done.lost,
            });
            if let (Some(checked), Some(members)) = (checked, described.as_object_mut()) {
                members.insert("items".into(), json!(checked.items));
                members.insert("records".into(), json!(checked.records));
                members.insert("segments".into(), json!(checked.segments));
                members.insert("seq".into(), json!(checked.last_seq));
                members.insert("in_tables".into(), json!(checked.in_tables));
            } else if let Some(members) = described.as_object_mut() {
                members.insert("items".into(), Json::Null);
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
        match checked {
            Some(checked) => out.line(format!(
                "{} items in the tables, {} records in {} log segments, up to seq {}",
                checked.items, checked.records, checked.segments, checked.last_seq
            )),
            None => out.line("the tables and the log were not read: opening them would lose more"),
        }
    }

    fn verdict(&self, faults: usize, findings: &Findings) -> String {
        let things = if faults == 1 { "1 fault".to_owned() } else { format!("{faults} faults") };
        let Repaired { mended, lost } = &findings.done;
        match self.repair {
            true => {
                format!("{things} repaired: {} mended, {} lost", mended.len(), lost.len())
            }
            false => format!("{things}; --repair keeps what can be read"),
        }
    }
}
