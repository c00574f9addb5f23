//! A client that queries every node, leader or not, with current metadata or not: end offsets, any observed offset, the
//! end of an epoch.

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{BrokerId, GroupId, ListOffsetsRequest, OffsetFetchRequest, TopicName};
use ottla_broker::partition::{Access, FetchSpec, FetchedRecords, Isolation, PartitionError};
use ottla_env::sim;
use ottla_protocol::batch::split_batches;
use ottla_protocol::ids::{LeaderEpoch, Offset};

use super::{NAME, committer, consumer, pause};
use crate::laws::{Violation, i12_range, reads};
use crate::oracle::Learned;
use crate::registry::TOPIC;
use crate::wire::{Client, text};
use crate::world::World;

/// Special timestamps of ListOffsets.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// A timestamp after those of all records, however clocks have jumped.
const AFTER_ALL: i64 = 1 << 50;

/// Queries until the workload ends.
pub(crate) async fn prober(world: World) {
    let mut client = Client::new(world.clone(), "prober");
    while world.workload_runs() {
        let index = i32::try_from(sim::random_below(crate::registry::PARTITIONS.unsigned_abs().into())).unwrap_or(0);
        match sim::random_below(5) {
            0 | 1 => list(&world, &mut client, index).await,
            2 if sim::random_below(4) == 0 => never_committed(&world, &mut client, index).await,
            2 => epoch_end(&world, index).await,
            _ => fetch(&world, index).await,
        }
        pause(8).await;
    }
}

fn isolation() -> Isolation {
    if sim::random_below(2) == 0 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted }
}

/// Lists the end, the start, or the offset for a timestamp after all records.
async fn list(world: &World, client: &mut Client, index: i32) {
    let (node, version) = (world.random_node(), 4 + i16::try_from(sim::random_below(7)).unwrap_or(0));
    let time = [LATEST, LATEST, EARLIEST, AFTER_ALL][usize::try_from(sim::random_below(4)).unwrap_or(0)];
    let isolation = i8::try_from(sim::random_below(2)).unwrap_or(0);
    let before = world.oracle().partition(index).end();
    let asked = ListOffsetsPartition::default().with_partition_index(index).with_timestamp(time);
    let asked = ListOffsetsTopic::default()
        .with_name(TopicName(text(TOPIC)))
        .with_partitions(vec![asked.with_current_leader_epoch(-1)]);
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_isolation_level(isolation);
    let answer = client.call(node, version, &request.with_topics(vec![asked])).await;
    let told = answer.as_ref().and_then(|answer| answer.topics.first()?.partitions.first());
    let Some(told) = told.filter(|told| told.error_code == 0) else { return };
    world.oracle().lists += 1;
    world.trace(Some(index), format!("node {} says {} for time {time} (isolation {isolation})", node.0, told.offset));
    let deleted = world.oracle().partition(index).deleted;
    world.judge(match time {
        LATEST => reads::latest(index, before, told.offset),
        _ => reads::listed(index, time == AFTER_ALL, told.offset, deleted),
    });
}

/// Fetches the offset of a group that never commits.
async fn never_committed(world: &World, client: &mut Client, index: i32) {
    const GROUP: &str = "nobody";
    let asked =
        OffsetFetchRequestTopics::default().with_name(TopicName(text(TOPIC))).with_partition_indexes(vec![index]);
    let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(text(GROUP))).with_topics(Some(vec![asked]));
    let request = OffsetFetchRequest::default().with_groups(vec![group]);
    let answer = client.call(committer::coordinator(world, GROUP), 8, &request).await;
    let told = answer.as_ref().and_then(|answer| answer.groups.first()?.topics.first()?.partitions.first());
    if let Some(told) = told.filter(|told| told.committed_offset != -1) {
        world.judge::<()>(Err(reads::unknown(None, "an offset that nobody committed", told.committed_offset)));
    }
}

/// Fetches from any observed offset, its record in the middle of a batch or not, or from the end.
async fn fetch(world: &World, index: i32) {
    let (node, isolation) = (world.random_node(), isolation());
    // Followers serve fetches of clients in their own zone.
    let access = if sim::random_below(2) == 0 { Access::Leader } else { Access::AnyReplica };
    let (from, end) = {
        let mut oracle = world.oracle();
        let known = oracle.partition(index);
        let (low, end) = (known.deleted, known.end());
        let span = u64::try_from(end - low + 1).unwrap_or(1);
        // Mostly the newest records.
        let back = if sim::random_below(2) == 0 { sim::random_below(span) } else { sim::random_below(span.min(8)) };
        (end - i64::try_from(back).unwrap_or(0), end)
    };
    let answer = world
        .request(node, move |running| async move {
            let partition = running.partitions.find_for(NAME, index, access).await?;
            let epoch = partition.leader_epoch();
            let spec = FetchSpec {
                offset: Offset(from),
                max_bytes: 4_000,
                at_least_one: true,
                copy_bytes_max: usize::MAX,
                isolation,
                access,
                current_leader_epoch: epoch,
                last_fetched_epoch: None,
            };
            Ok::<_, PartitionError>((partition.read(spec).await?, epoch))
        })
        .await;
    let (fetched, epoch) = match answer {
        Some(Ok(answer)) => answer,
        Some(Err(PartitionError::OffsetOutOfRange)) => {
            if from >= world.oracle().partition(index).deleted {
                world.judge::<()>(Err(i12_range::refused(index, from, end)));
            }
            return;
        }
        Some(Err(_)) | None => return,
    };
    let bytes = match &fetched.records {
        FetchedRecords::Copied(bytes) => bytes.clone(),
        _ => bytes::Bytes::new(),
    };
    let values = consumer::values_in(&bytes).map_err(|what| {
        Violation::new("what is read can be read", index, format!("from {from}, node {}: {what}", node.0))
    });
    let Some(values) = world.judge(values) else { return };
    let shown = match isolation {
        Isolation::ReadUncommitted => fetched.watermarks.high_watermark.0,
        Isolation::ReadCommitted => fetched.watermarks.last_stable.0,
    };
    world.trace(Some(index), format!("node {} gave {} records from {from}, shows {shown}", node.0, values.len()));
    world.judge(reads::gives_something(index, from, shown, values.len()));
    if let Some((first, _)) = values.first() {
        world.judge(reads::begins_at(index, from, *first));
    }
    for view in split_batches(&bytes).flatten() {
        let (base, stamped) = (view.header.base_offset.0, view.header.leader_epoch.0);
        let leads = (node, epoch.map(|epoch| epoch.0));
        let verdict = world.oracle().epochs.entry(index).or_default().see(index, base, stamped, leads);
        world.judge(verdict);
    }
    for (offset, value) in values {
        let verdict = world.oracle().learn(index, offset, value, Learned::Read);
        world.judge(verdict);
    }
}

async fn epoch_end(world: &World, index: i32) {
    let node = world.random_node();
    let random = sim::random_below(u64::MAX);
    let asked = {
        let oracle = world.oracle();
        oracle.epochs.get(&index).and_then(|epochs| epochs.pick(random).map(|asked| (asked, epochs.last_of(asked))))
    };
    let Some((asked, last)) = asked else { return };
    let answer = world
        .request(node, move |running| async move {
            running.partitions.find(NAME, index).await?.epoch_end(LeaderEpoch(asked), None).await
        })
        .await;
    if let Some(Ok(end)) = answer {
        let told = end.map(|end| (end.epoch.0, end.end_offset.0));
        let verdict = {
            let mut oracle = world.oracle();
            let deleted = oracle.partition(index).deleted;
            oracle.epochs.get(&index).map_or(Ok(()), |epochs| epochs.ended(index, (asked, node), last, told, deleted))
        };
        world.judge(verdict);
    }
}
