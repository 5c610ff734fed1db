//! A repair step by step: killed before any step, or with a failing disk, it leaves one whole
//! store, the old or the new; and each phase is on the disk before the next begins.

use super::steps::{assert_on_disk, check, kills};
use crate::support::offline::{State, copy, run, serve, state};
use crate::support::steps::{Step, Steps};
use std::path::Path;

/// A store whose journal is damaged, and its contents; all of them are in its tables and its log.
fn build(store: &Path) -> State {
    serve(store, |engine| {
        for number in 0..20 {
            run(engine, "set", vec![format!("key {number}").into(), number.into()]);
        }
    })
    .unwrap();
    let whole = state(store).unwrap();
    let journal = store.join("0.jnl");
    let mut bytes = std::fs::read(&journal).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(journal, bytes).unwrap();
    assert_eq!(check(store).0, Some(1));
    whole
}

/// The steps at which the new store gets its last name but one, and its last.
fn phases(steps: &[Step]) -> [usize; 2] {
    ["store/repaired-1", "store/moving-1"].map(|name| {
        let is_it = |step: &Step| step.what == "rename" && step.path == Path::new(name);
        steps.iter().position(is_it).unwrap_or_else(|| panic!("{name} is not seen"))
    })
}

#[test]
fn a_repair_syncs_each_phase_before_the_next() {
    let Some(steps) = Steps::prepare() else { return };
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    build(&store);
    let arguments = ["check", store.to_str().unwrap(), "--repair"];
    assert!(steps.run(folder.path(), &arguments, None).status.success());
    let all = steps.done();
    let [ready, moving] = phases(&all);
    for phase in [&all[..ready], &all[ready..moving], &all[moving..]] {
        assert_on_disk(phase);
    }
    // The directory for the old files exists before the first of them is moved.
    let is_move = |step: &Step| step.what == "rename" && step.path.starts_with("store/damaged-1");
    let moved = all.iter().position(is_move).unwrap();
    assert_on_disk(&all[ready..moved]);
}

#[test]
fn a_repair_killed_before_any_step_can_be_completed() {
    let Some(steps) = Steps::prepare() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (built, store) = (folder.path().join("built"), folder.path().join("store"));
    let whole = build(&built);
    let arguments = ["check", store.to_str().unwrap(), "--repair"];
    copy(&built, &store);
    assert!(steps.run(folder.path(), &arguments, None).status.success());
    let all = steps.done();
    let [ready, _] = phases(&all);
    // How the new store is made does not matter before it is complete.
    let making = (1..ready).step_by(40);
    for number in making.chain(kills(&all).filter(|number| *number > ready)) {
        let about = format!("before step {number}, {:?}", all[number - 1]);
        std::fs::remove_dir_all(&store).unwrap();
        copy(&built, &store);
        let output = steps.run(folder.path(), &arguments, Some(number));
        assert_eq!(output.status.code(), None, "{about}: it is not killed");
        // The next repair reports that itself where there is nothing left to repair.
        let again = steps.run(folder.path(), &arguments, None);
        let said = String::from_utf8_lossy(&again.stderr).into_owned();
        assert_eq!(again.status.code(), Some(0), "{about}: {said}");
        assert_eq!(check(&store).0, Some(0), "{about}");
        assert_eq!(state(&store).unwrap(), whole, "{about}");
        assert!(store.join("damaged-1/0.jnl").exists(), "{about}: the old store is gone");
    }
}

#[test]
fn a_failed_repair_leaves_the_store_unchanged() {
    let Some(steps) = Steps::prepare() else { return };
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    build(&store);
    let before = crate::support::offline::files(&store);
    let damaged = std::fs::read(store.join("0.jnl")).unwrap();
    // The first makes the name of the new directory durable.
    steps.fail_syncs_from(2);
    let arguments = ["check", store.to_str().unwrap(), "--repair"];
    let output = steps.run(folder.path(), &arguments, None);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Input/output error"), "{said}");
    assert_eq!(crate::support::offline::files(&store), before, "nothing of the new one is left");
    assert_eq!(std::fs::read(store.join("0.jnl")).unwrap(), damaged);
}
