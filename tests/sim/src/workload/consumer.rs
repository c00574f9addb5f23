//! Consumers: read every partition from its start to its end, over and over, and list the end offset.

use ottla_broker::partition::{Access, FetchSpec, FetchedRecords, Isolation, OffsetQuery, PartitionError};
use ottla_env::sim;
use ottla_protocol::batch::{check_crc, split_batches};
use ottla_protocol::ids::Offset;

use super::{NAME, fetched, pause, target};
use crate::laws::{i12_range, reads};
use crate::world::World;

/// Values by offset in the bytes of whole batches; an error if the bytes are wrong.
pub(crate) fn values_in(bytes: &bytes::Bytes) -> Result<Vec<(i64, u64)>, String> {
    let mut found = Vec::new();
    for view in split_batches(bytes) {
        let view = view.map_err(|error| error.to_string())?;
        check_crc(&view.bytes, &view.header).map_err(|error| error.to_string())?;
        let records = ottla_protocol::records::open(&view.header, &view.bytes, 1 << 20).map_err(|e| e.to_string())?;
        for record in &records {
            let record = record.map_err(|error| error.to_string())?;
            let value = record.value.and_then(|value| <[u8; 8]>::try_from(value).ok());
            let value = value.ok_or("a record that nobody sent")?;
            found.push((view.header.base_offset.0 + i64::from(record.offset_delta), u64::from_be_bytes(value)));
        }
    }
    Ok(found)
}

/// Reads partitions in random order until the workload ends.
pub(crate) async fn reader(world: World) {
    let mut positions = vec![0_i64; usize::try_from(crate::registry::PARTITIONS).unwrap_or(0)];
    while world.workload_runs() {
        let index = i32::try_from(sim::random_below(positions.len() as u64)).unwrap_or(0);
        let position = &mut positions[usize::try_from(index).unwrap_or(0)];
        match sim::random_below(12) {
            // Seeks to the start.
            0 => *position = 0,
            1 => list(&world, index).await,
            _ => fetch(&world, index, position).await,
        }
        pause(20).await;
    }
}

async fn fetch(world: &World, index: i32, position: &mut i64) {
    let (node, from) = (target(world, index), *position);
    let answer = world
        .request(node, move |running| async move {
            let partition = running.partitions.find(NAME, index).await?;
            let spec = FetchSpec {
                offset: Offset(from),
                max_bytes: 40_000,
                at_least_one: true,
                copy_bytes_max: usize::MAX,
                isolation: Isolation::ReadUncommitted,
                access: Access::Leader,
                current_leader_epoch: partition.leader_epoch(),
                last_fetched_epoch: None,
            };
            let fetched = partition.read(spec).await;
            let is_unreadable = matches!(fetched, Err(PartitionError::Storage));
            // A disk that has failed serves nothing.
            if is_unreadable && running.poisoned().is_none() { Ok(None) } else { fetched.map(Some) }
        })
        .await;
    match answer {
        Some(Ok(None)) if !world.is_corrupted(node) => {
            world.judge::<()>(Err(reads::unreadable(index, from, node.0)));
        }
        Some(Ok(Some(fetched))) => {
            let FetchedRecords::Copied(bytes) = &fetched.records else {
                world.judge(reads::gives_something(index, from, fetched.watermarks.high_watermark.0, 0));
                return;
            };
            let Some(values) = fetched::learn(world, node, (index, from), bytes) else { return };
            *position = values.iter().fold(*position, |position, (offset, _)| position.max(offset + 1));
            world.trace(Some(index), format!("node {} gave {from}..{position} to a reader", node.0));
        }
        Some(Err(PartitionError::OffsetOutOfRange)) => {
            let (end, deleted) = {
                let mut oracle = world.oracle();
                let known = oracle.partition(index);
                (known.end(), known.deleted)
            };
            if from < deleted {
                *position = deleted;
            } else {
                world.judge::<()>(Err(i12_range::refused(index, from, end)));
            }
        }
        Some(Ok(None) | Err(_)) | None => {}
    }
}

async fn list(world: &World, index: i32) {
    let node = target(world, index);
    let before = world.oracle().partition(index).end();
    let answer = world
        .request(node, move |running| async move {
            let partition = running.partitions.find(NAME, index).await?;
            partition.list_offset(OffsetQuery::Latest, Isolation::ReadUncommitted, None).await
        })
        .await;
    if let Some(Ok(listed)) = answer {
        let told = listed.map_or(0, |listed| listed.offset.0);
        world.oracle().lists += 1;
        world.trace(Some(index), format!("node {} says that {told} is the end", node.0));
        world.judge(reads::latest(index, before, told));
    }
}
