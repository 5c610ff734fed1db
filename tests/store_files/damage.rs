//! Every file of a store, damaged byte by byte and truncated: the damage is found, the file is
//! named, and damaged bytes are never used as data (promise 4).

use crate::support::offline::{State, copy, files, run, serve, state_on};
use std::path::{Path, PathBuf};
use vatn::storage::Depth;
use vatn::storage::files::CLOSED;
use vatn::storage::{FjallStorage, StorageError};
use vatn::wal::check::check;
use vatn::wal::history;

/// A store with rows in sorted files and in the journal, closed and open log segments, and all
/// levels, deletes and times to live.
fn build(folder: &Path) {
    for round in 0..3_u64 {
        serve(folder, |engine| {
            for number in 0..40 {
                let key = format!("key {}", (number * 7 + round) % 30);
                let value = format!("{round}/{number} {}", "x".repeat(number as usize % 9));
                let level = ["queued", "stored", "synced", "memory"][number as usize % 4];
                let mut options = vec![("durability".into(), level.into())];
                if number % 5 == 0 {
                    options.push(("ttl_ms".into(), (3_600_000 + number).into()));
                }
                run(engine, "set", vec![key.into(), value.into(), rmpv::Value::Map(options)]);
                if number % 6 == 0 {
                    run(engine, "delete", vec![format!("key {}", number % 30).into()]);
                }
            }
        })
        .unwrap();
    }
}

/// The result for a damaged store.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Fate {
    /// The store was refused, and the file was named.
    Refused,
    /// The store was refused, and no file was named.
    RefusedVaguely,
    /// The store opened with the right contents, and the check found the damage.
    Found,
    /// The store opened with the right contents; the damage was not found.
    Unnoticed,
    /// The store opened with an older state.
    Older,
    /// The store opened with other contents.
    Wrong,
}

/// The history in the log, in order; empty where the log is unreadable.
fn history(disk: &FjallStorage) -> Result<Vec<u64>, StorageError> {
    let mut seqs = Vec::new();
    history::read(disk, 0, &mut |record, _| {
        seqs.extend(record.changes().map(|change| change.seq));
        true
    })?;
    Ok(seqs)
}

struct Whole {
    state: State,
    history: Vec<u64>,
}

fn fate(damaged: &Path, file: &Path, whole: &Whole) -> (Fate, String) {
    let faults = FjallStorage::inspect(damaged, Depth::Whole, &mut |_| {}).unwrap().faults;
    let mut said: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let file = file.to_str().unwrap();
    let is_named = said.iter().any(|fault| fault.contains(file));
    let disk = match FjallStorage::open(damaged) {
        Ok(disk) => disk,
        Err(error) if error.to_string().contains(file) => {
            return (Fate::Refused, error.to_string());
        }
        Err(error) => return (Fate::RefusedVaguely, error.to_string()),
    };
    match state_on(&disk) {
        Err(error) if is_named => return (Fate::Refused, error.to_string()),
        Err(error) => return (Fate::RefusedVaguely, error.to_string()),
        Ok(found) if found != whole.state => {
            let left = history(&disk).unwrap();
            let is_older = left.last() < whole.history.last();
            return (if is_older { Fate::Older } else { Fate::Wrong }, said.join("; "));
        }
        Ok(_) => {}
    }
    // Records of the last trim may still be there.
    let is_held = |seq: &u64| Some(seq) >= whole.history.first();
    let held = history(&disk).map(|found| found.into_iter().filter(is_held).collect::<Vec<_>>());
    if held.is_ok_and(|held| held != whole.history) {
        return (Fate::Wrong, "the history is another".to_owned());
    }
    if said.is_empty() {
        let checked = check(&disk, &mut |_| {}).unwrap();
        said.extend(checked.faults.iter().map(|f| format!("{}: {}", f.place, f.what)));
    }
    (if said.is_empty() { Fate::Unnoticed } else { Fate::Found }, said.join("; "))
}

/// The kind of a damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Flip(usize),
    Cut(usize),
    Removed,
}

/// Damages every file of the store in `store` in many places, one at a time, and passes on each
/// fate. VATN_DAMAGE_STEP=1 damages every byte of every file.
fn damage_all(store: &Path, is_crashed: bool, each: impl Fn(&Path, Damage, Fate, &str)) {
    let step = std::env::var("VATN_DAMAGE_STEP").map_or(151, |step| step.parse().unwrap());
    let disk = FjallStorage::open(store).unwrap();
    let whole = Whole { state: state_on(&disk).unwrap(), history: history(&disk).unwrap() };
    drop(disk);
    if is_crashed {
        // Only an orderly close leaves the note.
        std::fs::remove_file(store.join(CLOSED)).unwrap();
    }
    let damaged = store.with_extension("damaged");
    for file in files(store) {
        let bytes = std::fs::read(store.join(&file)).unwrap();
        // The end of a file holds the positions of the rest.
        let end = bytes.len().saturating_sub(40);
        let places = || (0..bytes.len()).step_by(step).chain((end..bytes.len()).step_by(7));
        let ends = bytes.len().saturating_sub(1)..bytes.len();
        let cuts = places().chain(ends).map(Damage::Cut);
        for damage in places().map(Damage::Flip).chain(cuts).chain([Damage::Removed]) {
            copy(store, &damaged);
            let target = damaged.join(&file);
            match damage {
                Damage::Flip(at) => {
                    let mut bytes = bytes.clone();
                    bytes[at] ^= 1 << (at % 8);
                    std::fs::write(target, bytes).unwrap();
                }
                Damage::Cut(end) => std::fs::write(target, &bytes[..end]).unwrap(),
                Damage::Removed => std::fs::remove_file(target).unwrap(),
            }
            let (fate, said) = fate(&damaged, &file, &whole);
            assert!(
                !said.contains("stopped unexpectedly"),
                "{}, {damage:?}: {said}",
                file.display()
            );
            each(&file, damage, fate, &said);
            std::fs::remove_dir_all(&damaged).unwrap();
        }
    }
}

/// fjall allocates memory for as many sections as a file claims, before it verifies the claim.
#[test]
fn a_claim_of_many_sections_does_not_end_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    build(&store);
    let is_table = |file: &PathBuf| file.parent().is_some_and(|parent| parent.ends_with("tables"));
    let table = files(&store).into_iter().find(is_table).unwrap();
    let mut bytes = std::fs::read(store.join(&table)).unwrap();
    let list = bytes.windows(4).rposition(|window| window == b"TOC!").unwrap();
    bytes[list + 7] |= 0xf0;
    std::fs::write(store.join(&table), bytes).unwrap();
    let refusal = FjallStorage::open(&store).unwrap_err().to_string();
    let words = format!("is damaged: {}: its list of sections is damaged", table.display());
    assert!(refusal.contains(&words), "{refusal}");
}

#[test]
fn after_an_orderly_close_every_damaged_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    build(&store);
    damage_all(&store, false, |file, damage, fate, said| {
        let is_note = file == Path::new(CLOSED);
        let is_well = match fate {
            Fate::Refused | Fate::Found => true,
            Fate::Unnoticed => is_note && damage == Damage::Removed,
            Fate::RefusedVaguely | Fate::Older | Fate::Wrong => false,
        };
        assert!(is_well, "{}, {damage:?}: {fate:?}: {said}", file.display());
        assert!(!is_note || fate != Fate::Refused, "a damaged note does not prevent a start");
    });
}

/// A truncated journal looks like the effect of a crash, and a log segment without its list like
/// one being removed. All other damage is found.
#[test]
fn after_a_crash_damaged_bytes_are_never_used_as_data() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    build(&store);
    let newest = files(&store).into_iter().rfind(|file| file.ends_with("current")).unwrap();
    damage_all(&store, true, |file, damage, fate, said| {
        let is_journal = file.extension().is_some_and(|extension| extension == "jnl");
        let is_list = file.ends_with("current") && damage == Damage::Removed;
        let is_well = match fate {
            Fate::Refused | Fate::Found => true,
            Fate::RefusedVaguely | Fate::Older | Fate::Unnoticed if is_journal => true,
            Fate::Unnoticed => is_list,
            Fate::RefusedVaguely => is_list,
            Fate::Older => is_list && *file == *newest,
            Fate::Wrong => false,
        };
        assert!(is_well, "{}, {damage:?}: {fate:?}: {said}", file.display());
    });
}
