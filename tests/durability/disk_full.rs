//! A full disk that stays full: reads and deletes work, a start works, and a write that adds data
//! is refused with a sentence before it can fail. The tests use a small file system of their own.

use crate::support::broker::Broker;
use rmpv::Value;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use vatn::client::{Client, ClientError, ClientOptions, RawValue, WriteOptions};

const VALUE_BYTES: usize = 200_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// A file system in memory that is unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this user may not mount one.
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .output();
        let is_mounted = mounted.is_ok_and(|done| done.status.success());
        if !is_mounted {
            println!("skipped: this user may not mount a file system");
        }
        is_mounted.then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills the file system with other data.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("of others");
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        for size in [1 << 20, 1 << 12] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

struct Peer {
    runtime: Runtime,
    client: Client,
    random: fastrand::Rng,
}

impl Peer {
    fn of(broker: &Broker) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = ClientOptions::default();
        let client = runtime.block_on(Client::connect(&broker.router, &options)).unwrap();
        Self { runtime, client, random: fastrand::Rng::with_seed(7) }
    }

    fn set(&mut self, number: u32) -> Result<u64, ClientError> {
        self.set_bytes(number, VALUE_BYTES)
    }

    fn set_bytes(&mut self, number: u32, len: usize) -> Result<u64, ClientError> {
        let bytes = std::iter::repeat_with(|| self.random.u8(..)).take(len).collect();
        let value = RawValue::from(&Value::Binary(bytes));
        let (key, options) = (key(number), WriteOptions::default());
        self.runtime.block_on(self.client.set(&key, &value, &options))
    }

    fn has(&mut self, number: u32) -> bool {
        self.runtime.block_on(self.client.get(&key(number))).unwrap().is_some()
    }

    fn delete(&mut self, number: u32) {
        let (key, options) = (key(number), WriteOptions::default());
        let deleted = self.runtime.block_on(self.client.delete(&key, &options));
        assert!(deleted.unwrap(), "{number}");
    }

    /// Waits until the broker holds its reserve for deletes, or has released it.
    fn wait_for_reserve(&self, disk: &SmallDisk, is_held: bool) {
        let began = Instant::now();
        while disk.path().join("store/reserve").exists() != is_held {
            assert!(began.elapsed() < PATIENCE, "held: {}", !is_held);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn flush(&mut self) {
        self.runtime.block_on(self.client.flush()).unwrap();
    }

    /// Sets keys until one is refused; returns how many were accepted, and the sentence.
    fn set_until_full(&mut self) -> (u32, String) {
        for number in 0..10_000 {
            if let Err(error) = self.set(number) {
                return (number, error.to_string());
            }
        }
        panic!("it is never full");
    }

    fn stats(&mut self) -> Value {
        self.runtime.block_on(self.client.stats()).unwrap()
    }

    fn stat(&mut self, name: &str) -> Value {
        let stats = self.stats();
        let pairs = stats.as_map().unwrap();
        pairs.iter().find(|(key, _)| key.as_str() == Some(name)).unwrap().1.clone()
    }

    /// The broker notices the space used by others within a second.
    fn wait_until_full(&mut self) {
        let began = Instant::now();
        while !self.is_full() {
            assert!(began.elapsed() < PATIENCE, "{:?}", self.stats());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_full(&mut self) -> bool {
        let disk = self.stat("disk");
        let is_full = |(key, value): &(Value, Value)| {
            key.as_str() == Some("is_full") && value.as_bool() == Some(true)
        };
        disk.as_map().unwrap().iter().any(is_full)
    }

    fn sets_again(&mut self) {
        let began = Instant::now();
        while let Err(error) = self.set(1_000_000) {
            assert!(began.elapsed() < PATIENCE, "still refused: {error}; {:?}", self.stats());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn key(number: u32) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

#[test]
fn a_full_disk_refuses_writes_before_one_fails_and_deletes_make_room() {
    let Some(disk) = SmallDisk::mount("96m") else { return };
    let broker = Broker::open(disk.path(), &[]);
    let mut peer = Peer::of(&broker);
    peer.wait_for_reserve(&disk, true);
    let (count, refusal) = peer.set_until_full();
    assert!(refusal.contains("the disk is full"), "{refusal}");
    assert!(count > 100, "{count} of {VALUE_BYTES} bytes on 96 MiB");
    assert_eq!(peer.stat("storage"), "ok".into(), "nothing has failed");
    assert!((0..count).all(|number| peer.has(number)));
    (0..count - 5).for_each(|number| peer.delete(number));
    peer.sets_again();
    drop(peer);
    assert!(broker.stop().success());
}

#[test]
fn a_disk_filled_by_others_serves_reads_and_deletes_also_after_a_restart() {
    let Some(disk) = SmallDisk::mount("96m") else { return };
    let broker = Broker::open(disk.path(), &[]);
    let mut peer = Peer::of(&broker);
    peer.wait_for_reserve(&disk, true);
    // Some are in the tables, and the last ones only in the log.
    for number in 0..100 {
        peer.set(number).unwrap();
        if number % 20 == 0 {
            peer.flush();
        }
    }
    let others = disk.fill();
    peer.wait_until_full();
    peer.wait_for_reserve(&disk, false);
    drop(peer);
    broker.kill();
    for number in (0..40).step_by(20) {
        // Including the reserve that the broker released.
        disk.fill();
        let broker = Broker::open(disk.path(), &[]);
        disk.fill();
        let mut peer = Peer::of(&broker);
        peer.wait_until_full();
        assert!((number..100).all(|number| peer.has(number)));
        let refusal = peer.set(901).unwrap_err().to_string();
        assert!(refusal.contains("the disk is full"), "{refusal}");
        (number..number + 20).for_each(|number| peer.delete(number));
        assert!((0..number + 20).all(|number| !peer.has(number)));
        drop(peer);
        match number {
            0 => broker.kill(),
            _ => {
                let log = broker.log_path().to_owned();
                let status = broker.stop();
                assert!(status.success(), "{}", std::fs::read_to_string(log).unwrap());
            }
        }
    }
    std::fs::remove_file(others).unwrap();
    let broker = Broker::open(disk.path(), &[]);
    let mut peer = Peer::of(&broker);
    assert!((0..40).all(|number| !peer.has(number)) && (40..100).all(|number| peer.has(number)));
    peer.sets_again();
    drop(peer);
    assert!(broker.stop().success());
}

#[test]
fn preallocated_files_are_removed_on_a_small_disk() {
    let Some(disk) = SmallDisk::mount("32m") else { return };
    let broker = Broker::open(disk.path(), &[]);
    let mut peer = Peer::of(&broker);
    // Enough waits for syncs that a log file would be preallocated.
    let taken = (0..10_000).take_while(|number| peer.set_bytes(*number, 30_000).is_ok()).count();
    assert!(taken > 200, "{taken} values of 30,000 bytes on 32 MiB");
    let spares = || {
        let names = std::fs::read_dir(disk.path().join("store/log")).unwrap();
        let names = names.map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().is_some_and(|ending| ending == "spare")).count()
    };
    let began = Instant::now();
    while spares() > 0 {
        assert!(began.elapsed() < PATIENCE, "{:?}", peer.stats());
        std::thread::sleep(Duration::from_millis(20));
    }
    (0..taken as u32).for_each(|number| peer.delete(number));
    peer.sets_again();
    drop(peer);
    assert!(broker.stop().success());
}
