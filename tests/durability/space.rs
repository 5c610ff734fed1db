//! Disk space is reclaimed: the space of a store is bounded by its live data, whatever was written
//! before, with and without restarts.

use crate::support::broker::Broker;
use crate::support::gated::GatedDisk;
use crate::support::offline::{NOW, run, state};
use crate::support::storage_runtime::{call, wait_for};
use rmpv::Value;
use std::path::Path;
use std::sync::Arc;
use vatn::checkpointer::DEAD_BYTES_MIN;
use vatn::client::{Client, ClientOptions, Level, RawValue, Request, WriteOptions};
use vatn::clock::Clock;
use vatn::config::{Config, RetainConfig, WriteQueueConfig};
use vatn::engine::Engine;
use vatn::server::StorageRuntime;
use vatn::storage::{FjallStorage, Storage, StorageUsage};

const KIB: usize = 1 << 10;
const MIB: u64 = 1 << 20;
/// Large enough that checkpoints write sorted files.
const VALUE_BYTES: usize = 560 * KIB;
const VALUES: u64 = 100;

fn open(folder: &Path, clock: &Clock) -> (Arc<FjallStorage>, StorageRuntime) {
    open_retaining(folder, clock, RetainConfig { bytes: 0, age_ms: 0, segment_bytes: MIB })
}

fn open_retaining(
    folder: &Path,
    clock: &Clock,
    retain: RetainConfig,
) -> (Arc<FjallStorage>, StorageRuntime) {
    let disk = Arc::new(FjallStorage::open(folder).unwrap());
    let config = Config {
        database: folder.to_owned(),
        retain,
        write_queue: WriteQueueConfig::default(),
        ..Config::without_edges("memory")
    };
    let shared = Arc::clone(&disk) as Arc<dyn Storage>;
    let storage_runtime = StorageRuntime::open(config, clock.clone(), shared, &mut |_| {}).unwrap();
    (disk, storage_runtime)
}

/// Incompressible bytes.
fn value(random: &mut fastrand::Rng) -> Value {
    Value::Binary(std::iter::repeat_with(|| random.u8(..)).take(VALUE_BYTES).collect())
}

fn key(number: u64) -> Value {
    Value::Binary(format!("key {number}").into_bytes())
}

fn options(options: &[(&str, Value)]) -> Value {
    Value::Map(options.iter().map(|(name, value)| ((*name).into(), value.clone())).collect())
}

fn set(engine: &Engine, number: u64, value: &Value, more: &[(&str, Value)]) {
    let queued = ("durability", "queued".into());
    let has_level = more.iter().any(|(name, _)| *name == "durability");
    let level = if has_level { vec![] } else { vec![queued] };
    let options = options(&[&level[..], more].concat());
    run(engine, "set", vec![key(number), value.clone(), options]);
}

fn flush(engine: &Engine) {
    assert!(call(engine, &Request::new("flush")).is_ok());
}

fn fill(engine: &Engine, more: &[(&str, Value)]) {
    let mut random = fastrand::Rng::with_seed(1);
    let value = value(&mut random);
    for number in 0..VALUES {
        set(engine, number, &value, more);
        if number % 20 == 19 {
            flush(engine);
        }
    }
}

fn delete_all_but_two(engine: &Engine) {
    for number in 2..VALUES {
        run(engine, "delete", vec![key(number), options(&[("durability", "queued".into())])]);
    }
    flush(engine);
}

/// The most bytes that the tables may take for `live` live bytes.
fn bound(live: u64) -> u64 {
    live + DEAD_BYTES_MIN.max(live) + MIB
}

fn live(engine: &Engine) -> u64 {
    stat(engine, "live_bytes")
}

fn stat(engine: &Engine, name: &str) -> u64 {
    let stats = run(engine, "stats", vec![]);
    let pairs = stats.as_map().unwrap();
    let found = pairs.iter().find(|(key, _)| key.as_str() == Some(name));
    found.unwrap().1.as_u64().unwrap()
}

fn comes_back(disk: &FjallStorage, engine: &Engine) {
    println!("{} live, {:?}", live(engine), disk.usage());
    wait_for("the dead rows to go", || disk.usage().tables <= bound(live(engine)));
}

/// The bytes on the disk, summed up independently of the tested code.
fn directory_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::symlink_metadata(folder).unwrap();
    if !metadata.is_dir() {
        return metadata.blocks() * 512;
    }
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| directory_bytes(&entry.unwrap().path())).sum()
}

#[test]
fn the_space_of_deleted_values_is_reclaimed() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, storage_runtime) = open(folder.path(), &Clock::manual(NOW));
    let engine = storage_runtime.engine();
    fill(&engine, &[]);
    let full = VALUES * VALUE_BYTES as u64;
    assert!(disk.usage().tables >= full && (full..full + MIB).contains(&live(&engine)));
    delete_all_but_two(&engine);
    assert!(live(&engine) < 2 * MIB);
    comes_back(&disk, &engine);
    drop((disk, engine));
    storage_runtime.stop().unwrap();
    assert_eq!(state(folder.path()).unwrap().len(), 2);
    let all = directory_bytes(folder.path());
    let (log_file, reserve) = (33 * MIB, 4 * MIB);
    assert!(
        all < bound(2 * MIB) + log_file + reserve,
        "journals and recycled files are gone after a stop: {all}"
    );
}

#[test]
fn the_space_of_expired_values_is_reclaimed() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOW);
    let (disk, storage_runtime) = open(folder.path(), &clock);
    let engine = storage_runtime.engine();
    fill(&engine, &[("ttl_ms", 1_000.into())]);
    assert!(disk.usage().tables >= VALUES * VALUE_BYTES as u64);
    clock.advance_to(NOW + 2_000);
    wait_for("the values to expire", || live(&engine) == 0);
    flush(&engine);
    comes_back(&disk, &engine);
    drop((disk, engine));
    storage_runtime.stop().unwrap();
}

#[test]
fn the_space_of_overwritten_values_is_reclaimed() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, storage_runtime) = open(folder.path(), &Clock::manual(NOW));
    let engine = storage_runtime.engine();
    let mut random = fastrand::Rng::with_seed(2);
    for _ in 0..8 {
        for number in 0..20 {
            set(&engine, number, &value(&mut random), &[]);
        }
        flush(&engine);
    }
    // Persisted values hidden by a value of level `memory` are dead too.
    let small = Value::from(1);
    for number in 1..20 {
        set(&engine, number, &small, &[("durability", "memory".into())]);
    }
    flush(&engine);
    assert!(live(&engine) < MIB);
    comes_back(&disk, &engine);
    drop((disk, engine));
    storage_runtime.stop().unwrap();
}

#[test]
fn a_start_reclaims_space_that_was_dead_before() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, storage_runtime) = open(folder.path(), &Clock::manual(NOW));
    fill(&storage_runtime.engine(), &[]);
    drop(disk);
    storage_runtime.stop().unwrap();
    // Deleted while no compactor runs.
    let disk = FjallStorage::open(folder.path()).unwrap();
    let rows = (2..VALUES).map(|number| vatn::storage::Row {
        space: vatn::storage::Space::Table,
        key: vatn::wal::tables::key(format!("key {number}").as_bytes()),
        value: None,
    });
    disk.commit(rows.collect(), vatn::storage::Durability::Fsynced).unwrap();
    drop(disk);
    let (disk, storage_runtime) = open(folder.path(), &Clock::manual(NOW));
    let engine = storage_runtime.engine();
    assert!(stat(&engine, "disk_bytes") > 2 * MIB, "it is known before anything is written");
    comes_back(&disk, &engine);
    drop((disk, engine));
    storage_runtime.stop().unwrap();
    assert_eq!(state(folder.path()).unwrap().len(), 2);
}

#[test]
fn the_space_of_a_store_is_known_before_the_first_write() {
    let disk = Arc::<GatedDisk>::default();
    let open = || {
        let shared = Arc::clone(&disk) as Arc<dyn Storage>;
        let config = Config::without_edges("memory");
        StorageRuntime::open(config, Clock::manual(NOW), shared, &mut |_| {}).unwrap()
    };
    let storage_runtime = open();
    run(&storage_runtime.engine(), "set", vec![key(1), Value::Binary(vec![7; 1_000])]);
    storage_runtime.stop().unwrap();
    let held = disk.hold_compactor();
    let storage_runtime = open();
    assert!(stat(&storage_runtime.engine(), "disk_bytes") > 1_000);
    drop(held);
    storage_runtime.stop().unwrap();
}

#[test]
fn live_bytes_are_counted_alike_before_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, storage_runtime) = open(folder.path(), &Clock::manual(NOW));
    let engine = storage_runtime.engine();
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..3_000 {
        let number = random.u64(..100);
        let value = Value::Binary(vec![7; random.usize(..3_000)]);
        let level = ["memory", "queued"][random.usize(..2)];
        match random.u8(..5) {
            0 => drop(run(&engine, "delete", vec![key(number)])),
            1 => drop(run(&engine, "touch", vec![key(number), 60_000.into()])),
            _ => set(&engine, number, &value, &[("durability", level.into())]),
        }
    }
    flush(&engine);
    let counted = live(&engine);
    drop((disk, engine));
    storage_runtime.stop().unwrap();
    let (disk, storage_runtime) = open(folder.path(), &Clock::manual(NOW));
    assert_eq!(live(&storage_runtime.engine()), counted, "a restart counts what it finds");
    drop(disk);
    storage_runtime.stop().unwrap();
}

#[test]
fn journals_do_not_accumulate_behind_a_rarely_written_keyspace() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, storage_runtime) = open(folder.path(), &Clock::manual(NOW));
    let engine = storage_runtime.engine();
    let mut random = fastrand::Rng::with_seed(4);
    let mut most = 0;
    // Few enough rows at once that they go through the journal.
    // No row is replaced: a compaction would empty the journals too.
    for round in 0..45 {
        for number in 0..10 {
            set(&engine, round * 10 + number, &value(&mut random), &[]);
        }
        flush(&engine);
        most = most.max(disk.usage().journals);
    }
    // One journal is being filled, and one sorted; each is sealed at 64 MB, and memory holds 32 MiB
    // more.
    assert!(most < 2 * (64 + 32) * MIB, "{most}");
    wait_for("the sealed journal to go", || disk.usage().journals < (64 + 32) * MIB);
    let bytes = |usage: StorageUsage| usage.tables + usage.journals + usage.log + usage.other;
    assert_eq!(bytes(disk.usage()), disk.usage().total());
    drop((disk, engine));
    storage_runtime.stop().unwrap();
    let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let journals = files.filter(|path| path.extension().is_some_and(|ending| ending == "jnl"));
    let left: u64 = journals.map(|path| directory_bytes(&path)).sum();
    assert!(left < 2 * MIB, "{left}");
}

#[test]
fn history_is_retained_as_configured_and_not_much_longer() {
    for (promised, value_bytes) in [(0, 2_000), (1_000_000, 50_000), (5_000_000, 700)] {
        let folder = tempfile::tempdir().unwrap();
        let retain = RetainConfig { bytes: promised, ..RetainConfig::default() };
        let (disk, storage_runtime) = open_retaining(folder.path(), &Clock::manual(NOW), retain);
        let engine = storage_runtime.engine();
        let kept = || engine.segments().bytes();
        let mut written = 0;
        while written < 16_600_000 {
            let value = Value::Binary(vec![written as u8; value_bytes]);
            set(&engine, written % 50, &value, &[]);
            let before = written;
            written += value_bytes as u64;
            if written >> 21 > before >> 21 {
                flush(&engine);
                assert!(kept() >= promised.min(written), "{} of {promised}", kept());
            }
        }
        flush(&engine);
        let segment = retain.full_segment_bytes() + value_bytes as u64;
        wait_for("older history to go", || kept() <= promised + 2 * segment);
        drop((disk, engine));
        storage_runtime.stop().unwrap();
    }
}

#[test]
fn old_history_is_trimmed_even_without_writes() {
    let folder = tempfile::tempdir().unwrap();
    let retain = RetainConfig { age_ms: 10_000, segment_bytes: 10_000, ..RetainConfig::default() };
    let clock = Clock::manual(NOW);
    let (disk, storage_runtime) = open_retaining(folder.path(), &clock, retain);
    let engine = storage_runtime.engine();
    for second in 0..20 {
        clock.advance_to(NOW + second * 1_000);
        for number in 0..10 {
            set(&engine, number, &Value::Binary(vec![1; 2_000]), &[]);
        }
        flush(&engine);
        // Ten writes a second, and the write that set the time.
        let young = second.saturating_sub(10) * 10 + 1;
        assert!(engine.segments().first_seq() <= young, "second {second}");
    }
    let first = engine.segments().first_seq();
    assert!(first > 50, "history that is too old is trimmed: {first}");
    clock.advance_to(NOW + 60_000);
    wait_for("all that is closed to go", || engine.segments().first_seq() > 180);
    drop((disk, engine));
    storage_runtime.stop().unwrap();
}

/// A killed compaction leaves every live row, and no other.
#[test]
fn a_kill_in_a_compaction_changes_no_row() {
    let seed = std::env::var("VATN_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed} (VATN_SEED repeats it)");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut model = std::collections::BTreeMap::new();
    for round in 0..6 {
        let broker = Broker::open(folder.path(), &[]);
        runtime.block_on(async {
            let options = WriteOptions { durability: Some(Level::Stored), ..Default::default() };
            let connection = ClientOptions::default();
            let mut client = Client::connect(&broker.router, &connection).await.unwrap();
            for number in 0..60_u64 {
                let found = client.get(&number.to_be_bytes()).await.unwrap();
                let found = found.map(|value| value.decode::<u64>().unwrap());
                assert_eq!(found, model.get(&number).copied(), "round {round}, key {number}");
            }
            let filler = value(&mut random);
            for number in 0..40 {
                let key = format!("filler {number}").into_bytes();
                client.set(&key, &RawValue::from(&filler), &options).await.unwrap();
            }
            for _ in 0..60 {
                let (number, new) = (random.u64(..60), random.u64(..));
                if random.bool() {
                    let value = RawValue::from(&Value::from(new));
                    client.set(&number.to_be_bytes(), &value, &options).await.unwrap();
                    model.insert(number, new);
                } else {
                    client.delete(&number.to_be_bytes(), &options).await.unwrap();
                    model.remove(&number);
                }
            }
            client.flush().await.unwrap();
            client.compact().await.unwrap();
            // Any moment is suitable.
            tokio::time::sleep(std::time::Duration::from_micros(random.u64(..60_000))).await;
        });
        broker.kill();
    }
}
