//! A compacted topic: writers of a few keys, which delete some, and readers from the beginning.
//!
//! Tombstones are kept for less than a run takes, and passes follow one another closely.

use std::time::Duration;

use bytes::Bytes;
use ottla_broker::partition::{
    Access, AppendOptions, ConnectionId, FetchSpec, FetchedRecords, Isolation, Origin, Partition, PartitionError,
    TopicRef,
};
use ottla_env::rt;
use ottla_env::sim::{self, SimNode};
use ottla_protocol::batch::{BatchBuilder, NewRecord, check_crc, split_batches};
use ottla_protocol::ids::Offset;

use super::{built, leader_of, own_topic, pause};
use crate::laws::Violation;
use crate::laws::compaction::{Keyed, LastOfKeys};
use crate::wire::Client;
use crate::world::World;

const TOPIC: &str = "compacted";
const NAME: TopicRef<'static> = TopicRef::Name(TOPIC);
const PARTITIONS: i32 = 2;
const KEYS: u64 = 8;
/// `delete.retention.ms`.
const TOMBSTONES_KEPT_MS: u64 = 3_000;
/// A reading that takes longer may miss a tombstone: clocks of shards and of readers differ a little.
const READ_IN_TIME: Duration = Duration::from_millis(TOMBSTONES_KEPT_MS / 2);
/// How long a reading may take when there are no faults any more.
const READ_MAX: Duration = Duration::from_secs(60);

/// Creates the topic unless it is there.
async fn create(world: &World, client: &mut Client) {
    let kept = TOMBSTONES_KEPT_MS.to_string();
    let configs = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", if sim::random_below(2) == 0 { "0.0" } else { "0.3" }),
        ("delete.retention.ms", &kept),
        ("segment.ms", if sim::random_below(3) == 0 { "2000" } else { "1" }),
    ];
    own_topic::create(world, client, (TOPIC, PARTITIONS), &configs).await;
}

fn any_partition() -> i32 {
    i32::try_from(sim::random_below(PARTITIONS.unsigned_abs().into())).unwrap_or(0)
}

fn batch(world: &World, records: &[Keyed]) -> Bytes {
    let mut builder = BatchBuilder::new(world.codec());
    let padding = vec![b'x'; usize::try_from(sim::random_below(600)).unwrap_or(0)];
    for record in records {
        let value = record.value.map(|value| [&value.to_be_bytes()[..], &padding].concat());
        let (timestamp, key) = (rt::wall_clock_ms(), record.key.to_be_bytes());
        builder.push(&NewRecord { timestamp, key: Some(&key), value: value.as_deref(), headers: &[] });
    }
    built(builder)
}

/// Writes keys until the workload ends; sends nothing twice.
pub(crate) async fn writer(world: World, number: u64) {
    create(&world, &mut Client::new(world.clone(), &format!("keys-{number}"))).await;
    while world.workload_runs() {
        let index = any_partition();
        let one = |_| world.oracle().compacted.send(sim::random_below(KEYS), sim::random_below(4) == 0);
        let records: Vec<Keyed> = (0..1 + sim::random_below(3)).map(one).collect();
        let (node, data) = (leader_of(&world, TOPIC, index), batch(&world, &records));
        let answer = world.request(node, move |running| async move {
            let partition = running.partitions.find(NAME, index).await?;
            let options = AppendOptions::new(Origin::Client(ConnectionId(900 + number)), Duration::from_secs(2));
            partition.append(data, &options).await
        });
        if let Some(Ok(appended)) = answer.await {
            for (offset, record) in (appended.base_offset.0..).zip(records) {
                let verdict = world.oracle().compacted.learn(index, offset, record);
                world.judge(verdict);
            }
            pause(15).await;
        } else {
            pause(80).await;
        }
    }
}

/// Reads from the beginning, over and over, until the workload ends.
pub(crate) async fn reader(world: World) {
    while world.workload_runs() {
        let index = any_partition();
        read_all(&world, index, None, READ_IN_TIME).await;
        pause(200).await;
    }
}

/// Reads everything at every node, and judges it.
pub(crate) async fn judge(world: &World) {
    if world.image().is_none_or(|image| image.topic(TOPIC).is_none()) {
        return;
    }
    for index in 0..PARTITIONS {
        let mut nodes: Vec<Option<SimNode>> = vec![None];
        nodes.extend(world.image().into_iter().flat_map(|image| replicas(&image, index)).map(Some));
        for node in nodes {
            if !read_all(world, index, node, READ_MAX).await && world.broken().is_none() {
                let what = format!("partition {index} of the compacted topic is not read to its end at {node:?}");
                world.judge::<()>(Err(Violation::new("what is there can be read", None, what)));
            }
        }
    }
    world.trace(None, format!("{} readings of the compacted topic", world.oracle().compacted.reads()));
}

/// The nodes that have the partition.
fn replicas(image: &ottla_broker::metadata::MetadataImage, index: i32) -> Vec<SimNode> {
    let route = image.topic(TOPIC).and_then(|topic| topic.route(index));
    let shard = route.and_then(|route| image.shard(route.shard));
    shard.map_or_else(Vec::new, |shard| shard.replicas.iter().map(|one| crate::registry::node_of(one.node)).collect())
}

/// One reading from the beginning to the end, at a node or at leaders; false if it took too long.
async fn read_all(world: &World, index: i32, at: Option<SimNode>, most: Duration) -> bool {
    let began = rt::now();
    let floor = world.oracle().compacted.last_of_keys(index);
    let (mut read, mut from, mut end) = (LastOfKeys::new(), 0, 0);
    loop {
        if world.broken().is_some() || rt::now().since(began) >= most {
            return false;
        }
        let node = at.unwrap_or_else(|| leader_of(world, TOPIC, index));
        let Some((bytes, high_watermark)) = fetch(world, node, index, from, at.is_some()).await else {
            pause(50).await;
            continue;
        };
        end = end.max(high_watermark);
        let taken = take(world, index, &bytes, &mut read).map_err(|what| {
            Violation::new("what is read can be read", None, format!("compacted-{index} from {from}: {what}"))
        });
        let Some(next) = world.judge(taken) else { return false };
        if let Some(next) = next {
            from = from.max(next);
        } else if from < end {
            // A replica that is behind, or an answer without records.
            pause(30).await;
        }
        if from >= end {
            break;
        }
    }
    let in_time = rt::now().since(began) < READ_IN_TIME;
    let verdict = world.oracle().compacted.judge(index, &floor, &read, end, in_time);
    world.judge(verdict);
    true
}

/// Records from an offset on, and the high watermark.
async fn fetch(world: &World, node: SimNode, index: i32, from: i64, anywhere: bool) -> Option<(Bytes, i64)> {
    let bytes_max = if sim::random_below(3) == 0 { 1 } else { 4_000 };
    let access = if anywhere { Access::AnyReplica } else { Access::Leader };
    let answer = world.request(node, move |running| async move {
        let found: Result<Partition, PartitionError> = match anywhere {
            true => running
                .partitions
                .find_now(NAME, index)
                .and_then(|found| found.ok_or(PartitionError::NotLeaderOrFollower)),
            false => running.partitions.find(NAME, index).await,
        };
        let partition = found?;
        let spec = FetchSpec {
            offset: Offset(from),
            max_bytes: bytes_max,
            at_least_one: true,
            copy_bytes_max: usize::MAX,
            isolation: Isolation::ReadUncommitted,
            access,
            current_leader_epoch: partition.leader_epoch(),
            last_fetched_epoch: None,
        };
        partition.read(spec).await
    });
    let fetched = answer.await?.ok()?;
    let bytes = if let FetchedRecords::Copied(bytes) = fetched.records { bytes } else { Bytes::new() };
    Some((bytes, fetched.watermarks.high_watermark.0))
}

/// Takes what an answer holds; returns where the next one begins, if there was something.
fn take(world: &World, index: i32, bytes: &Bytes, read: &mut LastOfKeys) -> Result<Option<i64>, String> {
    let mut next = None;
    for view in split_batches(bytes) {
        let view = view.map_err(|error| error.to_string())?;
        check_crc(&view.bytes, &view.header).map_err(|error| error.to_string())?;
        let records = ottla_protocol::records::open(&view.header, &view.bytes, 1 << 20).map_err(|e| e.to_string())?;
        for record in &records {
            let record = record.map_err(|error| error.to_string())?;
            let number = |bytes: &[u8]| bytes.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
            let key = record.key.and_then(number).ok_or("a record without a key")?;
            let value = record.value.map(|value| number(value).ok_or("a value that nobody sent")).transpose()?;
            let offset = view.header.base_offset.0 + i64::from(record.offset_delta);
            let verdict = world.oracle().compacted.learn(index, offset, Keyed { key, value });
            world.judge(verdict);
            read.insert(key, (offset, value));
        }
        next = next.max(Some(view.header.next_offset().0));
    }
    Ok(next)
}
