//! `vatn restore`: makes a store from a backup.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use clap::Args;
use serde_json::json;

use super::Failure;
use super::output::Output;
use super::progress::Progress;
use super::stop::exit_on_interrupt;
use crate::clock::Clock;
use crate::protocol::hex;
use crate::storage::{FjallStorage, files};
use crate::wal::archive_reader::ArchiveReader;
use crate::wal::restore::{RestoreError, Restored, restore};

const NOTE: &str = "\
Example:
  vatn restore vatn.backup -b ./vatn-data

The backup is verified first. `vatn serve -b DIR` then continues after its seq, as a store with a
new id: followers of the old store must start again. Values that have expired meanwhile are left
out.";

/// Make a store of a backup
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Restore {
    /// The backup, as `vatn backup` wrote it
    file: PathBuf,

    /// The directory of the new store: one that is empty, or not there yet
    #[arg(short = 'b', long, env = "VATN_DATABASE", value_name = "DIR")]
    database: PathBuf,
}

impl Restore {
    pub(super) fn run(self, out: &mut Output) -> Result<(), Failure> {
        let is_begun = Arc::new(AtomicBool::new(false));
        let (has_part, path) = (Arc::clone(&is_begun), self.database.clone());
        exit_on_interrupt(move || match has_part.load(Relaxed) {
            true => {
                format!("interrupted; {} holds a part of the backup: remove it", path.display())
            }
            false => "interrupted; nothing was written".to_owned(),
        })?;
        let mut folder = NewFolder::begin(&self.database)?;
        let size = open(&self.file)?.metadata().map_or(0, |metadata| metadata.len());
        // The file is read twice.
        let mut progress = Progress::begin(Some(2 * size));
        let unreadable = |error| Failure::failed(format!("{}: {error}", self.file.display()));
        let archive = ArchiveReader::open(BufReader::new(open(&self.file)?)).map_err(unreadable)?;
        archive.verify(&mut |_, bytes| progress.advance(0, bytes)).map_err(unreadable)?;
        is_begun.store(true, Relaxed);
        folder.make()?;
        let restored = self.restore(size, &mut progress)?;
        folder.keep()?;
        let sentence = progress.finish();
        let Restored { origin, summary, items, expired, store_id } = restored;
        if out.json {
            let mut described = progress.described();
            if let Some(members) = described.as_object_mut() {
                members.insert("items".into(), json!(items));
                members.insert("expired".into(), json!(expired));
                members.insert("seq".into(), json!(summary.seq));
                members.insert("store_id".into(), json!(hex(&store_id)));
                members.insert("backup_of".into(), json!(hex(&origin.store_id)));
            }
            return out.json(&described);
        }
        let and_expired = if expired == 0 { String::new() } else { format!(", {expired} expired") };
        let (seq, to) = (summary.seq, self.database.display());
        out.line(format!("{items} items at seq {seq}{and_expired}, in {to} ({sentence})"))
    }

    fn restore(&self, size: u64, progress: &mut Progress) -> Result<Restored, Failure> {
        let failed = |error: RestoreError| match error {
            RestoreError::Archive(error) => {
                Failure::failed(format!("{}: {error}", self.file.display()))
            }
            RestoreError::Storage(error) => Failure::failed(error.to_string()),
        };
        let archive = ArchiveReader::open(BufReader::new(open(&self.file)?));
        let mut archive = archive.map_err(|error| failed(error.into()))?;
        let disk = FjallStorage::restoring(&self.database).map_err(|error| failed(error.into()))?;
        let mut done = 0;
        let mut report = |items: u64, bytes: u64| {
            progress.advance(items - done, size + bytes);
            done = items;
        };
        restore(&mut archive, &disk, Clock::system().now(), &mut report).map_err(failed)
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    let cannot = |error| Failure::failed(format!("cannot read {}: {error}", path.display()));
    let file = File::open(path).map_err(cannot)?;
    match file.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            Err(Failure::failed(format!("{} is a directory, not a backup", path.display())))
        }
        Ok(_) => Ok(file),
        Err(error) => Err(cannot(error)),
    }
}

/// A directory to fill. Its contents are removed again, unless it is kept.
struct NewFolder<'p> {
    path: &'p Path,
    is_new: bool,
    is_ours: bool,
}

impl<'p> NewFolder<'p> {
    /// Checks `path`: it must be empty, or not exist.
    fn begin(path: &'p Path) -> Result<Self, Failure> {
        let taken = |what: &str| Err(taken(path, what));
        let is_new = match std::fs::read_dir(path) {
            Ok(mut inside) => match inside.next() {
                None => false,
                Some(_) if files::is_restoring(path) => {
                    return taken("holds a restore that is under way, or was cut short");
                }
                Some(_) if files::is_store(path) => return taken("holds a store already"),
                Some(_) => return taken("is not empty"),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => {
                let path = path.display();
                return Err(Failure::failed(format!("-b {path} cannot be used: {error}")));
            }
        };
        Ok(Self { path, is_new, is_ours: false })
    }

    /// Claims the directory, unless another process did since [`NewFolder::begin`] checked it.
    fn make(&mut self) -> Result<(), Failure> {
        let path = self.path.display();
        let made = files::begin_restoring(self.path);
        self.is_ours =
            made.map_err(|error| Failure::failed(format!("-b {path} cannot be made: {error}")))?;
        if self.is_ours { Ok(()) } else { Err(taken(self.path, "is not empty any more")) }
    }

    fn keep(&mut self) -> Result<(), Failure> {
        let path = self.path.display();
        files::end_restoring(self.path)
            .map_err(|error| Failure::failed(format!("-b {path} cannot be used: {error}")))?;
        self.is_ours = false;
        Ok(())
    }
}

impl Drop for NewFolder<'_> {
    fn drop(&mut self) {
        // Files that cannot be removed keep the mark of an incomplete restore, and are never opened
        // as a store.
        if self.is_ours && files::undo_restoring(self.path).is_ok() && self.is_new {
            let _ = std::fs::remove_dir(self.path);
        }
    }
}

fn taken(path: &Path, what: &str) -> Failure {
    let path = path.display();
    Failure::failed(format!("{path} {what}: choose an empty or a new one with -b"))
}
