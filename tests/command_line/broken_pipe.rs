//! Output whose reader has closed it: the exit code of a command stays the same, and a broker keeps
//! running.

use crate::support::broker::broker;
use std::process::{Command, ExitStatus, Stdio};
use vatn::storage::files::CLOSED;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// `vatn` with a standard output that no process reads.
fn with_closed_output(arguments: &[&str]) -> Result<Command> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_vatn"));
    command.args(arguments).stdin(Stdio::null()).stdout(writer).stderr(Stdio::null());
    Ok(command)
}

fn status(arguments: &[&str]) -> Result<ExitStatus> {
    Ok(with_closed_output(arguments)?.status()?)
}

#[test]
fn exit_codes_are_the_same_when_the_output_is_closed() -> Result {
    let broker = broker();
    let connect = ["--json", "--connect", &broker.router];
    for command in [["get", "absent"], ["del", "absent"]] {
        let arguments = [&command[..], &connect].concat();
        assert_eq!(status(&arguments)?.code(), Some(3), "{command:?}");
    }
    assert_eq!(status(&[&["ping"][..], &connect].concat())?.code(), Some(0));
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("backup");
    let file = file.to_str().unwrap();
    assert!(status(&["backup", file, "--connect", &broker.router])?.success());
    assert_eq!(status(&["check", file, "--json"])?.code(), Some(0));
    let bytes = std::fs::read(file)?;
    std::fs::write(file, &bytes[..bytes.len() - 1])?;
    assert_eq!(status(&["check", file, "--json"])?.code(), Some(1));
    Ok(())
}

#[test]
fn a_check_of_a_damaged_store_fails_even_when_its_output_is_closed() -> Result {
    let folder = tempfile::tempdir()?;
    drop(vatn::storage::FjallStorage::open(folder.path())?);
    std::fs::write(folder.path().join(CLOSED), "something else")?;
    let store = folder.path().to_str().unwrap();
    // A store that no broker has opened has no facts yet; a repair recreates and reports them.
    let repair = ["check", store, "--repair", "--json"];
    for (arguments, code) in [(&["check", store][..], 1), (&repair, 3)] {
        assert_eq!(status(arguments)?.code(), Some(code), "{arguments:?}");
    }
    Ok(())
}

#[test]
fn a_broker_serves_until_it_is_stopped_and_stops_in_order() -> Result {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (store, router) = (path("store"), format!("ipc://{}", path("router")));
    let arguments = ["serve", "--port", "0", "--router", &router];
    let more = ["--publisher", "tcp://127.0.0.1:0", "-b", &store];
    let mut broker = with_closed_output(&[&arguments[..], &more].concat())?.spawn()?;
    while !status(&["set", "key", "1", "--connect", &router])?.success() {
        assert_eq!(broker.try_wait()?, None, "it does not serve any more");
    }
    assert_eq!(broker.try_wait()?, None);
    assert!(Command::new("kill").args(["-TERM", &broker.id().to_string()]).status()?.success());
    assert_eq!(broker.wait()?.code(), Some(0));
    assert!(folder.path().join("store").join(CLOSED).exists(), "its end was an orderly one");
    Ok(())
}
