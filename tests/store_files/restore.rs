//! A restore takes a directory for itself alone, and what is left of one that was killed is no
//! store. The backup comes through a named pipe, so the test says how far the restore gets.

use crate::support::broker::Broker;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use vatn::client::{Client, ClientOptions, RawValue, WriteOptions};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// More than a pipe holds: who has written a backup that has this in it has a reader.
const PIPE_BYTES: usize = 1 << 20;

async fn connect(broker: &Broker) -> Result<Client> {
    Ok(Client::connect(&broker.router, &ClientOptions::default()).await?)
}

fn vatn(arguments: &[&str], path: &Path) -> Output {
    // A broker that starts where it must not is to fail the test, and not to run on.
    let mut command = Command::new("timeout");
    command.arg("60").arg(env!("CARGO_BIN_EXE_vatn")).args(arguments).arg(path);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A backup in the memory, and a pipe that a restore is to read it from.
struct Fixture {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
    pipe: PathBuf,
    store: PathBuf,
}

impl Fixture {
    async fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let broker = Broker::start(&[]);
        let value = RawValue::bin(&vec![7; PIPE_BYTES]);
        connect(&broker).await?.set(b"key", &value, &WriteOptions::default()).await?;
        let (file, pipe) = (folder.path().join("backup"), folder.path().join("pipe"));
        let made = vatn(&["backup", "--connect", &broker.router], &file);
        assert!(made.status.success(), "{}", said(&made));
        assert!(Command::new("mkfifo").arg(&pipe).status()?.success());
        let store = folder.path().join("store");
        Ok(Self { bytes: std::fs::read(&file)?, folder, pipe, store })
    }

    fn restore(&self) -> Result<Child> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vatn"));
        command.arg("restore").arg(&self.pipe).arg("-b").arg(&self.store);
        Ok(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?)
    }

    /// Waits until somebody reads the pipe.
    fn writer(&self) -> Result<File> {
        Ok(File::options().write(true).open(&self.pipe)?)
    }

    /// An end of the pipe for as long as it has no other reader.
    fn keeper(&self) -> Result<File> {
        Ok(File::options().read(true).write(true).open(&self.pipe)?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_leaves_the_store_alone_of_a_broker_that_starts_meanwhile() -> Result {
    let fixture = Fixture::new().await?;
    let restore = fixture.restore()?;
    // It has looked at the directory, and is about to verify the backup.
    let (mut writer, keeper) = (fixture.writer()?, fixture.keeper()?);
    let broker = Broker::open(fixture.folder.path(), &[]);
    connect(&broker).await?.set(b"own", &RawValue::from(5), &WriteOptions::default()).await?;
    std::fs::rename(fixture.folder.path().join("backup"), &fixture.pipe)?;
    writer.write_all(&fixture.bytes)?;
    drop((writer, keeper));
    let output = restore.wait_with_output()?;
    let value = connect(&broker).await?.get(b"own").await?;
    assert_eq!(value, Some(RawValue::from(5)));
    broker.kill();
    let broker = Broker::open(fixture.folder.path(), &[]);
    let value = connect(&broker).await?.get(b"own").await?;
    assert_eq!(value, Some(RawValue::from(5)), "its store is whole");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.ends_with("is not empty any more: choose an empty or a new one with -b\n"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_restore_leaves_is_no_store() -> Result {
    let fixture = Fixture::new().await?;
    let mut restore = fixture.restore()?;
    let (mut writer, keeper) = (fixture.writer()?, fixture.keeper()?);
    writer.write_all(&fixture.bytes)?;
    drop((writer, keeper));
    // The directory is made before the backup is read again, and nothing is in the store yet.
    while !fixture.store.exists() {
        assert_eq!(restore.try_wait()?, None);
        std::thread::yield_now();
    }
    let _writer = fixture.writer()?;
    restore.kill()?;
    restore.wait()?;
    let store = fixture.store.as_path();
    let endpoints = ["--router", "tcp://127.0.0.1:0", "--publisher", "tcp://127.0.0.1:0"];
    for arguments in
        [&[&["serve", "--port", "0"], &endpoints[..], &["-b"]].concat()[..], &["check"]]
    {
        let output = vatn(arguments, store);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("remove the directory, and restore it again"), "{said}");
    }
    let file = fixture.folder.path().join("backup");
    let output = vatn(&["restore", file.to_str().unwrap(), "-b"], store);
    assert!(said(&output).contains("or was cut short: choose an empty"), "{}", said(&output));
    std::fs::remove_dir_all(store)?;
    let output = vatn(&["restore", file.to_str().unwrap(), "-b"], store);
    assert!(output.status.success(), "{}", said(&output));
    let broker = Broker::open(fixture.folder.path(), &[]);
    assert!(connect(&broker).await?.get(b"key").await?.is_some());
    Ok(())
}
