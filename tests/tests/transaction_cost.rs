//! What a transaction over many partitions costs: a few commits of the log, also where it follows another one so closely that the
//! markers of that are still being written. Counted, not timed.

#![allow(clippy::unwrap_used)]

use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest, ProduceRequest, ProducerId, TransactionalId,
};
use ottla_tests::batch::TestBatch;
use ottla_tests::cluster::until;
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, text, topic_name};

const TOPIC: &str = "wide";
const PRODUCER: &str = "writer";
const PARTITIONS: i32 = 50;
const TRANSACTIONS: u32 = 8;
/// Of the partitions' shards for records and for markers, of the coordinator for what is added, prepared and complete: about eight;
/// one for each partition would be fifty.
const COMMITS_MAX: f64 = 20.0;
const TRANSACTIONAL: i16 = 0x10;

fn id() -> TransactionalId {
    TransactionalId(text(PRODUCER))
}

/// One record to each partition, which Produce 12 adds to the transaction.
fn write(raw: &mut Raw, producer: (i64, i16)) {
    let mut batch = TestBatch::of(&[b"value"]).from_producer(producer.0, producer.1, 0);
    batch.attributes = TRANSACTIONAL;
    let records = batch.encode();
    let of = |index| PartitionProduceData::default().with_index(index).with_records(Some(records.clone()));
    let data = (0..PARTITIONS).map(of).collect();
    let topic = TopicProduceData::default().with_name(topic_name(TOPIC)).with_partition_data(data);
    let request = ProduceRequest::default()
        .with_transactional_id(Some(id()))
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic]);
    let answer = raw.call(12, &request);
    let codes: Vec<i16> = answer.responses[0].partition_responses.iter().map(|part| part.error_code).collect();
    assert_eq!(codes, vec![0; codes.len()], "right behind the transaction before");
}

/// Commits, and gives the producer of the next transaction.
fn commit(raw: &mut Raw, producer: (i64, i16)) -> (i64, i16) {
    let end = EndTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(ProducerId(producer.0))
        .with_producer_epoch(producer.1)
        .with_committed(true);
    let answer = raw.call(5, &end);
    assert_eq!(answer.error_code, 0);
    (answer.producer_id.0, answer.producer_epoch)
}

#[test]
fn the_partitions_of_a_transaction_share_its_commits_also_right_behind_another() {
    let broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic(TOPIC, PARTITIONS, &[]);
    let find = FindCoordinatorRequest::default().with_key_type(1).with_coordinator_keys(vec![text(PRODUCER)]);
    until("transactions have a coordinator", || raw.call(4, &find).coordinators[0].error_code == 0);
    let init = InitProducerIdRequest::default().with_transactional_id(Some(id())).with_transaction_timeout_ms(60_000);
    let mut producer = (-1, -1);
    until("the producer has an id", || {
        let answer = raw.call(4, &init);
        producer = (answer.producer_id.0, answer.producer_epoch);
        answer.error_code == 0
    });
    write(&mut raw, producer);
    producer = commit(&mut raw, producer);
    let commits = || broker.metric("ottla_log_commits_total", "");
    let before = commits();
    for _ in 0..TRANSACTIONS {
        write(&mut raw, producer);
        producer = commit(&mut raw, producer);
    }
    let each = (commits() - before) / f64::from(TRANSACTIONS);
    assert!(each <= COMMITS_MAX, "{each} commits of the log a transaction");
}
