//! A restore claims its directory exclusively, and the remains of a killed restore are no store.
//! The backup comes through a named pipe, so the test controls the progress of the restore.

use crate::support::broker::Broker;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use vatn::client::{Client, ClientOptions, RawValue, WriteOptions};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// More bytes than a pipe holds: a writer that has finished such a backup has a reader.
const PIPE_BYTES: usize = 1 << 20;

async fn connect(broker: &Broker) -> Result<Client> {
    Ok(Client::connect(&broker.router, &ClientOptions::default()).await?)
}

fn vatn(arguments: &[&str], path: &Path) -> Output {
    // A broker that starts wrongly must fail the test, and not keep running.
    let mut command = Command::new("timeout");
    command.arg("60").arg(env!("CARGO_BIN_EXE_vatn")).args(arguments).arg(path);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A backup in memory, and a pipe from which a restore reads it.
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

    /// Waits until a process reads the pipe.
    fn writer(&self) -> Result<File> {
        Ok(File::options().write(true).open(&self.pipe)?)
    }

    /// A reader's end that keeps the pipe open while it has no other reader.
    fn keeper(&self) -> Result<File> {
        Ok(File::options().read(true).write(true).open(&self.pipe)?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_does_not_touch_the_store_of_a_broker_started_meanwhile() -> Result {
    let fixture = Fixture::new().await?;
    let restore = fixture.restore()?;
    // The restore has checked the directory, and is about to verify the backup.
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
async fn the_remains_of_a_killed_restore_are_not_opened_as_a_store() -> Result {
    let fixture = Fixture::new().await?;
    let mut restore = fixture.restore()?;
    let (mut writer, keeper) = (fixture.writer()?, fixture.keeper()?);
    writer.write_all(&fixture.bytes)?;
    drop((writer, keeper));
    // The directory is made before the backup is read again, and the store is still empty.
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
