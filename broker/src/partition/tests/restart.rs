//! The whole way of a record in simulation: partitions over shards over Raft over the one log of a simulated disk that
//! loses its power again and again. Checked: I1, I2, I3, I5, I6 as far as one node can break them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_env::disk::{Disk, OpenMode, read_exact_at};
use ottla_env::rt;
use ottla_env::sim::disk::{SimDisk, SimDiskOptions};
use ottla_env::sim::{self, SimNode};
use ottla_protocol::batch::{BatchBuilder, NewRecord, split_batches};
use ottla_protocol::compression::Codec;
use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::{Offset, ProducerId};
use ottla_raft::{NoPeers, RaftHost, RaftOptions};
use ottla_storage::data_dir::{DataDir, DataDirOptions};
use ottla_storage::log::LogOptions;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::config::TopicConfig;
use crate::metadata::{MetadataImage, ShardKind, ShardRecord};
use crate::partition::*;
use crate::replicated::group::records::{CommittedOffset, Record};
use crate::replicated::transactions::Marker;
use crate::shard::fake::{FakeMetadata, NODE, SHARD, image_with_topic};
use crate::shard::{LeaderTaskSettings, Shards};

const PARTITIONS: i32 = 4;
pub(super) const NAME: TopicRef<'static> = TopicRef::Name("t");

/// What a client was told: by partition, the value of the record at each offset.
type Acked = Arc<Mutex<BTreeMap<i32, BTreeMap<i64, u64>>>>;

fn options() -> DataDirOptions {
    let log = LogOptions {
        segment_bytes: 1 << 20,
        reserve_bytes: 0,
        zero_ahead_bytes_per_second: 0,
        ..LogOptions::default()
    };
    DataDirOptions {
        node_id: NODE.0,
        log,
        checkpoint_bytes: 64 << 10,
        checkpoint_interval: Duration::from_millis(60),
        maintenance_interval: Duration::from_millis(20),
        ..DataDirOptions::default()
    }
}

/// The image with the shard's replica in the directory that there is.
pub(super) fn placed(directory: Uuid, config: TopicConfig, kind: ShardKind) -> MetadataImage {
    let mut image = image_with_topic(PARTITIONS, config);
    let mut record: ShardRecord = (**image.shard(SHARD).unwrap()).clone();
    record.replicas[0].directory = directory;
    record.kind = kind;
    image.shards = Arc::new([(SHARD, Arc::new(record))].into_iter().collect());
    image
}

pub(super) struct Node {
    pub(super) directory: Arc<DataDir>,
    host: RaftHost,
    pub(super) partitions: Partitions,
}

pub(super) async fn start(disk: SimDisk, config: TopicConfig, upkeep: LeaderTaskSettings) -> Node {
    start_as(disk, config, upkeep, ShardKind::Pool { factor: 1, pinned: false }).await
}

async fn start_as(disk: SimDisk, config: TopicConfig, upkeep: LeaderTaskSettings, kind: ShardKind) -> Node {
    start_in(disk, |directory| placed(directory, config, kind), upkeep).await
}

/// `image_of`: the metadata, by the id of the node's directory.
pub(super) async fn start_in(
    disk: SimDisk,
    image_of: impl FnOnce(Uuid) -> MetadataImage,
    upkeep: LeaderTaskSettings,
) -> Node {
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let (directory, recovered) = DataDir::open(disk, Path::new("/data"), options()).await.unwrap();
    let host = RaftHost::new(Arc::new(NoPeers), RaftOptions::default());
    let metadata = FakeMetadata::new(image_of(directory.directory_id()));
    let directories = [(directory.directory_id(), directory.clone())].into_iter().collect();
    let shards = Shards::new(NODE, host.clone(), directories, Arc::new(metadata), upkeep);
    shards.open(recovered.iter().map(|replica| (&directory, replica))).await;
    shards.start();
    Node { directory, host, partitions: Partitions::new(shards) }
}

pub(super) fn options_of(connection: u64) -> AppendOptions {
    AppendOptions::new(Origin::Client(ConnectionId(connection)), Duration::from_secs(30))
}

fn batch(producer: Option<(i64, i32)>, values: &[u64]) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    if let Some((id, sequence)) = producer {
        builder = builder.with_producer(id, 0, sequence);
    }
    for value in values {
        let timestamp = rt::wall_clock_ms();
        builder.push(&NewRecord { timestamp, key: None, value: Some(&value.to_be_bytes()), headers: &[] });
    }
    builder.build().unwrap()
}

/// One idempotent producer: numbers its values, retries what got no answer in the life before.
async fn produce(node: &Node, index: i32, resume: &Mutex<Progress>, acked: &Acked) {
    let partition = node.partitions.find(NAME, index).await.unwrap();
    loop {
        let (sequence, values) = {
            let mut progress = resume.lock();
            if progress.unanswered.is_empty() {
                let count = 1 + sim::random_below(5);
                let first = progress.next_value;
                progress.next_value += count;
                progress.unanswered = (first..first + count).collect();
            }
            (progress.sequence, progress.unanswered.clone())
        };
        let data = batch(Some((i64::from(index), sequence)), &values);
        match partition.append(data, &options_of(1)).await {
            // The answer is lost on its way: sent again later, perhaps in another life.
            Ok(_) if sim::random_below(12) == 0 => rt::sleep(Duration::from_millis(sim::random_below(500))).await,
            Ok(appended) => {
                let mut progress = resume.lock();
                progress.sequence += i32::try_from(values.len()).unwrap();
                progress.unanswered.clear();
                let mut acked = acked.lock();
                let offsets = acked.entry(index).or_default();
                for (offset, value) in (appended.base_offset.0..).zip(values) {
                    assert!(
                        offsets.insert(offset, value).is_none_or(|before| before == value),
                        "an offset given twice"
                    );
                }
            }
            Err(error) => assert!(error.is_retriable(), "{error:?}"),
        }
        rt::sleep(Duration::from_micros(sim::random_below(2_000))).await;
    }
}

#[derive(Default)]
struct Progress {
    sequence: i32,
    next_value: u64,
    unanswered: Vec<u64>,
}

/// What a reader at the leader asks for.
pub(super) fn reads_at(partition: &Partition, offset: Offset) -> FetchSpec {
    FetchSpec {
        offset,
        max_bytes: 30_000,
        at_least_one: true,
        copy_bytes_max: usize::MAX,
        isolation: Isolation::ReadUncommitted,
        access: Access::Leader,
        current_leader_epoch: partition.leader_epoch(),
        last_fetched_epoch: None,
    }
}

/// Everything in a partition from log start to its end, by offset.
async fn read_all(partition: &Partition) -> BTreeMap<i64, u64> {
    let mut found = BTreeMap::new();
    let mut from = partition.watermarks().log_start;
    loop {
        let fetched = partition.read(reads_at(partition, from)).await.unwrap();
        let FetchedRecords::Copied(records) = fetched.records else {
            assert_eq!(from, fetched.watermarks.high_watermark, "{:?}: the log ends before its end", partition.id());
            return found;
        };
        for view in split_batches(&records) {
            let view = view.unwrap();
            ottla_protocol::batch::check_crc(&view.bytes, &view.header).unwrap();
            let records = ottla_protocol::records::open(&view.header, &view.bytes, 1 << 20).unwrap();
            for record in &records {
                let record = record.unwrap();
                let offset = view.header.base_offset.0 + i64::from(record.offset_delta);
                found.insert(offset, u64::from_be_bytes(record.value.unwrap().try_into().unwrap()));
            }
            from = view.header.next_offset();
        }
    }
}

async fn check(node: &Node, acked: &Acked) {
    for index in 0..PARTITIONS {
        let partition = node.partitions.find(NAME, index).await.unwrap();
        let found = read_all(&partition).await;
        let offsets: Vec<i64> = found.keys().copied().collect();
        let log_start = partition.watermarks().log_start.0;
        assert!(
            offsets.iter().copied().eq(log_start..log_start + offsets.len() as i64),
            "{index}: offsets are not dense"
        );
        let mut values: Vec<u64> = found.values().copied().collect();
        assert!(values.is_sorted(), "{index}: order broken");
        values.dedup();
        assert_eq!(values.len(), found.len(), "{index}: a record is there twice");
        for (offset, value) in
            acked.lock().get(&index).into_iter().flatten().filter(|(offset, _)| **offset >= log_start)
        {
            assert_eq!(found.get(offset), Some(value), "partition {index}, offset {offset}: acknowledged, not there");
        }
    }
}

/// `lives` times: start, check what was acknowledged, produce for a while, crash.
async fn live_and_die(seed: u64, lives: u16) {
    let disk = SimDisk::new(seed, SimDiskOptions::default());
    let acked = Acked::default();
    let progress: Arc<Vec<Mutex<Progress>>> = Arc::new((0..PARTITIONS).map(|_| Mutex::default()).collect());
    for life in 1..=lives {
        let home = SimNode(life.into());
        let (disk_now, acked_now, progress_now) = (disk.clone(), acked.clone(), progress.clone());
        let run = sim::spawn_on(home, async move {
            let node = Arc::new(start(disk_now, TopicConfig::default(), LeaderTaskSettings::default()).await);
            check(&node, &acked_now).await;
            for index in 0..PARTITIONS {
                let (node, acked, progress) = (node.clone(), acked_now.clone(), progress_now.clone());
                let slot = usize::try_from(index).unwrap();
                rt::spawn(async move { produce(&node, index, &progress[slot], &acked).await });
            }
            node
        });
        let node = run.await.unwrap();
        rt::sleep(Duration::from_millis(100 + sim::random_below(300))).await;
        drop(node);
        sim::crash(home);
        let power = sim::random_below(2) == 0;
        disk.crash(if power { sim::disk::Crash::Power } else { sim::disk::Crash::Process });
        rt::sleep(Duration::from_millis(1)).await;
    }
    let last = sim::spawn_on(SimNode(99), async move {
        let node = start(disk, TopicConfig::default(), LeaderTaskSettings::default()).await;
        check(&node, &acked).await;
        let count: usize = acked.lock().values().map(BTreeMap::len).sum();
        assert!(count > 100, "only {count} records were acknowledged: the test proves little");
        node.host.shutdown().await;
        node.directory.close().await.unwrap();
    });
    last.await.unwrap();
}

#[test]
fn what_was_acknowledged_survives_every_crash_at_its_offset_once() {
    for seed in 0..12 {
        sim::run(seed, move || live_and_die(seed, 5));
    }
}

#[test]
fn a_life_with_crashes_repeats_from_its_seed() {
    sim::run_twice(77, || live_and_die(77, 2));
}

/// Reads, times and space over a real log: what retention and DeleteRecords leave, and what time queries find.
#[test]
fn retention_moves_the_log_start_over_whole_batches_and_times_are_found_in_what_is_left() {
    sim::run(5, || async {
        let disk = SimDisk::new(5, SimDiskOptions::default());
        let config = TopicConfig { retention_bytes: Some(2_000), ..TopicConfig::default() };
        let upkeep = LeaderTaskSettings { retention_check: Duration::from_secs(1), ..LeaderTaskSettings::default() };
        let node = start(disk, config, upkeep).await;
        let partition = node.partitions.find(NAME, 0).await.unwrap();
        let mut times = Vec::new();
        for n in 0..100u64 {
            rt::sleep(Duration::from_millis(5)).await;
            times.push(rt::wall_clock_ms());
            let appended = partition.append(batch(None, &[n, n + 1_000]), &options_of(1)).await.unwrap();
            assert_eq!(appended.base_offset, Offset(i64::try_from(n).unwrap() * 2));
        }
        let by_time = async |at: i64| {
            partition.list_offset(OffsetQuery::Timestamp(at), Isolation::ReadUncommitted, None).await.unwrap()
        };
        assert_eq!(by_time(times[50]).await.unwrap().offset, Offset(100));
        assert_eq!(by_time(times[50] + 1).await.unwrap().offset, Offset(102));
        assert_eq!(by_time(times[99] + 1).await, None);
        rt::sleep(Duration::from_secs(3)).await;
        let log_start = partition.watermarks().log_start;
        assert!(log_start > Offset(100) && log_start.0 % 2 == 0, "{log_start}");
        // As Kafka: never less than `retention.bytes` is kept.
        assert!((2_000..2_200).contains(&partition.size_bytes()), "{}", partition.size_bytes());
        assert_eq!(by_time(0).await.unwrap().offset, log_start);
        assert_eq!(partition.delete_records(191).await.unwrap(), Offset(191));
        // Inside a batch: the batch is still given whole, times below the start are not found.
        let found = by_time(times[95]).await.unwrap();
        assert_eq!((found.offset, found.timestamp_ms), (Offset(191), times[95]));
        let greatest = partition.list_offset(OffsetQuery::MaxTimestamp, Isolation::ReadUncommitted, None).await;
        assert_eq!(greatest.unwrap().unwrap().offset, Offset(198));
        assert_eq!(partition.delete_records(-1).await.unwrap(), Offset(200));
        assert_eq!(by_time(0).await, None);
        assert_eq!(partition.append(batch(None, &[7]), &options_of(1)).await.unwrap().base_offset, Offset(200));
    });
}

/// A long poll over a real log: counts what is there already, sleeps without enough, wakes when it is there.
#[test]
fn a_long_poll_counts_what_is_there_and_what_comes() {
    sim::run_twice(6, || async {
        let node =
            start(SimDisk::new(6, SimDiskOptions::default()), TopicConfig::default(), LeaderTaskSettings::default())
                .await;
        let partition = node.partitions.find(NAME, 0).await.unwrap();
        let bytes = batch(None, &[1]).len();
        partition.append(batch(None, &[1]), &options_of(1)).await.unwrap();
        let wait = async |offset: i64, min_bytes: usize| {
            let start = rt::now();
            let (waits, reader) = ([(partition.clone(), Offset(offset))], (Isolation::ReadCommitted, Access::Leader));
            node.partitions.wait_for_data(&waits, reader, min_bytes, start + Duration::from_secs(10)).await;
            rt::now().since(start)
        };
        assert!(wait(0, bytes).await < Duration::from_millis(100));
        assert!(wait(0, bytes + 1).await >= Duration::from_secs(10));
        assert!(wait(1, 1).await >= Duration::from_secs(10));
        let later = async {
            rt::sleep(Duration::from_secs(1)).await;
            partition.append(batch(None, &[2]), &options_of(1)).await.unwrap();
        };
        let (waited, ()) = futures_util::join!(wait(0, 2 * bytes), later);
        assert!(waited >= Duration::from_secs(1) && waited < Duration::from_secs(2), "{waited:?}");
    });
}

/// Found by the simulation (seed 110930): apply moves the log start in the directory before readers are shown it. A reader in
/// between is told that its records are gone, and not given the next ones in silence.
#[test]
fn a_read_over_which_the_log_start_moves_skips_nothing_in_silence() {
    sim::run(8, || async {
        let disk = SimDisk::new(8, SimDiskOptions::default());
        let node = start(disk, TopicConfig::default(), LeaderTaskSettings::default()).await;
        let partition = node.partitions.find(NAME, 0).await.unwrap();
        for value in 0..3 {
            partition.append(batch(None, &[value]), &options_of(1)).await.unwrap();
        }
        node.directory.set_log_start(partition.shard.replica, partition.id(), Offset(2));
        let read = |offset: i64| partition.read(reads_at(&partition, Offset(offset)));
        assert_eq!(read(1).await.unwrap_err(), PartitionError::OffsetOutOfRange);
        assert!(matches!(read(2).await.unwrap().records, FetchedRecords::Copied(_)));
    });
}

fn commit(offset: i64) -> Bytes {
    let value = CommittedOffset {
        offset,
        leader_epoch: 0,
        // Large, so that the checkpoint begins new generations often.
        metadata: "m".repeat(40_000).into(),
        commit_time_ms: 1,
        expire_time_ms: None,
        topic_id: Uuid::nil(),
    };
    let record = Record::Offset { group: "g".to_owned(), topic: "t".to_owned(), partition: 0, value: Some(value) };
    let (key, value) = record.encode();
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(&NewRecord { timestamp: 1, key: Some(&key), value: value.as_deref(), headers: &[] });
    builder.build().unwrap()
}

/// Group offsets need no log beyond what the oldest kept checkpoint does not cover, and come back after a crash.
#[test]
fn the_log_of_group_offsets_stays_short_and_the_offsets_survive() {
    sim::run(7, || async {
        let disk = SimDisk::new(7, SimDiskOptions::default());
        let upkeep = LeaderTaskSettings { offsets_check: Duration::from_millis(100), ..LeaderTaskSettings::default() };
        let kind = ShardKind::ConsumerOffsets;
        let (home, disk_now, upkeep_now) = (SimNode(1), disk.clone(), upkeep.clone());
        let life = sim::spawn_on(home, async move {
            let node = start_as(disk_now, TopicConfig::default(), upkeep_now, kind).await;
            let partition = node.partitions.find(NAME, 0).await.unwrap();
            for offset in 0..400 {
                let origin = Origin::Coordinator(partition.leader_epoch().unwrap());
                let options = AppendOptions { origin, ..options_of(0) };
                partition.append(commit(offset), &options).await.unwrap();
                rt::sleep(Duration::from_millis(5)).await;
            }
            let offsets = partition.watermarks();
            assert_eq!(offsets.high_watermark, Offset(400));
            assert!(offsets.log_start > Offset(200), "the log still begins at {}", offsets.log_start);
            offsets.log_start
        });
        let log_start = life.await.unwrap();
        sim::crash(home);
        disk.crash(sim::disk::Crash::Power);
        let node = start_as(disk, TopicConfig::default(), upkeep, kind).await;
        let partition = node.partitions.find(NAME, 0).await.unwrap();
        assert!(partition.watermarks().log_start >= log_start);
        let store = partition.group_store().unwrap();
        assert_eq!(store.lock().offset("g", "t", 0).unwrap().offset, 399);
    });
}

/// Flips a bit of these bytes, wherever they lie in the log.
fn damage(disk: &SimDisk, needle: &[u8]) {
    let log = Path::new("/data/log");
    for file in disk.list(log).unwrap().into_iter().filter(|file| file.name.ends_with(".log")) {
        let path = log.join(&file.name);
        let opened = disk.open(&path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(opened.bytes().unwrap()).unwrap()];
        read_exact_at(&*opened, &mut bytes, 0).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            return disk.flip_bit(&path, at as u64 + 2, 3).unwrap();
        }
    }
    panic!("not in the log");
}

/// One life that appends `batches`, a crash with damage to `needle`, and the next start.
async fn damaged_life(kind: ShardKind, batches: Vec<Bytes>, needle: &[u8]) -> SimDisk {
    let disk = SimDisk::new(9, SimDiskOptions::default());
    let (home, disk_now) = (SimNode(1), disk.clone());
    let life = sim::spawn_on(home, async move {
        let node = start_as(disk_now, TopicConfig::default(), LeaderTaskSettings::default(), kind).await;
        let partition = node.partitions.find(NAME, 0).await.unwrap();
        for batch in batches {
            let origin = Origin::Coordinator(partition.leader_epoch().unwrap());
            let options = AppendOptions { origin, ..options_of(0) };
            partition.append(batch, &options).await.unwrap();
        }
    });
    life.await.unwrap();
    sim::crash(home);
    disk.crash(sim::disk::Crash::Power);
    damage(&disk, needle);
    disk
}

#[test]
fn damaged_records_that_no_checkpoint_covers_cost_their_offsets_only() {
    sim::run(9, || async {
        let values: Vec<u64> = (0..6).map(|n| 0x5eed_0000_dead_0000 + n).collect();
        let batches = values.iter().map(|value| batch(None, &[*value, 7])).collect();
        let kind = ShardKind::Pool { factor: 1, pinned: false };
        let disk = damaged_life(kind, batches, &values[3].to_be_bytes()).await;
        let node = start(disk, TopicConfig::default(), LeaderTaskSettings::default()).await;
        let partition = node.partitions.find(NAME, 0).await.unwrap();
        assert_eq!(partition.append(batch(None, &[1]), &options_of(1)).await.unwrap().base_offset, Offset(12));
        for offset in [0, 4, 6, 7, 8, 12] {
            let read = partition.read(FetchSpec { max_bytes: 1, ..reads_at(&partition, Offset(offset)) }).await;
            if offset == 6 || offset == 7 {
                assert_eq!(read.err().map(|error| error.code()), Some(ErrorCode::KafkaStorageError), "{offset}");
            } else {
                assert!(read.unwrap().records.bytes() > 0, "{offset}");
            }
        }
    });
}

/// What damaged records say of groups is unknown: the shard stops rather than forget a commit in silence.
#[test]
fn damaged_records_of_group_offsets_stop_their_shard() {
    sim::run(10, || async {
        let disk = damaged_life(ShardKind::ConsumerOffsets, (0..3).map(commit).collect(), &[b'm'; 64]).await;
        let node =
            start_as(disk, TopicConfig::default(), LeaderTaskSettings::default(), ShardKind::ConsumerOffsets).await;
        let failed = node.host.failures().wait_for(|failures| !failures.is_empty()).await.unwrap().clone();
        assert!(
            failed.values().all(|failure| failure.is_damage && failure.why.contains("damaged on disk")),
            "{failed:?}"
        );
    });
}

/// A full disk refuses produce with a retriable error, serves reads, and takes records again once there is room.
#[test]
fn a_full_disk_refuses_produce_serves_reads_and_recovers_without_a_restart() {
    sim::run(8, || async {
        let disk = SimDisk::new(8, SimDiskOptions { capacity_bytes: 64 << 20, ..SimDiskOptions::default() });
        let node = start(disk.clone(), TopicConfig::default(), LeaderTaskSettings::default()).await;
        let partition = node.partitions.find(NAME, 0).await.unwrap();
        partition.append(batch(None, &[1, 2]), &options_of(1)).await.unwrap();
        disk.set_capacity(0);
        let mut refused = None;
        for _ in 0..20_000 {
            let values: Vec<u64> = (0..2_000).collect();
            if let Err(error) = partition.append(batch(None, &values), &options_of(1)).await {
                refused = Some(error);
                break;
            }
        }
        let error = refused.unwrap();
        assert!(error.is_retriable(), "{error:?}");
        let found = read_all(&partition).await;
        assert_eq!((found[&0], found[&1]), (1, 2));
        disk.set_capacity(1 << 40);
        rt::sleep(Duration::from_secs(5)).await;
        partition.append(batch(None, &[3]), &options_of(1)).await.unwrap();
    });
}

fn of_transaction(producer: i64, sequence: i32, values: &[u64]) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None).with_producer(producer, 0, sequence).transactional();
    for value in values {
        let (timestamp, bytes) = (rt::wall_clock_ms(), value.to_be_bytes());
        builder.push(&NewRecord { timestamp, key: Some(&bytes), value: Some(&bytes), headers: &[] });
    }
    builder.build().unwrap()
}

/// Appends to a transaction of a producer, as a handler does that has asked its coordinator.
pub(super) async fn enter(
    partition: &Partition,
    producer: i64,
    sequence: i32,
    values: &[u64],
) -> Result<Appended, AppendError> {
    let transaction = Some(match partition.transaction_of(ProducerId(producer), 0)? {
        ProducerTransaction::Open => TransactionPart::Continues,
        ProducerTransaction::None { marker_number } => {
            TransactionPart::Decides(TransactionDecision::Opens { marker_number })
        }
    });
    let options = AppendOptions { transaction, ..options_of(1) };
    partition.append(of_transaction(producer, sequence, values), &options).await
}

pub(super) async fn mark(partition: &Partition, producer: i64, commits: bool) -> Appended {
    let mut builder = BatchBuilder::new(Codec::None).with_producer(producer, 0, -1).transactional().control();
    let timestamp = rt::wall_clock_ms();
    let key = [0, 0, 0, u8::from(commits)];
    builder.push(&NewRecord { timestamp, key: Some(&key), value: Some(&[0; 6]), headers: &[] });
    let marker = Marker { commits, coordinator_epoch: 1, version: 1 };
    let transaction = Some(TransactionPart::Decides(TransactionDecision::Ends(marker)));
    let options = AppendOptions { transaction, origin: Origin::Transaction, ..options_of(0) };
    partition.append(builder.build().unwrap(), &options).await.unwrap()
}

/// The offsets of the batches that a reader of committed data gets from here on, and the aborted transactions that it is told of.
pub(super) async fn committed(partition: &Partition, from: i64) -> (Vec<i64>, Vec<(i64, i64)>) {
    let spec = FetchSpec {
        offset: Offset(from),
        max_bytes: 1 << 20,
        at_least_one: true,
        copy_bytes_max: usize::MAX,
        isolation: Isolation::ReadCommitted,
        access: Access::Leader,
        current_leader_epoch: None,
        last_fetched_epoch: None,
    };
    let fetched = partition.read(spec).await.unwrap();
    let bytes = if let FetchedRecords::Copied(bytes) = fetched.records { bytes } else { Bytes::new() };
    let bases = split_batches(&bytes).map(|batch| batch.unwrap().header.base_offset.0).collect();
    let aborted = fetched.aborted.unwrap().into_iter().map(|one| (one.producer_id.0, one.first_offset.0)).collect();
    (bases, aborted)
}

#[test]
fn readers_of_committed_data_get_what_is_stable_and_are_told_what_was_aborted() {
    sim::run_twice(12, || async {
        let disk = SimDisk::new(12, SimDiskOptions::default());
        let node = start(disk, TopicConfig::default(), LeaderTaskSettings::default()).await;
        let partition = node.partitions.find(NAME, 0).await.unwrap();
        let refused = partition.append(of_transaction(1, 0, &[1]), &options_of(1)).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidTxnState, "nobody has asked its coordinator");
        partition.append(batch(None, &[0]), &options_of(1)).await.unwrap();
        assert_eq!(enter(&partition, 1, 0, &[1, 2]).await.unwrap().base_offset, Offset(1));
        assert_eq!(enter(&partition, 2, 0, &[3]).await.unwrap().base_offset, Offset(3));
        assert_eq!(partition.transaction_of(ProducerId(1), 0), Ok(ProducerTransaction::Open));
        assert_eq!(committed(&partition, 0).await, (vec![0], vec![]));
        assert_eq!(committed(&partition, 1).await, (vec![], vec![]));
        let latest = partition.list_offset(OffsetQuery::Latest, Isolation::ReadCommitted, None).await.unwrap();
        assert_eq!(latest.unwrap().offset, Offset(1));
        assert_eq!(partition.delete_records(-1).await.unwrap(), Offset(1), "an open transaction keeps its records");

        let (waits, reader) = ([(partition.clone(), Offset(1))], (Isolation::ReadCommitted, Access::Leader));
        let wait = async || {
            let start = rt::now();
            node.partitions.wait_for_data(&waits, reader, 1, start + Duration::from_secs(10)).await;
            rt::now().since(start)
        };
        let more = async {
            rt::sleep(Duration::from_secs(1)).await;
            let _ = enter(&partition, 1, 2, &[4]).await.unwrap();
        };
        let (waited, ()) = futures_util::join!(wait(), more);
        assert!(waited >= Duration::from_secs(10), "what is not stable wakes nobody: {waited:?}");
        let abort = async {
            rt::sleep(Duration::from_secs(1)).await;
            let _ = mark(&partition, 1, false).await;
        };
        let (waited, ()) = futures_util::join!(wait(), abort);
        assert!(waited < Duration::from_secs(2), "{waited:?}");

        // 1: two records, aborted; 3: of the other producer, open; 4: aborted; 5: the marker.
        assert_eq!(committed(&partition, 1).await, (vec![1], vec![(1, 1)]));
        assert_eq!(mark(&partition, 2, true).await.base_offset, Offset(6));
        assert_eq!(committed(&partition, 1).await, (vec![1, 3, 4, 5, 6], vec![(1, 1)]));
        assert_eq!(committed(&partition, 6).await, (vec![6], vec![]), "its marker is behind");
        assert_eq!(partition.delete_records(-1).await.unwrap(), Offset(7));
    });
}
