//! Readers of committed data, which leave out what was aborted as client libraries do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest};
use ottla_env::rt;
use ottla_protocol::batch::{BatchHeader, ControlRecord, check_crc, split_batches};
use uuid::Uuid;

use super::offsets::{group_of, stable_offset};
use super::{IDS, PARTITIONS, target};
use crate::laws::Violation;
use crate::laws::transfers::Fate;
use crate::wire::Client;
use crate::workload::pause;
use crate::world::World;

/// Requests name topics by id.
const VERSION: i16 = 17;
/// Readers are given all below the high watermark, or all below the last stable offset.
pub(super) const UNCOMMITTED: i8 = 0;
const COMMITTED: i8 = 1;
/// How long all partitions may take to be read to their end when there are no faults any more.
const READ_MAX: Duration = Duration::from_secs(60);

/// Reads all partitions from the beginning on until the workload ends.
pub(crate) async fn reader(world: World, number: u64) {
    let mut client = Client::new(world.clone(), &format!("committed-{number}"));
    let Some(topic) = super::topic(&world, &mut client).await else { return };
    let mut positions = BTreeMap::new();
    while world.workload_runs() {
        if ottla_env::sim::random_below(4) == 0 {
            let _ = read_offset(&world, &mut client, number).await;
        }
        let index = i32::try_from(ottla_env::sim::random_below(PARTITIONS.unsigned_abs().into())).unwrap_or(0);
        let from = positions.get(&index).copied().unwrap_or(0);
        if let Some(read) = fetch(&world, &mut client, topic, index, from).await {
            for value in read.values {
                let verdict = world.oracle().transfers.read(number, index, value);
                world.judge(verdict);
            }
            positions.insert(index, read.next);
        }
        pause(30).await;
    }
}

/// Reads everything, and judges what is there.
pub(crate) async fn judge(world: &World) {
    let mut client = Client::new(world.clone(), "committed-all");
    let Some(topic) = world.image().and_then(|image| image.topic(super::TOPIC).map(|topic| topic.id)) else { return };
    let mut seen = BTreeMap::new();
    for index in 0..PARTITIONS {
        let all = rt::timeout(READ_MAX, read_all(world, &mut client, topic, index)).await;
        let Ok(values) = all else {
            let what = format!("partition {index} of transfers is not read to its end: is a transaction still open?");
            world.judge::<()>(Err(Violation::new("what is stable reaches the end", None, what)));
            return;
        };
        seen.insert(index, values);
    }
    for number in 0..IDS {
        let read = rt::timeout(READ_MAX, async {
            while world.broken().is_none() && read_offset(world, &mut client, number).await.is_none() {
                rt::sleep(Duration::from_millis(50)).await;
            }
        });
        if read.await.is_err() {
            let what =
                format!("the offset of the group of transfers-{number} is not stable: is a transaction still open?");
            world.judge::<()>(Err(Violation::new("what is stable reaches the end", None, what)));
            return;
        }
    }
    let counts = [Fate::Committed, Fate::Aborted, Fate::Open, Fate::Asked];
    let counts = counts.map(|fate| (fate, world.oracle().transfers.count(fate)));
    world.trace(None, format!("transactions by their ends: {counts:?}"));
    let verdict = world.oracle().transfers.judge(&seen);
    world.judge(verdict);
}

/// Reads what the group of a transactional id has committed.
async fn read_offset(world: &World, client: &mut Client, number: u64) -> Option<()> {
    let group = group_of(&format!("transfers-{}", number % IDS));
    let floor = world.oracle().transfers.offset_floor(&group);
    let offset = stable_offset(world, client, &group).await?;
    let verdict = world.oracle().transfers.read_offset(&group, floor, offset);
    world.judge(verdict)
}

async fn read_all(world: &World, client: &mut Client, topic: Uuid, index: i32) -> Vec<u64> {
    let (mut from, mut values) = (0, Vec::new());
    while world.broken().is_none() {
        match fetch(world, client, topic, index, from).await {
            Some(read) => {
                values.extend(read.values);
                from = read.next;
                if from >= read.end {
                    break;
                }
            }
            None => rt::sleep(Duration::from_millis(50)).await,
        }
    }
    values
}

struct Read {
    values: Vec<u64>,
    next: i64,
    /// The high watermark.
    end: i64,
}

async fn fetch(world: &World, client: &mut Client, topic: Uuid, index: i32, from: i64) -> Option<Read> {
    // Some answers end within a transaction.
    let bytes_max = if ottla_env::sim::random_below(4) == 0 { 1 } else { 20_000 };
    let told = fetch_from(world, client, topic, (index, from), (COMMITTED, bytes_max)).await?;
    let read = committed(from, &told).map_err(|what| {
        Violation::new("what is read can be read", None, format!("transfers-{index} from {from}: {what}"))
    });
    world.judge(read)
}

/// Asks for a partition from an offset on, and for so many bytes; `None` if there is no answer, or an error.
pub(super) async fn fetch_from(
    world: &World,
    client: &mut Client,
    topic: Uuid,
    (index, from): (i32, i64),
    (isolation, bytes_max): (i8, i32),
) -> Option<PartitionData> {
    let partition = FetchPartition::default()
        .with_partition(index)
        .with_fetch_offset(from)
        .with_current_leader_epoch(-1)
        .with_partition_max_bytes(bytes_max);
    let topics = vec![FetchTopic::default().with_topic_id(topic).with_partitions(vec![partition])];
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(50)
        .with_min_bytes(1)
        .with_max_bytes(1 << 24)
        .with_isolation_level(isolation)
        .with_session_epoch(-1)
        .with_topics(topics);
    let answer = client.call(target(world, index), VERSION, &request).await?;
    let told = answer.responses.into_iter().next()?.partitions.into_iter().next()?;
    (told.error_code == 0).then_some(told)
}

/// What a client library gives its user.
fn committed(from: i64, told: &PartitionData) -> Result<Read, String> {
    let (mut values, mut next) = (Vec::new(), from);
    let mut aborted: Vec<(i64, i64)> =
        told.aborted_transactions.iter().flatten().map(|one| (one.first_offset, one.producer_id.0)).collect();
    aborted.sort_unstable();
    let (mut aborted, mut leaves_out) = (aborted.into_iter().peekable(), BTreeSet::new());
    let bytes = told.records.clone().unwrap_or_default();
    for view in split_batches(&bytes) {
        let view = view.map_err(|error| error.to_string())?;
        check_crc(&view.bytes, &view.header).map_err(|error| error.to_string())?;
        let header: BatchHeader = view.header;
        while let Some((_, producer)) = aborted.next_if(|(first, _)| *first <= header.last_offset().0) {
            leaves_out.insert(producer);
        }
        let records =
            ottla_protocol::records::open(&header, &view.bytes, 1 << 20).map_err(|error| error.to_string())?;
        for record in &records {
            let record = record.map_err(|error| error.to_string())?;
            let offset = header.base_offset.0 + i64::from(record.offset_delta);
            if header.attributes.is_control() {
                let marker = ControlRecord::parse(record.key.unwrap_or_default(), record.value.unwrap_or_default());
                if matches!(marker, Some(ControlRecord::Abort { .. })) {
                    leaves_out.remove(&header.producer_id);
                }
                continue;
            }
            let is_aborted = header.attributes.is_transactional() && leaves_out.contains(&header.producer_id);
            if offset >= from && !is_aborted {
                let value = record.value.and_then(|value| <[u8; 8]>::try_from(value).ok());
                values.push(u64::from_be_bytes(value.ok_or("a record that nobody sent")?));
            }
        }
        next = next.max(header.next_offset().0);
    }
    Ok(Read { values, next, end: told.high_watermark })
}
