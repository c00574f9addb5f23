//! Producers over the wire. Idempotent ones request a producer id again and again and have several batches in flight on
//! one connection from the first on; some send their last batch again long after it was acknowledged, as after a lost
//! answer. Plain ones never send a value twice.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse, TopicName};
use ottla_env::rt;
use ottla_env::sim::{self, SimNode};
use ottla_protocol::batch::{BatchBuilder, NewRecord};
use ottla_protocol::compression::Codec;
use ottla_protocol::error::ErrorCode;

use super::{PIPELINE_FROM, built, pause, target, value_of};
use crate::laws::i5_once;
use crate::registry::{PARTITIONS, TOPIC};
use crate::wire::{Client, text};
use crate::world::World;

/// From this version on requests name topics by id.
const BY_ID: i16 = 13;
const TIMED_OUT: i16 = 7;
/// A repeated batch: it has its offset already, or too many batches came since to tell which.
const DUPLICATE: i16 = 46;

struct Waiting {
    sequence: i32,
    values: Vec<u64>,
}

struct Producer {
    world: World,
    client: Client,
    id: u64,
    number: u64,
}

/// Requests producer ids and sends until the workload ends.
pub(crate) async fn pipeline(world: World, id: u64) {
    let client = Client::new(world.clone(), &format!("pipeline-{id}"));
    let mut producer = Producer { world, client, id: PIPELINE_FROM + id, number: 0 };
    while producer.world.workload_runs() {
        let request = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
        let answer = producer.client.call(producer.world.random_node(), 4, &request).await;
        let Some(given) = answer.filter(|answer| answer.error_code == 0) else {
            pause(100).await;
            continue;
        };
        let index = i32::try_from(sim::random_below(PARTITIONS.unsigned_abs().into())).unwrap_or(0);
        producer.send_all(given.producer_id.0, index).await;
        pause(40).await;
    }
}

/// Sends each value once, to a random partition.
pub(crate) async fn plain(world: World, id: u64) {
    let client = Client::new(world.clone(), &format!("plain-{id}"));
    let mut producer = Producer { world, client, id, number: 0 };
    while producer.world.workload_runs() {
        let index = i32::try_from(sim::random_below(PARTITIONS.unsigned_abs().into())).unwrap_or(0);
        let values = producer.new_values(index, 1);
        let acks = if sim::random_below(2) == 0 { 1 } else { -1 };
        let version = any_version();
        let request = producer.request(version, index, acks, batch(producer.world.codec(), None, &values));
        let node = target(&producer.world, index);
        let answer = producer.client.call(node, version, &request).await;
        if let Some(answer) = answer.as_ref().and_then(told).filter(|answer| answer.error_code == 0) {
            producer.learn(node, index, &values, answer.base_offset);
        }
        pause(if answer.is_some() { 15 } else { 80 }).await;
    }
}

/// A batch of these values; with this producer id and base sequence, or without.
fn batch(codec: Codec, producer: Option<(i64, i32)>, values: &[u64]) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    if let Some((id, sequence)) = producer {
        builder = builder.with_producer(id, 0, sequence);
    }
    for value in values {
        let value = &value.to_be_bytes();
        builder.push(&NewRecord { timestamp: rt::wall_clock_ms(), key: None, value: Some(value), headers: &[] });
    }
    built(builder)
}

/// The answer for the only batch of a request.
fn told(answer: &ProduceResponse) -> Option<&PartitionProduceResponse> {
    answer.responses.first()?.partition_responses.first()
}

fn any_version() -> i16 {
    BY_ID - i16::try_from(sim::random_below(5)).unwrap_or(0)
}

fn is_retriable(code: i16) -> bool {
    ErrorCode::from_code(code).is_some_and(ErrorCode::is_retriable)
}

impl Producer {
    fn new_values(&mut self, index: i32, count: u64) -> Vec<u64> {
        let first = self.number;
        self.number += count;
        let values: Vec<u64> = (first..self.number).map(|number| value_of(self.id, number)).collect();
        self.world.sends(index, &values);
        values
    }

    fn request(&self, version: i16, index: i32, acks: i16, records: Bytes) -> ProduceRequest {
        let data = PartitionProduceData::default().with_index(index).with_records(Some(records));
        let topic = TopicProduceData::default().with_partition_data(vec![data]);
        let topic = if version >= BY_ID {
            topic.with_topic_id(self.world.partition(index).topic)
        } else {
            topic.with_name(TopicName(text(TOPIC)))
        };
        ProduceRequest::default().with_acks(acks).with_timeout_ms(2_000).with_topic_data(vec![topic])
    }

    fn learn(&self, node: SimNode, index: i32, values: &[u64], base_offset: i64) {
        let (first, count) = (values[0], values.len());
        self.world
            .trace(Some(index), format!("node {} acknowledged {first:x}+{count} at {base_offset} (bytes)", node.0));
        self.world.acknowledged(index, values, base_offset);
    }

    /// All batches of one producer id.
    async fn send_all(&mut self, producer: i64, index: i32) {
        let mut window = VecDeque::new();
        let mut sequence = 0;
        for _ in 0..2 + sim::random_below(7) {
            let values = self.new_values(index, 1 + sim::random_below(2));
            let count = i32::try_from(values.len()).unwrap_or(0);
            window.push_back(Waiting { sequence, values });
            sequence += count;
        }
        let mut last = None;
        let (sends_on, mut former) = (self.world.sends_on(), None);
        while !window.is_empty() && self.world.broken().is_none() {
            let node = if sends_on { self.world.leader(index) } else { Some(target(&self.world, index)) };
            let Some(node) = node else {
                pause(40).await;
                continue;
            };
            if let Some(former) = former.replace(node)
                && sends_on
            {
                self.send_on(producer, index, &window, former, node).await;
            }
            match self.send(node, producer, index, &window).await {
                Some(answers) => last = self.take(node, index, &mut window, &answers).await.or(last),
                None => pause(80).await,
            }
        }
        if sim::random_below(2) == 0 && self.world.workload_runs() {
            pause(5_000).await;
            if let Some(last) = last {
                self.again(producer, index, last).await;
            }
        }
    }

    /// As librdkafka does when it learns of a new leader: what is in flight to the former one stays there, what follows
    /// goes to the next one at once. Nothing was sent out of order, so no answer may say so: the client would send what
    /// may be stored again under a new epoch. The answers are taken for lost, and everything is sent once more, in order.
    async fn send_on(&mut self, producer: i64, index: i32, window: &VecDeque<Waiting>, former: SimNode, next: SimNode) {
        // Whether a producer's first batch is missing is not known where a partition has no records.
        let is_empty = self.world.oracle().partitions.get(&index).is_none_or(|known| known.end() == 0);
        if former == next || is_empty {
            return;
        }
        let in_flight = 1 + usize::try_from(sim::random_below(4)).unwrap_or(0);
        let version = any_version();
        let mut requests = self.requests(version, producer, index, window);
        if requests.len() <= in_flight {
            return;
        }
        let following = requests.split_off(in_flight);
        let mut former_client = Client::new(self.world.clone(), "pipeline-former");
        let gap_max = Duration::from_millis(2);
        let (_, answers) = join(
            former_client.pipeline(former, version, &requests, gap_max),
            self.client.pipeline(next, version, &following, gap_max),
        )
        .await;
        for answer in answers.iter().flatten().filter_map(told).filter(|answer| answer.error_code != 0) {
            self.check_refusal(next, index, window[in_flight].sequence, answer.error_code);
        }
    }

    /// The requests for up to five batches.
    fn requests(&self, version: i16, producer: i64, index: i32, window: &VecDeque<Waiting>) -> Vec<ProduceRequest> {
        let encoded = |waiting: &Waiting| {
            let records = batch(self.world.codec(), Some((producer, waiting.sequence)), &waiting.values);
            self.request(version, index, -1, records)
        };
        window.iter().take(5).map(encoded).collect()
    }

    /// A producer that keeps its batches in order is only told to try again.
    fn check_refusal(&self, node: SimNode, index: i32, sequence: i32, code: i16) {
        if !is_retriable(code) {
            let error = format!("{code} of node {} (bytes, several in flight)", node.0);
            self.world.judge::<()>(Err(i5_once::refused(index, sequence, &error)));
        }
    }

    /// Sends up to five batches without waiting for answers.
    async fn send(
        &mut self,
        node: SimNode,
        producer: i64,
        index: i32,
        window: &VecDeque<Waiting>,
    ) -> Option<Vec<ProduceResponse>> {
        let version = any_version();
        let requests = self.requests(version, producer, index, window);
        let gap_max = Duration::from_millis([0, 2, 12][usize::try_from(sim::random_below(3)).unwrap_or(0)]);
        self.client.pipeline(node, version, &requests, gap_max).await
    }

    /// Handles the answers in order up to the first error; returns the last acknowledged batch.
    async fn take(
        &mut self,
        node: SimNode,
        index: i32,
        window: &mut VecDeque<Waiting>,
        answers: &[ProduceResponse],
    ) -> Option<Waiting> {
        let mut last = None;
        for answer in answers.iter().filter_map(told) {
            let Some(front) = window.front() else { break };
            if answer.error_code == 0 {
                self.learn(node, index, &front.values, answer.base_offset);
                last = window.pop_front();
                continue;
            }
            self.check_refusal(node, index, front.sequence, answer.error_code);
            if answer.error_code == TIMED_OUT {
                // The outcome is unknown: retries are sent on a new connection.
                self.client.close(node);
            }
            pause(60).await;
            break;
        }
        last
    }

    /// Sends a batch again that was acknowledged long ago: the answer must be the same.
    async fn again(&mut self, producer: i64, index: i32, last: Waiting) {
        for _ in 0..5 {
            let version = any_version();
            let request = self.request(
                version,
                index,
                -1,
                batch(self.world.codec(), Some((producer, last.sequence)), &last.values),
            );
            let node = target(&self.world, index);
            let answer = self.client.call(node, version, &request).await;
            let Some(answer) = answer.as_ref().and_then(told) else { continue };
            match answer.error_code {
                0 => self.learn(node, index, &last.values, answer.base_offset),
                code if is_retriable(code) => {
                    pause(60).await;
                    continue;
                }
                DUPLICATE => {}
                code => {
                    let error = format!("{code} of node {} to a batch that was sent again", node.0);
                    self.world.judge::<()>(Err(i5_once::refused(index, last.sequence, &error)));
                }
            }
            return;
        }
    }
}
