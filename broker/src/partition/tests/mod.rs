//! Partitions over a shard whose Raft group the test controls: validation, adoption, epochs, offsets, long polls.
#![allow(clippy::unwrap_used)]

mod compaction;
mod delete_records;
mod restart;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_env::{rt, sim};
use ottla_protocol::batch::{BatchBuilder, BatchHeader, NewRecord};
use ottla_protocol::compression::Codec;
use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::{LeaderEpoch, NodeId, Offset};

use super::*;
use crate::config::{CleanupPolicy, CompressionType, TimestampType, TopicConfig};
use crate::metadata::{
    FenceReason, Levels, Liveness, MetadataImage, NodeRecord, NodeState, ReplicaRecord, ShardKind, ShardRecord,
};
use crate::replicated::command::{AdoptedPartition, Command};
use crate::shard::fake::{FakeGroup, FakeMetadata, NODE, REPLICA, SHARD, image_with_topic, partition};
use crate::shard::{LeaderTaskSettings, MetadataView, Shards};
use ottla_storage::ids::{RaftIndex, ReplicaId};

const POOL: ShardKind = ShardKind::Pool { factor: 1, pinned: false };
const NAME: TopicRef<'static> = TopicRef::Name("t");

fn now_ms() -> i64 {
    rt::wall_clock_ms()
}

fn batch_of(codec: Codec, records: &[(i64, Option<&[u8]>)]) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    for (timestamp, key) in records {
        builder.push(&NewRecord { timestamp: *timestamp, key: *key, value: Some(b"value"), headers: &[] });
    }
    builder.build().unwrap()
}

fn batch(count: usize) -> Bytes {
    batch_of(Codec::None, &vec![(now_ms(), None); count])
}

fn options(acks: Acks) -> AppendOptions {
    let origin = Origin::Client(ConnectionId(1));
    AppendOptions { acks, ..AppendOptions::new(origin, Duration::from_secs(5)) }
}

async fn append(partition: &Partition, batch: Bytes) -> Result<Appended, AppendError> {
    partition.append(batch, &options(Acks::All)).await
}

/// One topic "t" with three partitions on one shard that this node leads; adoption runs.
struct World {
    group: FakeGroup,
    metadata: FakeMetadata,
    partitions: Partitions,
}

fn world_of(image: MetadataImage) -> World {
    let (group, shard) = FakeGroup::leading(POOL);
    let metadata = FakeMetadata::new(image);
    rt::spawn(crate::shard::tasks::run(
        shard.clone(),
        Arc::new(metadata.clone()),
        LeaderTaskSettings::default(),
        Box::new(|_| None),
    ));
    let partitions = Partitions::new(Shards::for_tests(shard, Arc::new(metadata.clone())));
    World { group, metadata, partitions }
}

fn world(config: TopicConfig) -> World {
    world_of(image_with_topic(3, config))
}

async fn found(config: TopicConfig) -> (World, Partition) {
    let world = world(config);
    let partition = world.partitions.find(NAME, 0).await.unwrap();
    (world, partition)
}

/// The batch as it was proposed last.
fn proposed(world: &World) -> Bytes {
    world.group.entries().last().unwrap().batches[0].data.clone()
}

#[tokio::test]
async fn a_found_partition_is_adopted_led_and_takes_records() {
    let (world, partition) = found(TopicConfig::default()).await;
    assert_eq!(partition.leader_epoch(), Some(LeaderEpoch(1)));
    assert_eq!(append(&partition, batch(3)).await.unwrap().base_offset, Offset(0));
    assert_eq!(append(&partition, batch(2)).await.unwrap().base_offset, Offset(3));
    assert_eq!(partition.watermarks().high_watermark, Offset(5));
    let leadership = world.partitions.leadership(partition.topic(), 0);
    assert_eq!((leadership.leader, leadership.leader_epoch), (Some(crate::shard::fake::NODE), LeaderEpoch(1)));
    assert_eq!(world.partitions.led_partitions(partition.topic().id), [0, 1, 2]);
}

#[tokio::test]
async fn unknown_is_said_only_after_the_metadata_was_read_again() {
    let world = world_of(MetadataImage::default());
    *world.metadata.unseen.lock() = Some(image_with_topic(1, TopicConfig::default()));
    assert!(world.partitions.find(NAME, 0).await.is_ok());
    assert_eq!(world.partitions.find(NAME, 1).await.unwrap_err(), PartitionError::UnknownTopicOrPartition);
    let nobody = TopicRef::Id(uuid::Uuid::from_u128(1));
    assert_eq!(world.partitions.find(nobody, 0).await.unwrap_err(), PartitionError::UnknownTopicId);
    world.metadata.unconfirmed.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(world.partitions.find(NAME, 1).await.unwrap_err(), PartitionError::LeaderNotAvailable);
    assert_eq!(world.partitions.find(nobody, 0).await.unwrap_err(), PartitionError::LeaderNotAvailable);
}

#[test]
fn an_adoption_that_does_not_come_ends_in_leader_not_available() {
    sim::run_twice(1, || async {
        let (_group, shard) = FakeGroup::leading(POOL);
        let metadata = FakeMetadata::new(image_with_topic(1, TopicConfig::default()));
        let partitions = Partitions::new(Shards::for_tests(shard.clone(), Arc::new(metadata)));
        assert_eq!(partitions.find(NAME, 0).await.unwrap_err(), PartitionError::LeaderNotAvailable);
        assert_eq!(shard.take_adoption_requests(), [partition(0)]);
    });
}

#[tokio::test]
async fn another_node_s_partition_is_not_served() {
    let (world, partition) = found(TopicConfig::default()).await;
    world.group.set_role(2, false);
    assert_eq!(partition.leader_epoch(), None);
    assert_eq!(world.partitions.find(NAME, 0).await.unwrap_err(), PartitionError::NotLeaderOrFollower);
    let error = append(&partition, batch(1)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotLeaderOrFollower);
    let listed = partition.list_offset(OffsetQuery::Latest, Isolation::ReadUncommitted, None).await;
    assert_eq!(listed.unwrap_err(), PartitionError::NotLeaderOrFollower);
}

#[tokio::test]
async fn damage_size_and_foreign_batches_are_refused_before_they_are_proposed() {
    let (world, partition) = found(TopicConfig { max_message_bytes: 200, ..TopicConfig::default() }).await;
    let before = world.group.entries().len();
    let mut damaged = batch(1).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let codes = [
        (Bytes::from(damaged), ErrorCode::CorruptMessage),
        (batch(20), ErrorCode::MessageTooLarge),
        (Bytes::new(), ErrorCode::InvalidRecord),
        ([batch(1), batch(1)].concat().into(), ErrorCode::InvalidRecord),
    ];
    for (data, code) in codes {
        assert_eq!(append(&partition, data).await.unwrap_err().code(), code);
    }
    assert_eq!(world.group.entries().len(), before);
}

#[tokio::test]
async fn a_compacted_topic_demands_keys_and_names_the_records_without() {
    let cleanup_policy = CleanupPolicy { delete: false, compact: true };
    let (_world, partition) = found(TopicConfig { cleanup_policy, ..TopicConfig::default() }).await;
    let data = batch_of(Codec::Lz4, &[(now_ms(), Some(b"k")), (now_ms(), None), (now_ms(), None)]);
    match append(&partition, data).await.unwrap_err() {
        AppendError::InvalidRecord { records, .. } => {
            assert_eq!(records.iter().map(|record| record.batch_index).collect::<Vec<_>>(), [1, 2]);
        }
        other => panic!("{other:?}"),
    }
    assert!(append(&partition, batch_of(Codec::Lz4, &[(now_ms(), Some(b"k"))])).await.is_ok());
    assert!(matches!(partition.delete_records(-1).await, Err(PartitionError::PolicyViolation(_))));
}

#[tokio::test]
async fn timestamps_outside_the_bounds_are_refused() {
    let config = TopicConfig {
        message_timestamp_before_max_ms: 10_000,
        message_timestamp_after_max_ms: 10_000,
        ..TopicConfig::default()
    };
    let (_world, partition) = found(config).await;
    for (time, accepted) in [(now_ms(), true), (now_ms() - 20_000, false), (now_ms() + 20_000, false), (-1, true)] {
        let outcome = append(&partition, batch_of(Codec::None, &[(time, None)])).await;
        match outcome {
            Ok(_) => assert!(accepted),
            Err(error) => assert!(!accepted && error.code() == ErrorCode::InvalidTimestamp, "{error:?}"),
        }
    }
}

#[tokio::test]
async fn log_append_time_is_stamped_with_a_new_checksum_and_told() {
    let config = TopicConfig { message_timestamp_type: TimestampType::LogAppendTime, ..TopicConfig::default() };
    let (world, partition) = found(config).await;
    let before = now_ms();
    let appended = append(&partition, batch_of(Codec::None, &[(5, None)])).await.unwrap();
    assert!(appended.log_append_time_ms.unwrap() >= before);
    let stored = proposed(&world);
    let header = BatchHeader::parse(&stored).unwrap();
    assert!(header.attributes.is_log_append_time());
    assert_eq!(Some(header.max_timestamp), appended.log_append_time_ms);
    ottla_protocol::batch::check_crc(&stored, &header).unwrap();
}

#[tokio::test]
async fn a_batch_is_recompressed_where_the_topic_wants_another_codec() {
    let (world, partition) =
        found(TopicConfig { compression_type: CompressionType::Zstd, ..TopicConfig::default() }).await;
    for codec in Codec::ALL {
        append(&partition, batch_of(codec, &[(now_ms(), None), (now_ms(), Some(b"k"))])).await.unwrap();
        let stored = proposed(&world);
        let header = BatchHeader::parse(&stored).unwrap();
        assert_eq!(header.attributes.codec(), Some(Codec::Zstd));
        ottla_protocol::batch::check_crc(&stored, &header).unwrap();
        let records = ottla_protocol::records::open(&header, &stored, 1 << 20).unwrap();
        assert_eq!(records.iter().filter(|record| record.is_ok()).count(), 2);
    }
}

#[tokio::test]
async fn a_header_that_lies_about_the_greatest_timestamp_is_put_right() {
    let (world, partition) = found(TopicConfig::default()).await;
    let time = now_ms();
    let mut lying = batch_of(Codec::None, &[(time, None)]).to_vec();
    lying[35..43].copy_from_slice(&i64::MAX.to_be_bytes());
    let crc = ottla_protocol::batch::crc32c(&lying[21..]);
    lying[17..21].copy_from_slice(&crc.to_be_bytes());
    append(&partition, lying.into()).await.unwrap();
    let stored = proposed(&world);
    let header = BatchHeader::parse(&stored).unwrap();
    assert_eq!(header.max_timestamp, time);
    ottla_protocol::batch::check_crc(&stored, &header).unwrap();
}

#[tokio::test]
async fn fewer_replicas_in_sync_than_asked_for_refuse_the_append() {
    let (world, partition) = found(TopicConfig { min_insync_replicas: 2, ..TopicConfig::default() }).await;
    let before = world.group.entries().len();
    assert_eq!(append(&partition, batch(1)).await.unwrap_err(), AppendError::NotEnoughReplicas);
    assert_eq!(world.group.entries().len(), before);
    assert!(partition.append(batch(1), &options(Acks::Leader)).await.is_ok());
    world.group.in_sync.send_replace(2);
    assert!(append(&partition, batch(1)).await.is_ok());
}

/// All from an offset on, from the leader.
fn whole(offset: i64) -> FetchSpec {
    FetchSpec {
        offset: Offset(offset),
        max_bytes: 1 << 20,
        at_least_one: true,
        copy_bytes_max: usize::MAX,
        isolation: Isolation::ReadUncommitted,
        access: Access::Leader,
        current_leader_epoch: None,
        last_fetched_epoch: None,
    }
}

#[tokio::test]
async fn a_follower_gives_a_reader_what_it_has_and_says_nothing_of_the_rest() {
    let (world, partition) = found(TopicConfig::default()).await;
    append(&partition, batch(4)).await.unwrap();
    world.group.set_role(3, false);
    let spec = FetchSpec { access: Access::AnyReplica, max_bytes: 1000, copy_bytes_max: 1000, ..whole(4) };
    let not_here = PartitionError::NotLeaderOrFollower;
    assert_eq!(partition.read(spec).await.unwrap_err(), not_here, "its leader is silent");
    world.group.hears.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(partition.read(spec).await.unwrap().watermarks.high_watermark, Offset(4));
    assert_eq!(partition.read(FetchSpec { access: Access::Leader, ..spec }).await.unwrap_err(), not_here);
    let beyond = FetchSpec { offset: Offset(5), ..spec };
    assert_eq!(partition.read(beyond).await.unwrap_err(), PartitionError::OffsetNotAvailable);
    let diverging = FetchSpec { last_fetched_epoch: Some(LeaderEpoch(9)), ..beyond };
    assert_eq!(partition.read(diverging).await.unwrap_err(), PartitionError::OffsetNotAvailable);
    let old = FetchSpec { current_leader_epoch: Some(LeaderEpoch(2)), ..spec };
    assert_eq!(partition.read(old).await.unwrap_err(), PartitionError::FencedLeaderEpoch);
    assert!(world.partitions.find_for(TopicRef::Name("t"), 0, Access::AnyReplica).await.is_ok());
    assert_eq!(world.partitions.find(TopicRef::Name("t"), 0).await.unwrap_err(), not_here);
}

fn node_record(id: NodeId, is_fenced: bool) -> NodeRecord {
    NodeRecord {
        id,
        rack: None,
        listeners: Vec::new(),
        directories: Vec::new(),
        version: String::new(),
        levels: Levels::OWN,
        epoch: RaftIndex(1),
        state: NodeState::Active,
        liveness: Liveness { fenced: is_fenced.then_some(FenceReason::SessionExpired), since_ms: 1 },
    }
}

/// The shard of [`image_with_topic`] with replicas on three nodes, of which these are fenced; the second one's id is
/// given.
fn image_with_fenced(fenced: &[i32], second: ReplicaId) -> MetadataImage {
    let mut image = image_with_topic(1, TopicConfig::default());
    let (first, record) = (NODE.0, image.shard(SHARD).unwrap().as_ref().clone());
    let replica = |at: i32| ReplicaRecord {
        id: [REPLICA, second, ReplicaId(REPLICA.0 + 2)][usize::try_from(at).unwrap()],
        node: NodeId(first + at),
        directory: uuid::Uuid::nil(),
    };
    let record = ShardRecord { replicas: (0..3).map(replica).collect(), ..record };
    let node = |at: i32| node_record(NodeId(first + at), fenced.contains(&(first + at)));
    image.shards = Arc::new([(SHARD, Arc::new(record))].into_iter().collect());
    image.nodes = Arc::new((0..3).map(node).map(|node| (node.id, node)).collect());
    image
}

#[tokio::test]
async fn fenced_nodes_are_offline_and_not_in_sync_unless_they_lead() {
    // Node 1 is this one. What another leads, the group's fake has replica 9 lead.
    let (follower, leader) = (ReplicaId(REPLICA.0 + 1), ReplicaId(9));
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
    let shown = |world: &World| {
        let (image, mut leaders) = (world.metadata.image(), world.partitions.leaders());
        let leader = leaders.of(image.topic("t").unwrap(), 0);
        let visible: Vec<_> = world.partitions.visible_nodes(&image).into_iter().collect();
        (leader.node.map(|node| node.0), ids(leader.in_sync), ids(leader.offline), ids(&visible))
    };
    let world = world_of(image_with_fenced(&[2], follower));
    world.group.in_sync.send_replace(3);
    assert_eq!(shown(&world), (Some(1), vec![1, 3], vec![2], vec![1, 3]));
    assert_eq!(world.partitions.leaders().of(world.metadata.image().topic("t").unwrap(), 0).replicas.len(), 3);
    // Whoever answers lives, whatever is recorded; and the last in sync stay.
    let world = world_of(image_with_fenced(&[1, 2, 3], follower));
    world.group.in_sync.send_replace(1);
    assert_eq!(shown(&world), (Some(1), vec![1], vec![2, 3], vec![1]));

    // The other leads, is fenced and speaks: it stays until another leads.
    let world = world_of(image_with_fenced(&[2], leader));
    world.group.set_role(3, false);
    world.group.hears.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(shown(&world), (Some(2), vec![1, 2, 3], vec![], vec![1, 2, 3]));
    // It is silent, and the others have no majority for another.
    world.group.hears.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(shown(&world), (None, vec![1, 3], vec![2], vec![1, 3]));
    // This node is fenced, and knows nothing of why.
    let world = world_of(image_with_fenced(&[1], leader));
    world.group.set_role(3, false);
    assert_eq!(shown(&world), (Some(2), vec![1, 2, 3], vec![], vec![1, 2, 3]));
    // Silence alone fences nothing.
    let world = world_of(image_with_fenced(&[3], leader));
    world.group.set_role(3, false);
    assert_eq!(shown(&world), (Some(2), vec![1, 2], vec![3], vec![1, 2]));
}

#[tokio::test]
async fn epochs_of_clients_are_checked() {
    let (world, partition) = found(TopicConfig::default()).await;
    append(&partition, batch(4)).await.unwrap();
    world.group.set_role(3, true);
    append(&partition, batch(1)).await.unwrap();
    let ask = |current: i32| partition.epoch_end(LeaderEpoch(1), Some(LeaderEpoch(current)));
    assert_eq!(ask(2).await.unwrap_err(), PartitionError::FencedLeaderEpoch);
    assert_eq!(ask(4).await.unwrap_err(), PartitionError::UnknownLeaderEpoch);
    assert_eq!(ask(3).await.unwrap(), Some(EpochEnd { epoch: LeaderEpoch(1), end_offset: Offset(4) }));
    let spec = FetchSpec { last_fetched_epoch: Some(LeaderEpoch(2)), ..whole(5) };
    let fetched = partition.read(spec).await.unwrap();
    assert_eq!(fetched.diverging_epoch, Some(EpochEnd { epoch: LeaderEpoch(1), end_offset: Offset(4) }));
    let spec = FetchSpec { last_fetched_epoch: Some(LeaderEpoch(3)), ..spec };
    assert_eq!(partition.read(spec).await.unwrap().diverging_epoch, None);
    let beyond = FetchSpec { offset: Offset(6), last_fetched_epoch: None, ..spec };
    assert_eq!(partition.read(beyond).await.unwrap_err(), PartitionError::OffsetOutOfRange);
}

/// Else a reader would get records of an epoch that it has not heard of, and compare them with where the one before ended.
#[tokio::test]
async fn what_a_later_leader_appended_is_not_served_under_an_older_epoch() {
    let (world, partition) = found(TopicConfig::default()).await;
    append(&partition, batch(4)).await.unwrap();
    world.group.set_role(3, true);
    append(&partition, batch(1)).await.unwrap();
    let read = |believed: i32| {
        partition.read(FetchSpec {
            access: Access::AnyReplica,
            current_leader_epoch: Some(LeaderEpoch(believed)),
            ..whole(0)
        })
    };
    world.group.hears.store(true, std::sync::atomic::Ordering::Relaxed);
    world.group.role_lags(2, true);
    assert_eq!(partition.leader_epoch(), None);
    assert_eq!(read(2).await.unwrap_err(), PartitionError::NotLeaderOrFollower);
    world.group.role_lags(2, false);
    assert_eq!(read(2).await.unwrap_err(), PartitionError::FencedLeaderEpoch);
    assert!(read(3).await.is_ok());
}

/// Clients hear who was elected before that one's first entry is applied; who is turned away comes back much later.
#[tokio::test]
async fn who_was_elected_takes_records_before_it_serves() {
    let (world, partition) = found(TopicConfig::default()).await;
    append(&partition, batch(4)).await.unwrap();
    world.group.elect(2);
    tokio::task::yield_now().await;
    let mut appending = std::pin::pin!(append(&partition, batch(2)));
    assert!(futures_util::poll!(&mut appending).is_pending());
    world.group.set_role(2, true);
    assert_eq!(appending.await.unwrap().base_offset, Offset(4));
    world.group.elect(3);
    tokio::task::yield_now().await;
    let mut appending = std::pin::pin!(append(&partition, batch(2)));
    assert!(futures_util::poll!(&mut appending).is_pending());
    world.group.set_role(4, false);
    assert_eq!(appending.await.unwrap_err(), PartitionError::NotLeaderOrFollower.into());
}

/// It does not know how far the others came, and a client would take less than it has read for a truncation.
#[tokio::test]
async fn a_leader_that_was_deposed_unawares_tells_no_end() {
    let (world, partition) = found(TopicConfig::default()).await;
    append(&partition, batch(4)).await.unwrap();
    world.group.depose_unawares();
    let refused = PartitionError::NotLeaderOrFollower;
    assert_eq!(partition.epoch_end(LeaderEpoch(1), None).await.unwrap_err(), refused);
    for query in [OffsetQuery::Latest, OffsetQuery::MaxTimestamp, OffsetQuery::Timestamp(i64::MAX)] {
        let listed = partition.list_offset(query, Isolation::ReadUncommitted, None).await;
        assert_eq!(listed.unwrap_err(), refused, "{query:?}");
    }
    let spec = FetchSpec { max_bytes: 1, last_fetched_epoch: Some(LeaderEpoch(1)), ..whole(5) };
    assert_eq!(partition.read(spec).await.unwrap_err(), refused, "no divergence: others may have more of its epoch");
    let newer = FetchSpec { offset: Offset(2), last_fetched_epoch: Some(LeaderEpoch(2)), ..spec };
    assert_eq!(partition.read(newer).await.unwrap_err(), refused, "nor out of range: others may know the epoch");
}

/// It led before, others led since, and it leads again: what it knows of the groups is of the first time.
#[tokio::test]
async fn a_coordinator_of_an_earlier_epoch_writes_nothing() {
    let (world, partition) = found(TopicConfig::default()).await;
    let began = partition.leader_epoch().unwrap();
    let options = |epoch| AppendOptions { origin: Origin::Coordinator(epoch), ..options(Acks::All) };
    assert!(partition.append(batch(1), &options(began)).await.is_ok());
    world.group.set_role(3, true);
    let now = partition.leader_epoch().unwrap();
    assert!(now > began);
    let refused = partition.append(batch(1), &options(began)).await.unwrap_err();
    assert_eq!(refused, PartitionError::NotLeaderOrFollower.into());
    assert!(partition.append(batch(1), &options(now)).await.is_ok());
}

#[tokio::test]
async fn ends_and_starts_are_listed() {
    let (_world, partition) = found(TopicConfig::default()).await;
    append(&partition, batch(4)).await.unwrap();
    assert_eq!(partition.delete_records(3).await.unwrap(), Offset(3));
    assert_eq!(partition.delete_records(9).await.unwrap_err(), PartitionError::OffsetOutOfRange);
    let list = async |query| partition.list_offset(query, Isolation::ReadCommitted, None).await.unwrap();
    assert_eq!(list(OffsetQuery::Latest).await.unwrap().offset, Offset(4));
    assert_eq!(list(OffsetQuery::Earliest).await.unwrap().offset, Offset(3));
    assert_eq!(list(OffsetQuery::EarliestLocal).await.unwrap().offset, Offset(3));
    assert_eq!(list(OffsetQuery::Tiered).await, None);
    assert_eq!(partition.delete_records(-1).await.unwrap(), Offset(4));
    let below = FetchSpec { max_bytes: 1, isolation: Isolation::ReadCommitted, ..whole(3) };
    assert_eq!(partition.read(below).await.unwrap_err(), PartitionError::OffsetOutOfRange);
    let at_end = partition.read(FetchSpec { offset: Offset(4), ..below }).await.unwrap();
    assert_eq!((at_end.aborted, at_end.records.bytes()), (Some(Vec::new()), 0));
}

#[test]
fn a_long_poll_is_woken_by_its_own_partitions_only() {
    sim::run_twice(2, || async {
        let (world, first) = found(TopicConfig::default()).await;
        let second = world.partitions.find(NAME, 1).await.unwrap();
        let waits = vec![(first.clone(), Offset(0))];
        let reader = (Isolation::ReadUncommitted, Access::Leader);
        let start = rt::now();
        let deadline = start + Duration::from_millis(500);
        let poll = world.partitions.wait_for_data(&waits, reader, 1, deadline);
        let (_, appended) = tokio::join!(poll, append(&second, batch(1)));
        assert!(appended.is_ok() && rt::now() >= deadline);

        let late = rt::now() + Duration::from_secs(3600);
        let poll = world.partitions.wait_for_data(&waits, reader, 1, late);
        let (_, appended) = tokio::join!(poll, append(&first, batch(1)));
        assert!(appended.is_ok() && rt::now() < late);
    });
}

#[tokio::test]
async fn producers_are_described() {
    let (_world, partition) = found(TopicConfig::default()).await;
    let mut builder = BatchBuilder::new(Codec::None).with_producer(9, 2, 5);
    builder.push(&NewRecord { timestamp: now_ms(), key: None, value: None, headers: &[] });
    append(&partition, builder.build().unwrap()).await.unwrap();
    let producers = partition.producers().unwrap();
    assert_eq!(producers.len(), 1);
    assert_eq!((producers[0].producer_id.0, producers[0].producer_epoch, producers[0].last_sequence), (9, 2, 5));
}

#[tokio::test]
async fn a_retry_on_another_connection_is_answered_with_the_first_offset() {
    let (_world, partition) = found(TopicConfig::default()).await;
    let mut builder = BatchBuilder::new(Codec::None).with_producer(9, 0, 0);
    builder.push(&NewRecord { timestamp: now_ms(), key: None, value: None, headers: &[] });
    let data = builder.build().unwrap();
    append(&partition, batch(2)).await.unwrap();
    assert_eq!(append(&partition, data.clone()).await.unwrap().base_offset, Offset(2));
    append(&partition, batch(1)).await.unwrap();
    let other = AppendOptions { origin: Origin::Client(ConnectionId(2)), ..options(Acks::All) };
    assert_eq!(partition.append(data, &other).await.unwrap().base_offset, Offset(2));
}

#[tokio::test]
async fn adopted_partitions_of_a_shard_are_led_at_base_plus_term() {
    let (group, shard) = FakeGroup::leading(POOL);
    group.set_role(6, true);
    let adopted = AdoptedPartition { id: partition(0), intent: RaftIndex(1), epoch_base: 40 };
    shard.command(Command::Adopt(vec![adopted])).await.unwrap();
    let metadata = FakeMetadata::new(image_with_topic(1, TopicConfig::default()));
    let partitions = Partitions::new(Shards::for_tests(shard, Arc::new(metadata)));
    let partition = partitions.find(NAME, 0).await.unwrap();
    assert_eq!(partition.leader_epoch(), Some(LeaderEpoch(46)));
}
