//! The leader of a partition and the coordinator of a transaction, which it asks before a batch may open it.

#![allow(clippy::unwrap_used)]

use kafka_protocol::messages::{FindCoordinatorRequest, ProduceRequest, TransactionalId};
use ottla_tests::batch::TestBatch;
use ottla_tests::cluster::until;
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, text};

const TOPIC: &str = "ledger";
const PRODUCER: &str = "teller";
const TRANSACTIONAL: i16 = 0x10;
const INVALID_PRODUCER_ID_MAPPING: i16 = 49;

/// A client counts NOT_ENOUGH_REPLICAS as a failure, and the topic of a cluster's first transaction takes a moment to be known by
/// all nodes, as its leader does to be elected.
#[test]
fn a_batch_waits_for_its_transaction_to_have_a_coordinator() {
    let broker = Broker::start(&[]);
    let (mut raw, mut other) = (Raw::connect(broker.address()), Raw::connect(broker.address()));
    raw.create_topic(TOPIC, 1, &[]);
    let mut batch = TestBatch::of(&[b"value"]).from_producer(7, 0, 0);
    batch.attributes = TRANSACTIONAL;
    let request = Raw::produce_request(TOPIC, 0, -1, Some(batch.encode()))
        .with_transactional_id(Some(TransactionalId(text(PRODUCER))));
    let sent = raw.ask(9, &request);
    let find = FindCoordinatorRequest::default().with_key_type(1).with_coordinator_keys(vec![text(PRODUCER)]);
    until("transactions have a coordinator", || other.call(4, &find).coordinators[0].error_code == 0);
    let answer = raw.answer::<ProduceRequest>(9, sent).unwrap();
    let code = answer.responses[0].partition_responses[0].error_code;
    assert_eq!(code, INVALID_PRODUCER_ID_MAPPING, "what the coordinator says");
}
