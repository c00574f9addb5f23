//! Idempotent producers with up to five batches in flight on one connection, as the Java client has them. Batches
//! without an answer are all sent again, in order, on a new connection; now and then the epoch is bumped, and a zombie
//! goes on with the old one.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use ottla_broker::partition::{AppendError, AppendOptions, Appended, ConnectionId, Origin, PartitionError};
use ottla_env::rt;
use ottla_env::sim::{self, SimNode};
use ottla_protocol::batch::{BatchBuilder, NewRecord};
use ottla_protocol::compression::Codec;

use super::{NAME, built, pause, target, value_of};
use crate::laws::{fencing, i5_once};
use crate::world::World;

/// The most that a Java client has in flight.
const IN_FLIGHT_MAX: usize = 5;

struct Waiting {
    sequence: i32,
    values: Vec<u64>,
}

struct Producer {
    world: World,
    id: u64,
    index: i32,
    epoch: i16,
    sequence: i32,
    number: u64,
    connections: u64,
    window: VecDeque<Waiting>,
}

fn batch(codec: Codec, producer: i64, epoch: i16, sequence: i32, values: &[u64]) -> Bytes {
    let mut builder = BatchBuilder::new(codec).with_producer(producer, epoch, sequence);
    for value in values {
        let value = &value.to_be_bytes();
        builder.push(&NewRecord { timestamp: rt::wall_clock_ms(), key: None, value: Some(value), headers: &[] });
    }
    built(builder)
}

/// Sends until the workload ends and everything sent is acknowledged.
pub(crate) async fn burst(world: World, id: u64, index: i32) {
    let window = VecDeque::new();
    let mut producer = Producer { world, id, index, epoch: 0, sequence: 0, number: 0, connections: 0, window };
    while producer.world.workload_runs() || !producer.window.is_empty() {
        if producer.world.broken().is_some() {
            return;
        }
        producer.fill();
        let node = target(&producer.world, index);
        let sent: Vec<_> = producer.window.iter().map(|waiting| producer.encode(waiting)).collect();
        let waits_ms = match producer.send(node, sent).await {
            Some(answers) => producer.learn(node, answers),
            None => {
                producer.connections += 1;
                80
            }
        };
        pause(waits_ms).await;
        if producer.window.is_empty() && sim::random_below(25) == 0 {
            producer.bump().await;
        }
    }
}

impl Producer {
    fn producer_id(&self) -> i64 {
        super::own_producer_id(self.id)
    }

    fn new_values(&mut self, count: u64) -> Vec<u64> {
        let first = self.number;
        self.number += count;
        (first..self.number).map(|number| value_of(self.id, number)).collect()
    }

    fn fill(&mut self) {
        let wanted = 1 + usize::try_from(sim::random_below(IN_FLIGHT_MAX as u64)).unwrap_or(0);
        while self.world.workload_runs() && self.window.len() < wanted {
            let values = self.new_values(1 + sim::random_below(3));
            self.world.sends(self.index, &values);
            let sequence = self.sequence;
            self.sequence += i32::try_from(values.len()).unwrap_or(0);
            self.window.push_back(Waiting { sequence, values });
        }
    }

    fn encode(&self, waiting: &Waiting) -> Bytes {
        batch(self.world.codec(), self.producer_id(), self.epoch, waiting.sequence, &waiting.values)
    }

    /// Sends all batches without waiting for answers: they are enqueued in order.
    async fn send(&self, node: SimNode, batches: Vec<Bytes>) -> Option<Vec<Result<Appended, AppendError>>> {
        let (index, connection) = (self.index, ConnectionId((self.id << 20) + self.connections));
        self.world
            .request(node, move |running| async move {
                let partition = match running.partitions.find(NAME, index).await {
                    Ok(partition) => partition,
                    Err(error) => return batches.iter().map(|_| Err(error.clone().into())).collect(),
                };
                let options = AppendOptions::new(Origin::Client(connection), Duration::from_secs(2));
                join_all(batches.into_iter().map(|batch| partition.append(batch, &options))).await
            })
            .await
    }

    /// Handles the answers in order; returns how long to wait.
    fn learn(&mut self, node: SimNode, answers: Vec<Result<Appended, AppendError>>) -> u64 {
        for answer in answers {
            let Some(front) = self.window.front() else { break };
            match answer {
                Ok(appended) => {
                    let said = format!(
                        "node {} acknowledged {:x}+{} at {} (burst)",
                        node.0,
                        front.values[0],
                        front.values.len(),
                        appended.base_offset.0
                    );
                    self.world.trace(Some(self.index), said);
                    self.world.acknowledged(self.index, &front.values, appended.base_offset.0);
                    self.window.pop_front();
                }
                // The batches behind this one are sent again with it, whatever their answers; after a time-out their
                // outcome is unknown.
                Err(error) if error.is_retriable() => {
                    if error == PartitionError::TimedOut.into() {
                        self.connections += 1;
                    }
                    return 60;
                }
                Err(error) => {
                    let error = format!("{error:?} of node {} (several in flight)", node.0);
                    self.world.judge::<()>(Err(i5_once::refused(self.index, front.sequence, &error)));
                    return 0;
                }
            }
        }
        12
    }

    /// Starts a new epoch with sequence 0; once it is acknowledged, a batch of the old epoch must be refused.
    async fn bump(&mut self) {
        let (old_epoch, old_sequence) = (self.epoch, self.sequence);
        (self.epoch, self.sequence) = (self.epoch + 1, 0);
        let values = self.new_values(1);
        self.world.sends(self.index, &values);
        self.sequence = 1;
        self.window.push_back(Waiting { sequence: 0, values });
        while !self.window.is_empty() && self.world.broken().is_none() {
            let node = target(&self.world, self.index);
            let sent: Vec<_> = self.window.iter().map(|waiting| self.encode(waiting)).collect();
            match self.send(node, sent).await {
                Some(answers) => pause(self.learn(node, answers)).await,
                None => self.connections += 1,
            }
        }
        // Not recorded as sent: a consumer that reads it has read what no producer may have appended.
        let zombie = batch(self.world.codec(), self.producer_id(), old_epoch, old_sequence, &self.new_values(1));
        let node = target(&self.world, self.index);
        if let Some(Ok(_)) = self.send(node, vec![zombie]).await.and_then(|mut answers| answers.pop()) {
            self.world.judge::<()>(Err(fencing::accepted(self.index, old_epoch, self.epoch)));
        }
    }
}
