//! Idempotent producers with one batch in flight, which retry what got no answer.

use std::time::Duration;

use bytes::Bytes;
use ottla_broker::partition::{AppendError, AppendOptions, Appended, ConnectionId, Origin};
use ottla_env::rt;
use ottla_env::sim::{self, SimNode};
use ottla_protocol::batch::{BatchBuilder, NewRecord};
use ottla_protocol::compression::Codec;

use super::{NAME, built, pause, target, value_of};
use crate::laws::i5_once;
use crate::min_in_sync;
use crate::world::World;

fn batch(codec: Codec, (id, sequence): (i64, i32), values: &[u64]) -> Bytes {
    let mut builder = BatchBuilder::new(codec).with_producer(id, 0, sequence);
    // Some are large, so that segments fill up and checkpoints have work.
    let padding = if sim::random_below(8) == 0 { vec![b'x'; 8_000] } else { Vec::new() };
    let timestamp = rt::wall_clock_ms();
    for value in values {
        builder.push(&NewRecord { timestamp, key: Some(&padding), value: Some(&value.to_be_bytes()), headers: &[] });
    }
    built(builder)
}

async fn send(
    world: &World,
    node: SimNode,
    index: i32,
    connection: u64,
    batch: Bytes,
) -> Option<Result<Appended, AppendError>> {
    world
        .request(node, move |running| async move {
            let partition = running.partitions.find(NAME, index).await?;
            let options = AppendOptions::new(Origin::Client(ConnectionId(connection)), Duration::from_secs(2));
            partition.append(batch, &options).await
        })
        .await
}

/// Sends batches to one partition, one in flight; a batch without an answer is retried with its sequence.
pub(crate) async fn idempotent(world: World, id: u64, index: i32) {
    let producer = super::own_producer_id(id);
    let (mut sequence, mut number) = (0, 0);
    let mut waiting: Vec<u64> = Vec::new();
    while world.workload_runs() || !waiting.is_empty() {
        if world.broken().is_some() {
            return;
        }
        if waiting.is_empty() {
            let count = 1 + sim::random_below(4);
            waiting = (number..number + count).map(|n| value_of(id, n)).collect();
            number += count;
            world.sends(index, &waiting);
        }
        let node = target(&world, index);
        let data = batch(world.codec(), (producer, sequence), &waiting);
        let before = min_in_sync::before(&world, node, index);
        match send(&world, node, index, id, data).await {
            Some(Ok(appended)) => {
                min_in_sync::judge(&world, index, before);
                world.trace(
                    Some(index),
                    format!(
                        "node {} acknowledged {:x}+{} at {}",
                        node.0,
                        waiting[0],
                        waiting.len(),
                        appended.base_offset.0
                    ),
                );
                world.acknowledged(index, &waiting, appended.base_offset.0);
                sequence += i32::try_from(waiting.len()).unwrap_or(0);
                waiting.clear();
                pause(12).await;
            }
            Some(Err(error)) if error.is_retriable() => {
                if !world.workload_runs() {
                    world.trace(Some(index), format!("node {} refuses {:x} for now: {error:?}", node.0, waiting[0]));
                }
                pause(60).await;
            }
            Some(Err(error)) => {
                world.judge::<()>(Err(i5_once::refused(index, sequence, &format!("{error:?} of node {}", node.0))));
                return;
            }
            None => {
                world.trace(
                    Some(index),
                    format!("no answer from node {} on {:x}+{}", node.0, waiting[0], waiting.len()),
                );
            }
        }
    }
}
