//! A real broker on a directory that fails. The broker reports the failure in one clear line or as
//! `STORAGE`, in `/healthz`, in `stats` and in its exit code. Reads go on, and a restart on the
//! remaining files has every acknowledged write.

use crate::support::broker::Broker;
use crate::support::dealer::{Connection, Outcome, key_bytes};
use rmpv::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tokio::runtime::Runtime;
use vatn::client::{RawValue, Request};
use vatn::protocol::Level;

/// A user that owns no files.
const NOBODY: u32 = 65_534;
/// More writes than any test here needs before its disk fails.
const WRITES_MAX: u64 = 20_000;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}

/// `vatn serve` on a directory that it cannot serve.
fn refused(database: &Path, prepare: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vatn"));
    command
        .args(["serve", "--port", "0", "--router", "tcp://127.0.0.1:0"])
        .args(["--publisher", "tcp://127.0.0.1:0", "--database"])
        .arg(database)
        .stdin(Stdio::null());
    prepare(&mut command);
    command.output().unwrap()
}

/// One line that names the directory and its fault, and exit code 1.
fn assert_one_line(output: &Output, database: &Path, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("vatn: error: "), "{said}");
    assert!(said.contains(&database.display().to_string()), "{said}");
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    assert!(output.stdout.is_empty(), "nothing listens");
}

fn http_get(broker: &Broker, path: &str) -> (u16, String) {
    let address = broker.http.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}

fn set(key: u64, bytes: usize, level: Level) -> Request {
    let value = RawValue::bin(&vec![key as u8; bytes]);
    let request = Request::new("set").key(&key.to_be_bytes()).argument(&value);
    request.option("durability", level.name())
}

fn code(outcome: &Outcome) -> Option<&str> {
    outcome.as_ref().err().map(|(code, _)| code.as_str())
}

/// Writes until the disk fails, each time also to the key `last`; returns the keys of the
/// acknowledged writes, and the text of the refusal.
async fn write_until_it_fails(
    connection: &mut Connection,
    bytes: usize,
    level: Level,
) -> (Vec<u64>, String) {
    let mut acknowledged = Vec::new();
    for key in 0..WRITES_MAX {
        let value = RawValue::bin(&vec![key as u8; bytes]);
        let both = [
            Request::new("set").key(&key.to_be_bytes()).argument(&value),
            Request::new("set").key(b"last").argument(&key.into()),
        ];
        let write = Request::new("batch").requests(&both).option("durability", level.name());
        match connection.call(&[write]).await.unwrap().remove(0) {
            Ok(_) => acknowledged.push(key),
            Err((code, message)) => {
                assert_eq!(code, "STORAGE", "{message}");
                return (acknowledged, message);
            }
        }
    }
    panic!("the disk never failed")
}

/// A broker whose disk has failed refuses writes, serves reads, and reports the failure everywhere.
async fn assert_failed(broker: &Broker, connection: &mut Connection, kept: &[u64], words: &str) {
    for level in [Level::Memory, Level::Queued, Level::Stored, Level::Synced] {
        let late = connection.call(&[set(1, 1, level)]).await.unwrap().remove(0);
        assert_eq!(code(&late), Some("STORAGE"), "{level}: {late:?}");
    }
    let stats = connection.result(Request::new("stats")).await;
    let stats: std::collections::HashMap<String, Value> = rmpv::ext::from_value(stats).unwrap();
    let storage = stats["storage"].as_str().unwrap();
    assert!(storage.contains(words), "{storage}");
    assert_reads_go_on(broker, connection, kept).await;
    let (status, body) = http_get(broker, "/healthz");
    assert_eq!(status, 503, "{body}");
    assert!(body.contains(words), "{body}");
    let (status, body) = http_get(broker, "/put?late=1");
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("STORAGE"), "{body}");
}

/// Every read is answered, and shows the acknowledged writes and no other.
async fn assert_reads_go_on(broker: &Broker, connection: &mut Connection, kept: &[u64]) {
    for key in kept {
        let read = connection.result(Request::new("get").key(&key.to_be_bytes())).await;
        let bytes = read.as_slice().unwrap();
        assert!(!bytes.is_empty() && bytes.iter().all(|byte| *byte == *key as u8), "{key}");
    }
    let lost = kept.last().map_or(0, |key| key + 1).to_be_bytes();
    assert!(connection.result(Request::new("get").key(&lost)).await.is_nil());
    let last = connection.result(Request::new("get").key(b"last")).await;
    let has_last = !last.is_nil();
    assert!(!has_last || last.as_u64() == kept.last().copied(), "{last}");

    let range = Request::new("range").option("prefix", "\0").option("keys_only", true);
    let page = connection.result(range).await;
    let keys = page[0].as_array().unwrap().iter().map(key_bytes);
    let want: Vec<Vec<u8>> = kept.iter().map(|key| key.to_be_bytes().to_vec()).collect();
    assert_eq!(keys.collect::<Vec<_>>(), want);
    let count = connection.result(Request::new("count")).await;
    assert_eq!(count.as_u64(), Some(kept.len() as u64 + u64::from(has_last)));

    let escaped = |key: [u8; 8]| key.iter().map(|byte| format!("%{byte:02x}")).collect::<String>();
    assert_eq!(http_get(broker, &format!("/get?key={}", escaped(lost))).0, 404);
    if let Some(key) = kept.last() {
        let path = format!("/get?key={}", escaped(key.to_be_bytes()));
        assert_eq!(http_get(broker, &path).0, 200);
        assert_eq!(http_get(broker, "/getrange").0, 200);
    }
}

/// Stops a broker whose disk has failed: it ends by itself, and its exit code and last line report
/// the failure.
fn assert_stop_tells(broker: Broker, words: &str) {
    let log = broker.log_path().to_owned();
    let status = broker.stop();
    let said = std::fs::read_to_string(log).unwrap_or_default();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.lines().last().is_some_and(|line| line.starts_with("vatn: error: ")), "{said}");
    assert!(said.contains(words), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

/// Every acknowledged write is there.
async fn assert_read(connection: &mut Connection, kept: &[u64], bytes: usize) {
    for key in kept {
        let read = connection.result(Request::new("get").key(&key.to_be_bytes())).await;
        assert_eq!(read, Value::Binary(vec![*key as u8; bytes]), "write {key}");
    }
}

/// Every acknowledged write is there, and the store accepts writes again.
async fn assert_kept(broker: &Broker, kept: &[u64], bytes: usize) {
    let mut connection = Connection::connect(&broker.router).await.unwrap();
    assert_read(&mut connection, kept, bytes).await;
    connection.result(set(1, 1, Level::Synced)).await;
}

/// Mounts a file system; `None`, with a message, where that is not allowed.
struct Mount<'p>(&'p Path);

impl<'p> Mount<'p> {
    fn tmpfs(place: &'p Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(place).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(place)),
            Ok(output) => {
                println!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: no `mount`: {error}");
                None
            }
        }
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let done = Command::new("mount").args(["-o", &options]).arg(self.0).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        // Lazily: a broker left by a failed assertion may still use it.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_database_that_is_a_file_is_refused_in_one_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = refused(file.path(), |_| {});
    assert_one_line(&output, file.path(), &["is a file", "-b"]);
}

#[test]
fn a_second_broker_is_refused_in_one_line_and_the_first_keeps_serving() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::open(folder.path(), &[]);
    let database = folder.path().join("store");
    assert_one_line(&refused(&database, |_| {}), &database, &["is in use", "-b"]);
    runtime().block_on(assert_kept(&broker, &[], 0));
    assert!(broker.stop().success());
    let broker = Broker::open(folder.path(), &[]);
    assert!(broker.stop().success());
}

#[test]
fn a_directory_that_cannot_be_written_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut permissions = std::fs::metadata(folder.path()).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o555);
    std::fs::set_permissions(folder.path(), permissions).unwrap();
    let is_root = is_root();
    let can_run = Command::new(env!("CARGO_BIN_EXE_vatn")).arg("--version").uid(NOBODY).output();
    if is_root && !can_run.is_ok_and(|output| output.status.success()) {
        println!("skipped: root may write everywhere, and user `nobody` may not run this binary");
        return;
    }
    for database in [folder.path().to_owned(), folder.path().join("store")] {
        let output = refused(&database, |command| {
            if is_root {
                command.uid(NOBODY);
            }
        });
        assert_one_line(&output, &database, &["Permission denied"]);
    }
}

#[test]
fn a_full_disk_stops_writes_and_keeps_acknowledged_ones() {
    for level in [Level::Stored, Level::Synced] {
        // Once with the broker's log file on another disk, once with that on the full disk too.
        let folder = tempfile::tempdir().unwrap();
        let is_log_full = level == Level::Synced;
        let place =
            if is_log_full { folder.path().to_owned() } else { folder.path().join("store") };
        std::fs::create_dir_all(&place).unwrap();
        let Some(mount) = Mount::tmpfs(&place, "12m") else { return };
        let broker = Broker::open(folder.path(), &[]);
        let words = "No space left on device";
        let (kept, is_refused) = runtime().block_on(async {
            let mut connection = Connection::connect(&broker.router).await.unwrap();
            let (kept, said) = write_until_it_fails(&mut connection, 5_000, level).await;
            println!("full after {} writes", kept.len());
            // The broker measures the free space once a second: mostly it refuses in time.
            let is_refused = said.contains("the disk is full");
            match is_refused {
                true => assert_read(&mut connection, &kept, 5_000).await,
                false => {
                    assert!(said.contains(words), "{said}");
                    assert_failed(&broker, &mut connection, &kept, words).await;
                }
            }
            (kept, is_refused)
        });
        match (is_refused, is_log_full) {
            (true, _) => drop(broker.stop()),
            (false, true) => assert_eq!(broker.stop().code(), Some(1)),
            (false, false) => assert_stop_tells(broker, words),
        }
        mount.remount("size=64m");
        let broker = Broker::open(folder.path(), &[]);
        runtime().block_on(assert_kept(&broker, &kept, 5_000));
        assert!(broker.stop().success());
    }
}

#[test]
fn a_disk_that_becomes_read_only_is_refused_in_one_line_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::tmpfs(folder.path(), "64m") else { return };
    let broker = Broker::open(folder.path(), &[]);
    let kept = [1, 2, 3];
    runtime().block_on(async {
        let mut connection = Connection::connect(&broker.router).await.unwrap();
        for key in kept {
            connection.result(set(key, 10, Level::Synced)).await;
        }
    });
    broker.kill();
    mount.remount("ro");
    let database = folder.path().join("store");
    assert_one_line(&refused(&database, |_| {}), &database, &["Read-only file system"]);
    mount.remount("rw");
    let broker = Broker::open(folder.path(), &[]);
    runtime().block_on(assert_kept(&broker, &kept, 10));
    assert!(broker.stop().success());
}

#[test]
fn a_broker_whose_directory_was_deleted_acknowledges_nothing_more() {
    // The whole directory, and each part alone.
    let parts =
        ["", "/log", "/keyspaces", "/keyspaces/0", "/keyspaces/2", "/0.jnl", "/version", "/lock"];
    for deleted in parts.map(|part| format!("store{part}")) {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::open(folder.path(), &[]);
        let words = "was removed under the broker";
        runtime().block_on(async {
            let mut connection = Connection::connect(&broker.router).await.unwrap();
            connection.result(set(1, 10, Level::Synced)).await;
            let deleted = folder.path().join(&deleted);
            match deleted.is_dir() {
                true => std::fs::remove_dir_all(deleted).unwrap(),
                false => std::fs::remove_file(deleted).unwrap(),
            }
            // Stored writes are with the operating system, and the next sync reports the failure.
            for level in [Level::Synced, Level::Stored] {
                let late = connection.call(&[set(2, 10, level)]).await.unwrap().remove(0);
                assert_eq!(code(&late), Some("STORAGE"), "{late:?}");
            }
            assert_failed(&broker, &mut connection, &[1], words).await;
        });
        assert_stop_tells(broker, words);
    }
}

/// A table or a list of tables: the next checkpoint reports the failure.
#[test]
fn a_broker_with_a_deleted_table_stops_writing() {
    for part in ["tables", "current"] {
        let folder = tempfile::tempdir().unwrap();
        assert!(fill_and_stop(folder.path()).success());
        let broker = Broker::open(folder.path(), &[]);
        runtime().block_on(async {
            let mut connection = Connection::connect(&broker.router).await.unwrap();
            let tree = folder.path().join("store/keyspaces/2");
            match part {
                "tables" => std::fs::read_dir(tree.join(part)).unwrap().for_each(|table| {
                    std::fs::remove_file(table.unwrap().path()).unwrap();
                }),
                _ => std::fs::remove_file(tree.join(part)).unwrap(),
            }
            connection.result(set(2, 10, Level::Stored)).await;
            let flushed = connection.call(&[Request::new("flush")]).await.unwrap().remove(0);
            assert_eq!(code(&flushed), Some("STORAGE"), "{flushed:?}");
            let read = Request::new("get").key(&1_u64.to_be_bytes());
            connection.result(read).await;
        });
        assert_stop_tells(broker, "was removed under the broker");
    }
}

fn fill_and_stop(folder: &Path) -> std::process::ExitStatus {
    let broker = Broker::open(folder, &[]);
    runtime().block_on(async {
        let mut connection = Connection::connect(&broker.router).await.unwrap();
        connection.result(set(1, 10, Level::Stored)).await;
    });
    broker.stop()
}

/// A stop whose last steps fail: acknowledged writes are kept, and the exit code reports the
/// failure.
#[test]
fn a_failure_at_the_end_of_a_stop_shows_in_the_exit_code() {
    // Once the note of an orderly close cannot be written, once the tables.
    for (place, words) in [("closed.partial", "cannot be closed"), ("keyspaces/2/tables", "")] {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::open(folder.path(), &[]);
        runtime().block_on(async {
            let mut connection = Connection::connect(&broker.router).await.unwrap();
            connection.result(set(1, 10, Level::Synced)).await;
        });
        let place = folder.path().join("store").join(place);
        match place.is_dir() {
            true => {
                std::fs::remove_dir(&place).unwrap();
                std::fs::write(&place, "").unwrap();
            }
            false => std::fs::create_dir(&place).unwrap(),
        }
        assert_stop_tells(broker, words);
        match place.is_dir() {
            true => std::fs::remove_dir(&place).unwrap(),
            false => {
                std::fs::remove_file(&place).unwrap();
                std::fs::create_dir(&place).unwrap();
            }
        }
        let broker = Broker::open(folder.path(), &[]);
        runtime().block_on(assert_kept(&broker, &[1], 10));
        assert!(broker.stop().success());
    }
}

#[test]
fn a_moved_directory_fails_its_broker_and_stays_whole() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::open(folder.path(), &[]);
    let (place, away) = (folder.path().join("store"), folder.path().join("away"));
    runtime().block_on(async {
        let mut connection = Connection::connect(&broker.router).await.unwrap();
        connection.result(set(1, 10, Level::Synced)).await;
        std::fs::rename(&place, &away).unwrap();
        let late = connection.call(&[set(2, 10, Level::Synced)]).await.unwrap().remove(0);
        assert_eq!(code(&late), Some("STORAGE"), "{late:?}");
    });
    assert_stop_tells(broker, "was removed under the broker");
    std::fs::rename(&away, &place).unwrap();
    let broker = Broker::open(folder.path(), &[]);
    runtime().block_on(assert_kept(&broker, &[1], 10));
    assert!(broker.stop().success());
}
