//! A thin Kafka client: blocking, one connection, exactly the bytes that a test wants on the wire.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, FetchRequest, FetchResponse, IncrementalAlterConfigsRequest, ListOffsetsRequest,
    MetadataRequest, MetadataResponse, ProduceRequest, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

/// A connection that speaks in whole frames.
pub struct Raw {
    pub stream: TcpStream,
    correlation: i32,
}

pub fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

pub fn topic_name(value: &str) -> TopicName {
    TopicName(text(value))
}

/// A request with its header as one frame, length first.
pub fn frame<R: Request>(version: i16, correlation: i32, request: &R) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(text("raw-test")));
    let mut body = BytesMut::new();
    header.encode(&mut body, R::header_version(version)).unwrap();
    request.encode(&mut body, version).unwrap();
    let mut out = BytesMut::new();
    out.put_i32(i32::try_from(body.len()).unwrap());
    out.put_slice(&body);
    out.freeze()
}

impl Raw {
    pub fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { stream, correlation: 0 }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next frame without its length, `None` if the broker has closed the connection.
    pub fn receive(&mut self) -> Option<Bytes> {
        let mut length = [0; 4];
        if !self.fill(&mut length) {
            return None;
        }
        let mut body = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        assert!(self.fill(&mut body), "the connection closed within a frame");
        Some(Bytes::from(body))
    }

    fn fill(&mut self, into: &mut [u8]) -> bool {
        match self.stream.read_exact(into) {
            Ok(()) => true,
            Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => false,
            Err(e) => panic!("no answer: {e}"),
        }
    }

    /// True if the broker closes the connection without a further byte.
    pub fn is_closed(&mut self) -> bool {
        self.receive().is_none()
    }

    /// Sends a request; the answer is left to [`Raw::answer`].
    pub fn ask<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        self.correlation += 1;
        let bytes = frame(version, self.correlation, request);
        self.send(&bytes);
        self.correlation
    }

    /// The answer to the request with that correlation id, which has to be the next one.
    pub fn answer<R: Request>(&mut self, version: i16, correlation: i32) -> Option<R::Response> {
        let mut body = self.receive()?;
        let header = ResponseHeader::decode(&mut body, R::Response::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, correlation, "answers come in the order of the requests");
        let response = R::Response::decode(&mut body, version).unwrap();
        assert!(body.is_empty(), "{} bytes too many in the answer", body.len());
        Some(response)
    }

    /// One request and its answer; panics if the connection closes.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let correlation = self.ask(version, request);
        self.answer::<R>(version, correlation).expect("the broker closed the connection")
    }

    /// Creates a topic with configs; panics unless it worked.
    pub fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let code = self.try_create_topic(name, partitions, 1, configs);
        assert_eq!(code, 0, "create topic {name}");
    }

    /// Creates a topic; its error code.
    pub fn try_create_topic(&mut self, name: &str, partitions: i32, factor: i16, configs: &[(&str, &str)]) -> i16 {
        let config =
            |(k, v): &(&str, &str)| CreatableTopicConfig::default().with_name(text(k)).with_value(Some(text(v)));
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(factor)
            .with_configs(configs.iter().map(config).collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        self.call(5, &request).topics[0].error_code
    }

    pub fn metadata(&mut self, topics: &[&str]) -> MetadataResponse {
        let wanted = topics.iter().map(|t| MetadataRequestTopic::default().with_name(Some(topic_name(t)))).collect();
        self.call(9, &MetadataRequest::default().with_topics(Some(wanted)).with_allow_auto_topic_creation(false))
    }

    /// Sets configs of a resource, of a type as IncrementalAlterConfigs has it; what the broker says of it.
    pub fn set_configs(&mut self, kind: i8, name: &str, configs: &[(&str, &str)]) -> AlterConfigsResourceResponse {
        let config = |(name, value): &(&str, &str)| {
            AlterableConfig::default().with_name(text(name)).with_config_operation(0).with_value(Some(text(value)))
        };
        let resource = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configs(configs.iter().map(config).collect());
        self.call(1, &IncrementalAlterConfigsRequest::default().with_resources(vec![resource])).responses.remove(0)
    }

    /// A produce request (v9) for one partition.
    pub fn produce_request(topic: &str, partition: i32, acks: i16, records: Option<Bytes>) -> ProduceRequest {
        let data = PartitionProduceData::default().with_index(partition).with_records(records);
        let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![data]);
        ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic])
    }

    /// Produces records to one partition with acks=all; what the broker says of that partition.
    pub fn produce(&mut self, topic: &str, partition: i32, records: Bytes) -> PartitionProduceResponse {
        let answer = self.call(9, &Self::produce_request(topic, partition, -1, Some(records)));
        answer.responses[0].partition_responses[0].clone()
    }

    /// A fetch (v11, no session) from one partition, with its wait in milliseconds.
    pub fn fetch(&mut self, topic: &str, partition: i32, offset: i64, wait_ms: i32) -> FetchResponse {
        self.fetch_in(-1, topic, partition, offset, wait_ms)
    }

    /// The same, by a client that believes in this leader epoch.
    pub fn fetch_in(&mut self, epoch: i32, topic: &str, partition: i32, offset: i64, wait_ms: i32) -> FetchResponse {
        let part = FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset)
            .with_current_leader_epoch(epoch)
            .with_partition_max_bytes(8 << 20);
        let wanted = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![part]);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(16 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![wanted]);
        self.call(11, &request)
    }

    /// Error code and offset that ListOffsets (v7) gives for a timestamp (-1 latest, -2 earliest, ...).
    pub fn list_offset(&mut self, topic: &str, partition: i32, timestamp: i64) -> (i16, i64) {
        let part = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_timestamp(timestamp)
            .with_current_leader_epoch(-1);
        let wanted = ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![part]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![wanted]);
        let found = self.call(7, &request).topics[0].partitions[0].clone();
        (found.error_code, found.offset)
    }

    /// Every record of a partition from its start to its end: offset to value.
    pub fn read_all(&mut self, topic: &str, partition: i32) -> BTreeMap<i64, Bytes> {
        let mut offset = |timestamp| {
            let (error, offset) = self.list_offset(topic, partition, timestamp);
            assert_eq!(error, 0, "the offset at {timestamp} of {topic}/{partition}");
            offset
        };
        let (mut at, end) = (offset(-2), offset(-1));
        let mut found = BTreeMap::new();
        while at < end {
            let answer = self.fetch(topic, partition, at, 1_000);
            let part = &answer.responses[0].partitions[0];
            assert_eq!(part.error_code, 0, "fetch of {topic}/{partition} at {at}");
            let mut bytes = part.records.clone().unwrap_or_default();
            assert!(!bytes.is_empty(), "nothing at {at} below the end {end}");
            let next = end_of(&bytes);
            let sets = kafka_protocol::records::RecordBatchDecoder::decode_all(&mut bytes).unwrap();
            for record in sets.into_iter().flat_map(|set| set.records) {
                if record.offset >= at {
                    found.insert(record.offset, record.value.unwrap_or_default());
                }
            }
            at = next;
        }
        found
    }
}

/// The offset after the last of some whole batches, of which one may hold no records.
fn end_of(batches: &[u8]) -> i64 {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | i64::from(*byte));
    let (mut rest, mut end) = (batches, 0);
    while rest.len() > 27 {
        end = number(&rest[..8]) + number(&rest[23..27]) + 1;
        rest = &rest[12 + usize::try_from(number(&rest[8..12])).unwrap()..];
    }
    end
}
