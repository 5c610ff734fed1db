//! A broker process step by step, as it makes its store and as it stops. A kill before any step of
//! a first start leaves a directory that starts. Nothing is acknowledged before every name and byte
//! is on the disk. A sync that fails in a stop is reported.

use crate::support::dealer::Connection;
use crate::support::offline::{run, serve, state};
use crate::support::steps::{Step, Stepped, Steps};
use std::path::Path;
use std::process::Command;
use vatn::client::Request;

/// Writes a key and waits until it is on the disk; false where the broker ends before.
fn is_acknowledged(broker: &Stepped) -> bool {
    let Some(router) = &broker.router else { return false };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Ok(mut connection) = Connection::connect(router).await else { return false };
        let set = Request::new("set").key(b"k").argument(&1_u64.into());
        let outcomes = connection.call(&[set.option("durability", "synced")]).await;
        outcomes.is_ok_and(|outcomes| outcomes.iter().all(Result::is_ok))
    })
}

pub fn check(store: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vatn"));
    let output = command.arg("check").arg(store).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// The indexes of the steps with a new state of the files before them: data written in several
/// pieces counts once, and a sync changes nothing that a kill leaves.
pub fn kills(steps: &[Step]) -> impl Iterator<Item = usize> {
    let is_like_the_last = |at: usize| {
        let (last, step) = (at.checked_sub(1).map(|last| &steps[last]), &steps[at]);
        let is_more = last == Some(step) && step.what == "write";
        let after_sync = last.is_some_and(|last| last.what == "sync") && step.what == "sync";
        is_more || after_sync
    };
    (0..steps.len()).filter(move |at| !is_like_the_last(*at)).map(|at| at + 1)
}

#[test]
fn a_kill_before_any_step_of_a_first_start_leaves_a_directory_that_starts() {
    let Some(steps) = Steps::prepare() else { return };
    let folder = tempfile::tempdir().unwrap();
    assert!(is_acknowledged(&steps.start(folder.path(), None)));
    let all = steps.done();
    let (mut count, mut acknowledged) = (0, 0);
    for number in kills(&all) {
        let about = format!("before step {number}, {:?}", all[number - 1]);
        let folder = tempfile::tempdir().unwrap();
        let broker = steps.start(folder.path(), Some(number));
        let is_acknowledged = is_acknowledged(&broker);
        drop(broker);
        let store = folder.path().join("store");
        let (code, said) = check(&store);
        let is_none = said.contains("there is no store in it") || said.contains("No such file");
        assert!(code == Some(0) || is_none, "{about}: {said}");
        serve(&store, |engine| {
            assert!(!is_acknowledged || engine.len() == 1, "{about}");
            run(engine, "set", vec!["after".into(), 1.into()]);
        })
        .unwrap_or_else(|error| panic!("{about}: {error}"));
        let found = state(&store).unwrap();
        assert!(found.contains_key(&b"after"[..]), "{about}");
        let (code, said) = check(&store);
        assert_eq!(code, Some(0), "{about}: {said}");
        (count, acknowledged) = (count + 1, acknowledged + usize::from(is_acknowledged));
    }
    println!("killed before {count} of {} steps", all.len());
    assert!(count > 40 && acknowledged < count / 2, "{acknowledged} of {count}");
}

/// Whether a sync of `path` is among `steps`.
fn is_synced(steps: &[Step], path: &Path) -> bool {
    steps.iter().any(|step| step.what == "sync" && step.path == path)
}

/// Every name created in these steps, and every byte written, is on the disk after them.
pub fn assert_on_disk(steps: &[Step]) {
    // They are renamed before any process relies on them.
    let is_passing = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or(".tmp");
        name.starts_with(".tmp") || name.contains("partial")
    };
    for (at, step) in steps.iter().enumerate().filter(|(_, step)| !is_passing(&step.path)) {
        let later = &steps[at..];
        match step.what.as_str() {
            "mkdir" | "create" | "rename" => {
                let above = step.path.parent().unwrap();
                let above = if above == Path::new("") { Path::new(".") } else { above };
                assert!(is_synced(later, above), "the name of {step:?} is not on the disk");
            }
            "write" | "truncate" => assert!(is_synced(later, &step.path), "{step:?}"),
            _ => {}
        }
    }
}

#[test]
fn nothing_is_acknowledged_before_every_name_and_byte_is_on_the_disk() {
    let Some(steps) = Steps::prepare() else { return };
    let folder = tempfile::tempdir().unwrap();
    assert!(is_acknowledged(&steps.start(folder.path(), None)));
    let all = steps.done();
    assert_on_disk(&all);
    for name in ["store", "store/keyspaces/2", "store/log"] {
        let made = |step: &Step| step.what == "mkdir" && step.path == Path::new(name);
        assert!(all.iter().any(made), "{name} is not seen");
    }
}

#[test]
fn a_failed_sync_in_a_stop_shows_in_the_exit_code() {
    let Some(steps) = Steps::prepare() else { return };
    let syncs = |steps: &[Step]| steps.iter().filter(|step| step.what == "sync").count();
    let folder = tempfile::tempdir().unwrap();
    let broker = steps.start(folder.path(), None);
    assert!(is_acknowledged(&broker));
    let before = syncs(&steps.done());
    assert_eq!(broker.stop().code(), Some(0));
    let in_stop = syncs(&steps.done()) - before;
    assert!(in_stop > 5, "{in_stop}");
    for number in 1..=in_stop {
        let folder = tempfile::tempdir().unwrap();
        let broker = steps.start(folder.path(), None);
        assert!(is_acknowledged(&broker));
        steps.fail_syncs_from(number);
        let code = broker.stop().code();
        let failed = steps.done().into_iter().find(|step| step.what == "fail");
        let about = format!("{failed:?}, sync {number} of {in_stop}: {}", steps.said());
        // Where the stop took fewer steps this time, nothing has failed.
        assert_eq!(code, Some(i32::from(failed.is_some())), "{about}");
        assert!(failed.is_none() || about.contains("vatn: error: "), "{about}");
        let found = state(&folder.path().join("store"));
        let found = found.unwrap_or_else(|error| panic!("{about}: {error}"));
        assert!(found.contains_key(&b"k"[..]), "{about}");
    }
}
