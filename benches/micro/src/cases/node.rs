//! A whole node in simulation, from a request's frame to its answer: everything but sockets, with a disk in memory.
//!
//! Virtual time and one seed: the same tasks run in the same order in every run.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse, MetadataRequest,
    MetadataResponse, TopicName,
};
use kafka_protocol::protocol::Decodable;
use ottla_broker::admin::Readiness;
use ottla_broker::config::{Inputs, load};
use ottla_broker::node::{Node, NodeOptions, World};
use ottla_broker::partition::TopicRef;
use ottla_broker::server::listener::BoundListener;
use ottla_env::sim::net::SimListener;
use ottla_env::{rt, sim};
use ottla_protocol::StrBytes;
use ottla_protocol::versions::ApiKey;
use ottla_storage::data_dir::DataDirOptions;
use ottla_storage::log::LogOptions;

use super::Case;
use super::client::{Client, frame_of};
use super::disk::MemoryDisk;
use super::log::leave;
use super::wire::produce_frame;

const FETCH: i16 = 12;
const METADATA: i16 = 12;
/// Requests of a burst, over as many partitions.
const BURST: i32 = 64;
/// Produce requests that are made ahead.
const PREPARED: i32 = 1600;
/// 10,000 partitions.
const TOPICS: i32 = 10;
const PARTITIONS: i32 = 1000;

pub(super) fn cases() -> Vec<Case> {
    let case = |name, what, few, many, run| Case { name, what, few, many, run };
    vec![
        case("produce_1k", "a Produce request of 1 KiB, from frame to answer, one at a time", 50, 250, |n| {
            produce(n, 1, 1);
        }),
        // Copies of this size are counted byte by byte: one more on the way is seen.
        case("produce_16k", "the same of 16 records of 1 KiB", 50, 250, |n| produce(n, 1, 16)),
        case("produce_burst_64", "64 Produce requests of 1 KiB for 64 partitions at once", 5, 25, |n| {
            produce(n, BURST, 1);
        }),
        case("metadata_10000", "a Metadata request for 10,000 partitions", 2, 6, metadata),
        case("fetch_session_10000", "a Fetch request of a session of 10,000 partitions at rest", 100, 1100, session),
    ]
}

/// A node that serves.
async fn node() -> Node {
    let inputs = Inputs {
        environment: [("KAFKA_NODE_ID", "1"), ("KAFKA_LOG_DIRS", "/data")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..Inputs::default()
    };
    let mut config = load(&inputs).unwrap().config;
    config.admin_listener = None;
    config.log.segment_bytes = 64 << 20;
    config.log.disk_reserve_bytes = 0;
    config.log.scrub_bytes_per_second = 0;
    let log = LogOptions { zero_ahead_bytes_per_second: 0, ..LogOptions::default() };
    let data_dir = DataDirOptions { log, ..DataDirOptions::default() };
    let options = NodeOptions { data_dir, ..NodeOptions::default() };
    // Advertised, so that partitions are shown with their leader; clients use the dispatcher.
    let address = ([127, 0, 0, 1], 9092).into();
    let listeners = vec![BoundListener::of("PLAINTEXT", address, Box::new(SimListener::default()))];
    let world = World { options, listeners, ..World::alone(Arc::new(MemoryDisk::default())) };
    Node::start(world, config, Readiness::default()).await.unwrap()
}

fn topic_name(number: i32) -> TopicName {
    TopicName(StrBytes::from_string(format!("topic-{number}")))
}

/// A node with topics whose partitions are all led.
async fn node_with(topics: i32, partitions: i32) -> (Node, Client) {
    let node = node().await;
    let mut client = Client::new(node.kafka());
    for number in 0..topics {
        let topic = CreatableTopic::default()
            .with_name(topic_name(number))
            .with_num_partitions(partitions)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(60_000);
        let mut answer = client.ask(ApiKey::CreateTopics, 5, &request).await;
        let answer = CreateTopicsResponse::decode(&mut answer, 5).unwrap();
        assert!(answer.topics.iter().all(|topic| topic.error_code == 0), "{answer:?}");
    }
    let all = MetadataRequest::default().with_topics(None);
    loop {
        let mut answer = client.ask(ApiKey::Metadata, METADATA, &all).await;
        let answer = MetadataResponse::decode(&mut answer, METADATA).unwrap();
        let mut known = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let count = known.clone().count();
        if known.all(|partition| partition.error_code == 0 && partition.leader_id == BrokerId(1))
            && count == usize::try_from(topics * partitions).unwrap()
        {
            break;
        }
        rt::sleep(Duration::from_millis(500)).await;
    }
    (node, client)
}

/// Idempotent, as clients produce unless told otherwise; a partition each.
fn produce(iterations: u64, requests: i32, records: usize) {
    sim::run(1, move || async move {
        let (node, mut client) = node_with(1, requests).await;
        let now_ms = rt::wall_clock_ms();
        let frames = |sequence: i32| -> Vec<Bytes> {
            let batch = super::batch(records, 1000, now_ms, Some(sequence * records as i32));
            (0..requests).map(|index| produce_frame(topic_name(0).0, index, batch.clone())).collect()
        };
        // The first requests find their partitions and make buffers.
        let warm = 5;
        for sequence in 0..warm {
            client.send(&frames(sequence)).await;
        }
        // All that there may be, so that making them is not counted.
        let prepared: Vec<Vec<Bytes>> = (warm..warm + PREPARED / requests).map(frames).collect();
        for frames in prepared.get(..usize::try_from(iterations).unwrap()).expect("fewer iterations") {
            client.send(frames).await;
        }
        for index in 0..requests {
            let partition = node.domain().partitions.find(TopicRef::Name("topic-0"), index).await.unwrap();
            let end = partition.watermarks().high_watermark.0;
            assert_eq!(end, (i64::from(warm) + iterations as i64) * records as i64, "partition {index}");
        }
        leave();
    });
}

fn metadata(iterations: u64) {
    sim::run(1, move || async move {
        let (_node, mut client) = node_with(TOPICS, PARTITIONS).await;
        let frame = frame_of(ApiKey::Metadata, METADATA, &MetadataRequest::default().with_topics(None));
        for _ in 0..iterations {
            assert!(client.send(std::slice::from_ref(&frame)).await > 200_000);
        }
        leave();
    });
}

fn fetch_request(session: i32, epoch: i32, topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_session_id(session)
        .with_session_epoch(epoch)
        .with_topics(topics)
}

fn session(iterations: u64) {
    sim::run(1, move || async move {
        let (_node, mut client) = node_with(TOPICS, PARTITIONS).await;
        let partition = |index| {
            FetchPartition::default().with_partition(index).with_fetch_offset(0).with_partition_max_bytes(1 << 20)
        };
        let topic = |number| {
            FetchTopic::default()
                .with_topic(topic_name(number))
                .with_partitions((0..PARTITIONS).map(partition).collect())
        };
        let mut answer = client.ask(ApiKey::Fetch, FETCH, &fetch_request(0, 0, (0..TOPICS).map(topic).collect())).await;
        let opened = FetchResponse::decode(&mut answer, FETCH).unwrap();
        let told: usize = opened.responses.iter().map(|topic| topic.partitions.len()).sum();
        assert!(opened.session_id != 0 && told == usize::try_from(TOPICS * PARTITIONS).unwrap());
        // The second request looks at all once more, and watches them.
        let next = |epoch| frame_of(ApiKey::Fetch, FETCH, &fetch_request(opened.session_id, epoch, Vec::new()));
        let warm = 3;
        let mut bytes = 0;
        for epoch in 1..=warm {
            bytes = client.send(&[next(epoch)]).await;
        }
        for number in 1..=i32::try_from(iterations).unwrap() {
            assert_eq!(client.send(&[next(warm + number)]).await, bytes);
        }
        leave();
    });
}
