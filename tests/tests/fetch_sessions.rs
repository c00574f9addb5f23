//! Incremental fetch sessions over many partitions: responses contain the partitions that changed and no others, also
//! when they waited.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    BrokerId, DeleteTopicsRequest, FetchRequest, FetchResponse, MetadataRequest, TopicName,
};
use ottla_tests::batch::TestBatch;
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, topic_name};

const PARTITIONS: i32 = 1_000;
const WAIT_MS: i32 = 30_000;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const UNKNOWN_TOPIC_ID: i16 = 100;

fn topic(name: &str, partitions: &[(i32, i64)]) -> FetchTopic {
    let part = |(index, offset): &(i32, i64)| {
        FetchPartition::default()
            .with_partition(*index)
            .with_fetch_offset(*offset)
            .with_current_leader_epoch(-1)
            .with_partition_max_bytes(1 << 20)
    };
    FetchTopic::default().with_topic(topic_name(name)).with_partitions(partitions.iter().map(part).collect())
}

fn request(session: (i32, i32), wait_ms: i32, topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_id(session.0)
        .with_session_epoch(session.1)
        .with_topics(topics)
}

/// Topic, partition, error and whether there are records, of each partition in a response.
fn told(answer: &FetchResponse) -> Vec<(String, i32, i16, bool)> {
    assert_eq!(answer.error_code, 0);
    let topics = answer.responses.iter();
    let parts = topics.flat_map(|topic| topic.partitions.iter().map(move |part| (topic.topic.to_string(), part)));
    let shown = parts.map(|(name, part)| {
        (name, part.partition_index, part.error_code, part.records.as_ref().is_some_and(|records| !records.is_empty()))
    });
    shown.collect()
}

fn record(raw: &mut Raw, name: &str, partition: i32) {
    assert_eq!(raw.produce(name, partition, TestBatch::of(&[b"x"]).encode()).error_code, 0);
}

fn with_records(name: &str, partition: i32) -> Vec<(String, i32, i16, bool)> {
    vec![(name.to_owned(), partition, 0, true)]
}

#[test]
fn a_large_session_is_told_of_what_changed_and_of_nothing_else() {
    let mut broker = Broker::start(&[]);
    let (mut producer, mut consumer) = (Raw::connect(broker.address()), Raw::connect(broker.address()));
    producer.create_topic("many", PARTITIONS, &[]);
    producer.create_topic("other", 1, &[]);
    let all: Vec<(i32, i64)> = (0..PARTITIONS).map(|index| (index, 0)).collect();
    let opened = consumer.call(11, &request((0, 0), 0, vec![topic("many", &all), topic("other", &[(0, 0)])]));
    assert_eq!(told(&opened).len(), all.len() + 1);
    let session = opened.session_id;
    assert_ne!(session, 0);
    let mut epoch = 0;
    let mut next = |consumer: &mut Raw, wait_ms, topics, forgotten| {
        epoch += 1;
        consumer.ask(11, &request((session, epoch), wait_ms, topics).with_forgotten_topics_data(forgotten))
    };
    let answer = |consumer: &mut Raw, asked| told(&consumer.answer::<FetchRequest>(11, asked).unwrap());

    let asked = next(&mut consumer, 0, vec![], vec![]);
    assert_eq!(answer(&mut consumer, asked), [], "nothing is new");
    // What came between two requests.
    record(&mut producer, "many", 7);
    let asked = next(&mut consumer, WAIT_MS, vec![], vec![]);
    assert_eq!(answer(&mut consumer, asked), with_records("many", 7));
    // A consumer that does not move on gets the same again.
    let asked = next(&mut consumer, WAIT_MS, vec![], vec![]);
    assert_eq!(answer(&mut consumer, asked), with_records("many", 7));
    // What comes while a request waits.
    for round in 0..3 {
        let asked = next(&mut consumer, WAIT_MS, vec![topic("many", &[(7, 1), (999, round)])], vec![]);
        record(&mut producer, "many", 999);
        assert_eq!(answer(&mut consumer, asked), with_records("many", 999));
    }
    // A position moved back is read from there; one moved forward waits.
    let asked = next(&mut consumer, WAIT_MS, vec![topic("many", &[(7, 0), (999, 3)])], vec![]);
    assert_eq!(answer(&mut consumer, asked), with_records("many", 7));
    // A forgotten partition is in no response.
    let forgotten = ForgottenTopic::default().with_topic(topic_name("many")).with_partitions(vec![7]);
    let asked = next(&mut consumer, 0, vec![], vec![forgotten]);
    assert_eq!(answer(&mut consumer, asked), []);
    record(&mut producer, "many", 7);
    record(&mut producer, "many", 8);
    let asked = next(&mut consumer, WAIT_MS, vec![], vec![]);
    assert_eq!(answer(&mut consumer, asked), with_records("many", 8));
    broker.stop();
}

#[test]
fn a_waiting_session_is_told_of_a_topic_that_goes_and_of_the_one_that_takes_its_name() {
    let mut broker = Broker::start(&[]);
    let (mut producer, mut consumer) = (Raw::connect(broker.address()), Raw::connect(broker.address()));
    producer.create_topic("t", 2, &[]);
    producer.create_topic("stays", 1, &[]);
    let both = vec![topic("t", &[(0, 0), (1, 0)]), topic("stays", &[(0, 0)])];
    let session = consumer.call(11, &request((0, 0), 0, both)).session_id;
    assert_eq!(told(&consumer.call(11, &request((session, 1), 0, vec![]))), []);
    let asked = consumer.ask(11, &request((session, 2), WAIT_MS, vec![]));
    let names = vec![topic_name("t")];
    let deleted = producer.call(5, &DeleteTopicsRequest::default().with_topic_names(names).with_timeout_ms(30_000));
    assert_eq!(deleted.responses[0].error_code, 0);
    let unknown = |index| ("t".to_owned(), index, UNKNOWN_TOPIC_OR_PARTITION, false);
    let mut answer = told(&consumer.answer::<FetchRequest>(11, asked).unwrap());
    answer.sort();
    assert!(answer == [unknown(0), unknown(1)] || answer == [unknown(0)] || answer == [unknown(1)], "{answer:?}");
    producer.create_topic("t", 2, &[]);
    record(&mut producer, "t", 1);
    let mut epoch = 2;
    let mut found = Vec::new();
    while !found.contains(&("t".to_owned(), 1, 0, true)) {
        epoch += 1;
        assert!(epoch < 1_000, "{found:?}");
        found = told(&consumer.call(11, &request((session, epoch), 100, vec![])));
    }
    broker.stop();
}

/// Kafka learns a topic's name when a session finds its id, and keeps it: that the topic has gone is told by name. Only an id
/// that it meets for the first time is unknown as an id.
#[test]
fn a_session_that_knew_an_id_is_told_that_the_topic_is_unknown_and_a_new_one_that_the_id_is() {
    let mut broker = Broker::start(&[]);
    let (mut producer, mut consumer) = (Raw::connect(broker.address()), Raw::connect(broker.address()));
    producer.create_topic("t", 1, &[]);
    let named = MetadataRequestTopic::default().with_name(Some(topic_name("t")));
    let id = producer.call(12, &MetadataRequest::default().with_topics(Some(vec![named]))).topics[0].topic_id;
    let by_id = || vec![topic("", &[(0, 0)]).with_topic(TopicName::default()).with_topic_id(id)];
    let errors = |answer: &FetchResponse| told(answer).into_iter().map(|(_, _, error, _)| error).collect::<Vec<_>>();
    let opened = consumer.call(13, &request((0, 0), 0, by_id()));
    assert_eq!(errors(&opened), [0]);
    let session = opened.session_id;
    let waiting = consumer.ask(13, &request((session, 1), WAIT_MS, vec![]));
    let names = vec![topic_name("t")];
    let deleted = producer.call(5, &DeleteTopicsRequest::default().with_topic_names(names).with_timeout_ms(30_000));
    assert_eq!(deleted.responses[0].error_code, 0);
    let answer = consumer.answer::<FetchRequest>(13, waiting).unwrap();
    assert_eq!(errors(&answer), [UNKNOWN_TOPIC_OR_PARTITION], "while it waited");
    let answer = consumer.call(13, &request((session, 2), 0, vec![]));
    assert_eq!(errors(&answer), [UNKNOWN_TOPIC_OR_PARTITION], "afterwards");
    let answer = consumer.call(13, &request((0, 0), 0, by_id()));
    assert_eq!(errors(&answer), [UNKNOWN_TOPIC_ID], "in a new session");
    broker.stop();
}
