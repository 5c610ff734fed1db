//! The destinations of backups and exports: a file is replaced completely or not at all, whatever
//! other process writes it, and a pipe or device is kept.

use crate::support::broker::broker;
use crate::support::offline::files;
use crate::support::stub::{Stub, hello, list};
use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn vatn(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vatn"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn succeed(arguments: &[&str]) -> Output {
    let output = vatn(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

/// Waits until `command` brings about `is_so`.
fn wait_until(command: &mut Child, is_so: impl Fn() -> bool) -> Result {
    while !is_so() {
        assert_eq!(command.try_wait()?, None);
        std::thread::yield_now();
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_backups_to_one_name_are_written_one_after_the_other() -> Result {
    static MAY_GO_ON: AtomicBool = AtomicBool::new(false);
    let slow = Stub::start(|method, _| match method {
        "hello" => Ok(hello(3)),
        "range" => {
            while !MAY_GO_ON.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            Ok(list(vec![list(vec![]), rmpv::Value::Nil]))
        }
        _ => Ok(0.into()),
    })
    .await?;
    let (folder, broker) = (tempfile::tempdir()?, broker());
    broker.vatn(&["set", "key", "1"]).text();
    let file = path(folder.path(), "backup");
    let mut first = vatn(&["backup", &file, "--connect", &slow.endpoint]).spawn()?;
    let partial = folder.path().join("backup.partial");
    wait_until(&mut first, || partial.exists())?;
    succeed(&["backup", &file, "--connect", &broker.router]);
    let second = std::fs::read(&file)?;
    MAY_GO_ON.store(true, Ordering::Relaxed);
    let output = first.wait_with_output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let checked: serde_json::Value =
        serde_json::from_slice(&succeed(&["check", &file, "--json"]).stdout)?;
    assert_eq!(checked["seq"], 3, "the first one, which was finished last");
    assert_eq!(files(folder.path()), [Path::new("backup")], "and nothing is left beside it");
    std::fs::write(&file, second)?;
    succeed(&["check", &file]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_backup_leaves_no_file() -> Result {
    static IS_ASKED: AtomicBool = AtomicBool::new(false);
    static MAY_GO_ON: AtomicBool = AtomicBool::new(false);
    let slow = Stub::start(|method, _| match method {
        "hello" => Ok(hello(3)),
        "range" => {
            IS_ASKED.store(true, Ordering::Relaxed);
            while !MAY_GO_ON.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            Err(rmpv::Value::Nil)
        }
        _ => Ok(0.into()),
    })
    .await?;
    let folder = tempfile::tempdir()?;
    let file = path(folder.path(), "backup");
    let mut backup = vatn(&["backup", &file, "--connect", &slow.endpoint]).spawn()?;
    wait_until(&mut backup, || IS_ASKED.load(Ordering::Relaxed))?;
    assert_eq!(files(folder.path()), [Path::new("backup.partial")]);
    Command::new("kill").args(["-INT", &backup.id().to_string()]).status()?;
    let status = backup.wait()?;
    MAY_GO_ON.store(true, Ordering::Relaxed);
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new(), "{status}");
    Ok(())
}

#[test]
fn a_partial_file_without_a_writer_is_overwritten() -> Result {
    let (folder, broker) = (tempfile::tempdir()?, broker());
    broker.vatn(&["set", "key", "1"]).text();
    std::fs::write(folder.path().join("backup.partial"), vec![b'x'; 1 << 20])?;
    let file = path(folder.path(), "backup");
    succeed(&["backup", &file, "--connect", &broker.router]);
    succeed(&["check", &file]);
    assert_eq!(files(folder.path()), [Path::new("backup")]);
    Ok(())
}

#[test]
fn a_file_keeps_its_mode_and_a_link_its_target() -> Result {
    let (folder, broker) = (tempfile::tempdir()?, broker());
    broker.vatn(&["set", "key", "1"]).text();
    let (file, link) = (path(folder.path(), "secret"), path(folder.path(), "link"));
    std::fs::write(&file, "older")?;
    std::fs::set_permissions(&file, Permissions::from_mode(0o600))?;
    symlink(&file, &link)?;
    for name in [&file, &link] {
        succeed(&["export", name, "--connect", &broker.router]);
        assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
        assert!(std::fs::read_to_string(&file)?.starts_with("{\"key\":\"key\""));
        std::fs::write(&file, "older")?;
    }
    assert!(std::fs::symlink_metadata(&link)?.is_symlink());
    Ok(())
}

#[test]
fn a_pipe_or_a_device_is_written_in_place() -> Result {
    let (folder, broker) = (tempfile::tempdir()?, broker());
    broker.vatn(&["set", "key", "1"]).text();
    let pipe = path(folder.path(), "pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status()?.success());
    let reader = File::options().read(true).write(true).open(&pipe)?;
    let said = succeed(&["export", &pipe, "--connect", &broker.router]);
    assert!(std::fs::metadata(&pipe)?.file_type().is_fifo(), "it was replaced");
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line)?;
    assert!(line.starts_with("{\"key\":\"key\""), "{line}");
    assert!(said.stdout.is_empty(), "standard output may be the destination");
    let there = succeed(&["backup", "/dev/stdout", "--connect", &broker.router]).stdout;
    std::fs::write(path(folder.path(), "backup"), there)?;
    succeed(&["check", &path(folder.path(), "backup")]);
    let done = broker.vatn(&["export", folder.path().to_str().unwrap()]);
    assert!(done.error(1).ends_with("is a directory"), "{done:?}");
    Ok(())
}
