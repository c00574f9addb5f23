//! The few whole requests that a comparison makes itself: topics, offsets, one record. Blocking, one connection.
//!
//! Knows Kafka's protocol only, nothing of the broker behind it: both peers are asked in the same words.

pub(crate) mod transactions;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponsePartition;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiVersionsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest, FetchRequest,
    IncrementalAlterConfigsRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, ProduceResponse,
    RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

/// Kafka refuses to make more partitions than this in one request.
const PARTITIONS_PER_REQUEST: i32 = 5_000;

/// A topic and how many partitions it has.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) partitions: i32,
}

/// Who has a partition, as a node knows it.
#[derive(Debug)]
pub(crate) struct Place {
    /// Below 0 if nobody leads.
    pub(crate) leader: i32,
    pub(crate) in_sync: Vec<i32>,
}

/// A topic as a node knows it.
#[derive(Debug)]
pub(crate) struct Layout {
    /// How many brokers there are.
    pub(crate) brokers: usize,
    /// By index.
    pub(crate) partitions: Vec<Place>,
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

pub(crate) fn topic_name(value: &str) -> TopicName {
    TopicName(text(value))
}

/// A request with its header as one frame, length first.
pub(crate) fn frame<R: Request>(version: i16, request: &R) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_client_id(Some(text("compare")));
    let mut body = BytesMut::new();
    header.encode(&mut body, R::header_version(version)).unwrap();
    request.encode(&mut body, version).unwrap();
    let mut out = BytesMut::new();
    out.put_i32(i32::try_from(body.len()).unwrap());
    out.put_slice(&body);
    out.freeze()
}

/// A batch of `count` records of `size` bytes, uncompressed, without keys.
pub(crate) fn batch(count: usize, size: usize) -> Bytes {
    batch_of(&vec![None; count], size)
}

/// A batch of a record of `size` bytes for each key, uncompressed.
pub(crate) fn keyed_batch(keys: &[u64], size: usize) -> Bytes {
    let keys: Vec<_> = keys.iter().map(|key| Some(Bytes::copy_from_slice(&key.to_be_bytes()))).collect();
    batch_of(&keys, size)
}

fn batch_of(keys: &[Option<Bytes>], size: usize) -> Bytes {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    // Not all bytes alike: a file system or disk that compresses would make them too cheap.
    let mut seed = 0x9e37_79b9_u32;
    let mut byte = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    let value: Bytes = (0..size).map(|_| byte()).collect::<Vec<u8>>().into();
    let now = i64::try_from(now.as_millis()).unwrap();
    // Consecutive sequences, or the encoder begins a new batch: the first one's goes into the head, -1 for none.
    let sequenced =
        |(n, key): (i32, &Option<Bytes>)| Record { key: key.clone(), ..record(n, n - 1, now, value.clone()) };
    encoded(&(0..).zip(keys).map(sequenced).collect::<Vec<Record>>())
}

/// A record without a key, of a producer without an id.
fn record(offset: i32, sequence: i32, timestamp: i64, value: Bytes) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset: i64::from(offset),
        sequence,
        timestamp,
        key: None,
        value: Some(value),
        headers: IndexMap::new(),
    }
}

/// Records as one batch.
fn encoded(records: &[Record]) -> Bytes {
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut out, records, &options).unwrap();
    out.freeze()
}

/// A produce request (acks=all) with the same records for each of some partitions.
pub(crate) fn produce_request(topic: &str, partitions: &[i32], records: &Bytes) -> ProduceRequest {
    let data = |p: &i32| PartitionProduceData::default().with_index(*p).with_records(Some(records.clone()));
    let topic = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_partition_data(partitions.iter().map(data).collect());
    ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

/// How far the error code lies from the beginning of an answer to a produce request (v9) of one partition: behind length, correlation, tags,
/// number of topics, name, number of partitions, index.
pub(crate) fn produced_error_at(topic: &str) -> usize {
    4 + 4 + 1 + 1 + (1 + topic.len()) + 1 + 4
}

/// A fetch (v11, no session) from one partition.
pub(crate) fn fetch_request(topic: &str, partition: i32, offset: i64, bytes_max: i32, wait_ms: i32) -> FetchRequest {
    let part = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_partition_max_bytes(bytes_max);
    let wanted = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![part]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(bytes_max)
        .with_session_epoch(-1)
        .with_topics(vec![wanted])
}

/// One connection that asks and waits.
pub(crate) struct Wire {
    stream: TcpStream,
}

impl Wire {
    pub(crate) fn try_connect(to: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(to).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(120))).ok()?;
        Some(Self { stream })
    }

    pub(crate) fn connect(to: SocketAddr) -> Self {
        Self::try_connect(to).unwrap_or_else(|| panic!("nobody answers on {to}"))
    }

    /// One request and its answer; `None` if the connection fails.
    fn try_call<R: Request>(&mut self, version: i16, request: &R) -> Option<R::Response> {
        self.try_send(version, request)?;
        self.try_receive::<R>(version)
    }

    fn try_send<R: Request>(&mut self, version: i16, request: &R) -> Option<()> {
        self.stream.write_all(&frame(version, request)).ok()
    }

    /// The answer to a request that was sent.
    fn try_receive<R: Request>(&mut self, version: i16) -> Option<R::Response> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut body = vec![0; usize::try_from(i32::from_be_bytes(length)).ok()?];
        self.stream.read_exact(&mut body).ok()?;
        let mut body = Bytes::from(body);
        ResponseHeader::decode(&mut body, R::Response::header_version(version)).ok()?;
        R::Response::decode(&mut body, version).ok()
    }

    fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.try_call(version, request).expect("the broker closed the connection")
    }

    /// True if the peer answers the first question that every client asks.
    pub(crate) fn answers(&mut self) -> bool {
        self.try_call(0, &ApiVersionsRequest::default()).is_some_and(|a| a.error_code == 0)
    }

    /// Sets a config of a topic.
    pub(crate) fn set_config(&mut self, topic: &Topic, name: &str, value: &str) {
        const OF_A_TOPIC: i8 = 2;
        let config = AlterableConfig::default().with_name(text(name)).with_value(Some(text(value)));
        let resource = AlterConfigsResource::default().with_resource_type(OF_A_TOPIC);
        let resource = resource.with_resource_name(text(&topic.name)).with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let result = self.call(1, &request).responses.remove(0);
        let why = result.error_message.unwrap_or_default();
        assert_eq!(result.error_code, 0, "{name}={value} of {}: {why}", topic.name);
    }

    /// Creates a topic with so many replicas; false if the peer is not ready for that yet.
    pub(crate) fn try_create_topic(&mut self, topic: &Topic, copies: i16) -> bool {
        let first = topic.partitions.min(PARTITIONS_PER_REQUEST);
        let wanted = CreatableTopic::default()
            .with_name(topic_name(&topic.name))
            .with_num_partitions(first)
            .with_replication_factor(copies);
        let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(60_000);
        let Some(answer) = self.try_call(5, &request) else { return false };
        // 36: it exists already, since an earlier attempt worked and was not answered in time.
        let mut made = answer.topics.first().is_some_and(|t| matches!(t.error_code, 0 | 36));
        let mut count = first;
        while made && count < topic.partitions {
            count = topic.partitions.min(count + PARTITIONS_PER_REQUEST);
            let more = CreatePartitionsTopic::default()
                .with_name(topic_name(&topic.name))
                .with_count(count)
                .with_assignments(None);
            let request = CreatePartitionsRequest::default().with_topics(vec![more]).with_timeout_ms(60_000);
            let result = self.call(3, &request).results.remove(0);
            made = result.error_code == 0;
            if !made {
                let why = result.error_message.unwrap_or_default();
                println!("{count} partitions of {}: error {} {why}", topic.name, result.error_code);
            }
        }
        made
    }

    /// What the node knows of a topic and of its peers; `None` if it does not know all of its partitions.
    pub(crate) fn try_layout(&mut self, topic: &Topic) -> Option<Layout> {
        let named = MetadataRequestTopic::default().with_name(Some(topic_name(&topic.name)));
        let request = MetadataRequest::default().with_topics(Some(vec![named])).with_allow_auto_topic_creation(false);
        let answer = self.try_call(9, &request)?;
        let mut partitions = answer.topics.into_iter().next()?.partitions;
        partitions.sort_by_key(|p| p.partition_index);
        let place = |p: MetadataResponsePartition| Place {
            leader: if p.error_code == 0 { p.leader_id.0 } else { -1 },
            in_sync: p.isr_nodes.into_iter().map(|node| node.0).collect(),
        };
        let is_all = partitions.len() == usize::try_from(topic.partitions).unwrap();
        is_all
            .then(|| Layout { brokers: answer.brokers.len(), partitions: partitions.into_iter().map(place).collect() })
    }

    /// The offset after the last record of each of some partitions, which this node leads; `None` unless it answers for all.
    pub(crate) fn try_ends(&mut self, topic: &Topic, partitions: &[i32]) -> Option<Vec<i64>> {
        let part = |p: &i32| {
            let part = ListOffsetsPartition::default().with_partition_index(*p);
            part.with_timestamp(-1).with_current_leader_epoch(-1)
        };
        let wanted = ListOffsetsTopic::default()
            .with_name(topic_name(&topic.name))
            .with_partitions(partitions.iter().map(part).collect());
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![wanted]);
        let mut found = self.try_call(7, &request)?.topics.into_iter().next()?.partitions;
        found.sort_by_key(|p| p.partition_index);
        let is_whole = found.len() == partitions.len() && found.iter().all(|p| p.error_code == 0);
        is_whole.then(|| found.iter().map(|p| p.offset).collect())
    }

    /// The offset after the last record of each partition.
    pub(crate) fn ends(&mut self, topic: &Topic) -> Vec<i64> {
        let all: Vec<i32> = (0..topic.partitions).collect();
        self.try_ends(topic, &all).expect("the ends of a topic")
    }

    /// True once a record has been acknowledged.
    pub(crate) fn try_produce(&mut self, topic: &str, partition: i32, records: Bytes) -> bool {
        self.is_acknowledged(&produce_request(topic, &[partition], &records))
    }

    /// True once the only part of a produce request (v9) has been acknowledged.
    fn is_acknowledged(&mut self, request: &ProduceRequest) -> bool {
        self.try_call(9, request).is_some_and(|answer| acknowledged(&answer).len() == 1)
    }

    /// Bytes of records that come for an offset; `None` while the partition cannot be read.
    pub(crate) fn try_fetch(&mut self, topic: &str, partition: i32, offset: i64) -> Option<usize> {
        let answer = self.try_call(11, &fetch_request(topic, partition, offset, 1 << 20, 100))?;
        let part = answer.responses.first()?.partitions.first()?;
        (part.error_code == 0).then(|| part.records.as_ref().map_or(0, Bytes::len))
    }
}

/// The partitions whose records have been acknowledged.
fn acknowledged(answer: &ProduceResponse) -> Vec<i32> {
    let parts = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
    parts.filter(|part| part.error_code == 0).map(|part| part.index).collect()
}

#[cfg(test)]
mod tests {
    use super::batch;

    #[test]
    fn records_make_one_batch() {
        let bytes = batch(16, 1024);
        let length = i32::from_be_bytes(bytes[8..12].try_into().unwrap());
        assert_eq!(bytes.len(), usize::try_from(length).unwrap() + 12, "one batch fills the buffer");
        assert_eq!(bytes[23..27], 15_i32.to_be_bytes(), "last offset delta");
        assert_eq!(bytes[53..57], (-1_i32).to_be_bytes(), "no sequence");
    }
}
