//! Writes records to one topic: partitions keys as Kafka's producers do, finds leaders, retries retriable errors.
//!
//! With acks=all the producer is idempotent (KIP-98): a batch sent again after a lost response is appended once. With
//! less, a batch is sent again only if it certainly was not appended. May not know: where the records come from.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use ottla_env::rt;
use ottla_protocol::batch::{self, BatchBuilder};
use ottla_protocol::compression::Codec;
use ottla_protocol::error::ErrorCode;

use super::cluster::{Cluster, TopicView, topic_name};
use super::connection::REQUEST_TIMEOUT_MS;
use super::error::{ClientError, is_retriable};
use super::murmur2;
use super::retry::Retry;

/// Bytes of keys and values for one call of [`Producer::send`]: half of a topic's default batch limit.
pub const SEND_BYTES: usize = 512 << 10;

/// When a write is acknowledged: Kafka's `acks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// When enough in-sync replicas have it.
    All,
    /// When the leader has it.
    Leader,
    /// When it is sent.
    None,
}

/// How partitions are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// By the hash of the key; records without a key round robin.
    ByKey,
    /// All to one partition.
    Partition(i32),
}

/// A record to be written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewRecord {
    /// None: no key.
    pub key: Option<Vec<u8>>,
    /// None: a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names and values, in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Where a record was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordMetadata {
    /// Its partition.
    pub partition: i32,
    /// Its offset; `None` if the response did not have it.
    pub offset: Option<i64>,
}

/// Writes to one topic.
pub struct Producer {
    cluster: Cluster,
    topic: TopicView,
    target: Target,
    acks: Acks,
    codec: Codec,
    /// Producer id and epoch.
    identity: Option<(i64, i16)>,
    /// Sequence of the next record, by partition.
    sequences: BTreeMap<i32, i32>,
    leaders: BTreeMap<i32, i32>,
    /// The next partition of a record without a key.
    turn: u64,
}

/// The batch of one partition in one request.
struct Packed {
    records: Bytes,
    /// Positions of its records in the call's list.
    places: Vec<usize>,
}

impl Producer {
    /// Finds the topic, and gets a producer id if writes are idempotent.
    ///
    /// # Errors
    /// When the topic or partition does not exist, or no broker responds.
    pub async fn open(
        mut cluster: Cluster,
        topic: &str,
        target: Target,
        acks: Acks,
        codec: Codec,
    ) -> Result<Self, ClientError> {
        let topic = cluster.topic(topic).await?;
        if let Target::Partition(partition) = target
            && topic.partitions.iter().all(|known| known.index != partition)
        {
            return Err(refused(&topic.name, partition, ErrorCode::UnknownTopicOrPartition.code(), None));
        }
        let identity = if acks == Acks::All { Some(cluster.producer_identity().await?) } else { None };
        let leaders = leaders_of(&topic);
        let (sequences, turn) = (BTreeMap::new(), rt::random_u64());
        Ok(Self { cluster, topic, target, acks, codec, identity, sequences, leaders, turn })
    }

    /// Writes records and waits until they are acknowledged; the metadata of each, in order. At most about
    /// [`SEND_BYTES`].
    ///
    /// # Errors
    /// When a partition refuses its records with a fatal error, or retries end.
    pub async fn send(&mut self, records: &[NewRecord]) -> Result<Vec<RecordMetadata>, ClientError> {
        let mut placed = vec![RecordMetadata { partition: -1, offset: None }; records.len()];
        let mut waiting = self.pack(records)?;
        let mut retry = Retry::new();
        while !waiting.is_empty() {
            let failed = self.send_once(&mut waiting, &mut placed).await?;
            if waiting.is_empty() {
                break;
            }
            if !retry.backoff().await {
                let partition = waiting.keys().next().copied().unwrap_or(-1);
                let unavailable = ErrorCode::LeaderNotAvailable.code();
                return Err(failed.unwrap_or_else(|| refused(&self.topic.name, partition, unavailable, None)));
            }
            match self.cluster.topic(&self.topic.name).await {
                Ok(topic) => self.leaders = leaders_of(&topic),
                Err(error) if error.is_retriable() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(placed)
    }

    /// A batch for each partition, under its next sequence.
    fn pack(&mut self, records: &[NewRecord]) -> Result<BTreeMap<i32, Packed>, ClientError> {
        self.turn = self.turn.wrapping_add(1);
        let mut by_partition: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (place, record) in records.iter().enumerate() {
            by_partition.entry(self.choose(record.key.as_deref())).or_default().push(place);
        }
        let now_ms = rt::wall_clock_ms();
        let mut packed = BTreeMap::new();
        for (partition, places) in by_partition {
            let mut builder = BatchBuilder::new(self.codec);
            if let Some((id, epoch)) = self.identity {
                let sequence = self.sequences.entry(partition).or_insert(0);
                builder = builder.with_producer(id, epoch, *sequence);
                *sequence = batch::sequence_plus(*sequence, i32::try_from(places.len()).unwrap_or(i32::MAX));
            }
            for record in places.iter().filter_map(|place| records.get(*place)) {
                let headers: Vec<(&[u8], Option<&[u8]>)> =
                    record.headers.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_slice()))).collect();
                let (key, value) = (record.key.as_deref(), record.value.as_deref());
                builder.push(&batch::NewRecord { timestamp: now_ms, key, value, headers: &headers });
            }
            let records = builder.build().map_err(|error| ClientError::Unencodable(error.to_string()))?;
            packed.insert(partition, Packed { records, places });
        }
        Ok(packed)
    }

    fn choose(&self, key: Option<&[u8]>) -> i32 {
        let partitions = &self.topic.partitions;
        let chosen = match (self.target, key) {
            (Target::Partition(partition), _) => return partition,
            (Target::ByKey, Some(key)) => murmur2::partition_of(key, partitions.len()),
            (Target::ByKey, None) => (self.turn % partitions.len().max(1) as u64) as usize,
        };
        partitions.get(chosen).map_or(0, |partition| partition.index)
    }

    /// One round of requests; removes appended batches from `waiting`, and returns the errors of the others.
    async fn send_once(
        &mut self,
        waiting: &mut BTreeMap<i32, Packed>,
        placed: &mut [RecordMetadata],
    ) -> Result<Option<ClientError>, ClientError> {
        let mut by_leader: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for partition in waiting.keys() {
            if let Some(leader) = self.leaders.get(partition) {
                by_leader.entry(*leader).or_default().push(*partition);
            }
        }
        let mut failed = None;
        for (leader, partitions) in by_leader {
            let request = self.request(&partitions, waiting);
            if self.acks == Acks::None {
                self.cluster.brokers.send_one_way(leader, 3..=12, |_| request).await?;
                for partition in partitions {
                    done(waiting, placed, partition, None);
                }
                continue;
            }
            let answer = match self.cluster.brokers.send(leader, 3..=12, |_| request).await {
                Ok(answer) => answer,
                // The response is lost, and the batch may have been appended.
                Err(error) if error.is_retriable() && self.identity.is_some() => {
                    failed = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            for partition in answer.responses.into_iter().flat_map(|topic| topic.partition_responses) {
                let index = partition.index;
                match ErrorCode::from_code(partition.error_code) {
                    Some(ErrorCode::None) => {
                        done(waiting, placed, index, Some(partition.base_offset).filter(|offset| *offset >= 0));
                    }
                    // Appended by an earlier attempt whose response was lost.
                    Some(ErrorCode::DuplicateSequenceNumber) => done(waiting, placed, index, None),
                    _ => {
                        let error =
                            refused(&self.topic.name, index, partition.error_code, partition.error_message.as_deref());
                        if !self.may_send_again(partition.error_code) {
                            return Err(error);
                        }
                        failed = Some(error);
                    }
                }
            }
        }
        Ok(failed)
    }

    fn may_send_again(&self, code: i16) -> bool {
        let may_be_written = [ErrorCode::NotEnoughReplicasAfterAppend, ErrorCode::NetworkException];
        match ErrorCode::from_code(code) {
            Some(ErrorCode::RequestTimedOut) => self.identity.is_some(),
            Some(code) if may_be_written.contains(&code) => self.identity.is_some(),
            _ => is_retriable(code),
        }
    }

    fn request(&self, partitions: &[i32], waiting: &BTreeMap<i32, Packed>) -> ProduceRequest {
        let data = partitions.iter().filter_map(|index| {
            let records = waiting.get(index)?.records.clone();
            Some(PartitionProduceData::default().with_index(*index).with_records(Some(records)))
        });
        let topic =
            TopicProduceData::default().with_name(topic_name(&self.topic.name)).with_partition_data(data.collect());
        let acks = match self.acks {
            Acks::All => -1,
            Acks::Leader => 1,
            Acks::None => 0,
        };
        ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(acks)
            .with_timeout_ms(REQUEST_TIMEOUT_MS)
            .with_topic_data(vec![topic])
    }
}

impl Cluster {
    /// A new producer id and its epoch.
    async fn producer_identity(&mut self) -> Result<(i64, i16), ClientError> {
        let mut retry = Retry::new();
        loop {
            let make =
                |_| InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(i32::MAX);
            let answer = self.brokers.send_any(0..=5, make).await?;
            match ClientError::check(answer.error_code, None, || "a producer id".to_owned()) {
                Err(error) if error.is_retriable() && retry.backoff().await => continue,
                checked => checked?,
            }
            return Ok((answer.producer_id.0, answer.producer_epoch));
        }
    }
}

fn leaders_of(topic: &TopicView) -> BTreeMap<i32, i32> {
    topic.partitions.iter().filter_map(|partition| Some((partition.index, partition.leader?))).collect()
}

fn done(waiting: &mut BTreeMap<i32, Packed>, placed: &mut [RecordMetadata], partition: i32, base_offset: Option<i64>) {
    let Some(packed) = waiting.remove(&partition) else { return };
    for (number, place) in (0..).zip(packed.places) {
        if let Some(placed) = placed.get_mut(place) {
            *placed = RecordMetadata { partition, offset: base_offset.map(|base| base + number) };
        }
    }
}

fn refused(topic: &str, partition: i32, code: i16, message: Option<&str>) -> ClientError {
    let what = format!("topic {topic} partition {partition}");
    ClientError::Refused { what, code, message: message.map(str::to_owned) }
}
