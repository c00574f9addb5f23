//! Consumer lag in a topic of transactions: markers are none, and what an open transaction has written is none for a
//! group that reads committed records only.

#![allow(clippy::unwrap_used)]

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest, GroupId, InitProducerIdRequest,
    OffsetFetchRequest, ProducerId, TransactionalId,
};
use ottla_tests::batch::TestBatch;
use ottla_tests::cluster::until;
use ottla_tests::groups;
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, text, topic_name};
use serde_json::{Value, json};

const TOPIC: &str = "ledger";
const PRODUCER: &str = "teller";
const TRANSACTIONAL: i16 = 0x10;

/// A transactional producer of one partition.
struct Teller {
    raw: Raw,
    id: i64,
    epoch: i16,
    sequence: i32,
}

impl Teller {
    fn start(broker: &Broker) -> Self {
        let mut raw = Raw::connect(broker.address());
        let find = FindCoordinatorRequest::default().with_key_type(1).with_coordinator_keys(vec![text(PRODUCER)]);
        until("transactions have a coordinator", || raw.call(4, &find).coordinators[0].error_code == 0);
        let init = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(text(PRODUCER))))
            .with_transaction_timeout_ms(60_000);
        let (mut id, mut epoch) = (-1, -1);
        until("the producer has an id", || {
            let answer = raw.call(4, &init);
            (id, epoch) = (answer.producer_id.0, answer.producer_epoch);
            answer.error_code == 0
        });
        Self { raw, id, epoch, sequence: 0 }
    }

    /// Begins a transaction with some records.
    fn write(&mut self, values: &[&[u8]]) {
        let topic = AddPartitionsToTxnTopic::default().with_name(topic_name(TOPIC)).with_partitions(vec![0]);
        let add = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(text(PRODUCER)))
            .with_v3_and_below_producer_id(ProducerId(self.id))
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(vec![topic]);
        until("the partition is part of it", || {
            let answer = self.raw.call(3, &add);
            answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code == 0
        });
        let mut batch = TestBatch::of(values).from_producer(self.id, self.epoch, self.sequence);
        batch.attributes = TRANSACTIONAL;
        self.sequence += batch.count;
        let request = Raw::produce_request(TOPIC, 0, -1, Some(batch.encode()))
            .with_transactional_id(Some(TransactionalId(text(PRODUCER))));
        let answer = self.raw.call(9, &request);
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    }

    fn commit(&mut self) {
        let end = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(text(PRODUCER)))
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_committed(true);
        until("the transaction ends", || self.raw.call(3, &end).error_code == 0);
    }
}

/// What a consumer without a membership does: asks where it was, and commits.
fn consume(raw: &mut Raw, group: &str, require_stable: bool, offset: i64) {
    groups::find_coordinator(raw, group);
    let topic = OffsetFetchRequestTopic::default().with_name(topic_name(TOPIC)).with_partition_indexes(vec![0]);
    let fetch = OffsetFetchRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_topics(Some(vec![topic]))
        .with_require_stable(require_stable);
    until("offsets are fetched", || raw.call(7, &fetch).error_code == 0);
    groups::commit(raw, group, TOPIC, offset);
}

/// Ends and lags of the group's one partition: high watermark, last stable offset, the group's lag and the lag to each.
fn measured(broker: &Broker, group: &str) -> [Value; 5] {
    let (_, body) = broker.http(&format!("/v1/groups/{group}")).unwrap();
    let page: Value = serde_json::from_str(&body).unwrap();
    let partition = &page["topics"][0]["partitions"][0];
    ["end_offset", "last_stable_offset", "lag", "lag_high_watermark", "lag_last_stable"]
        .map(|name| partition[name].clone())
}

fn is_measured(broker: &Broker, group: &str, expected: [i64; 5]) {
    let (mut last, expected) = (Value::Null, json!(expected));
    let what = format!("{group} is measured as {expected}");
    until(&what, || {
        last = json!(measured(broker, group));
        last == expected
    });
}

#[test]
fn markers_are_no_lag_and_open_transactions_only_for_those_who_read_them() {
    let broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic(TOPIC, 1, &[]);
    let mut teller = Teller::start(&broker);
    teller.write(&[b"a", b"b"]);
    teller.commit();
    // Behind the last record lies the marker.
    consume(&mut raw, "committed", true, 2);
    consume(&mut raw, "all", false, 2);
    for group in ["committed", "all"] {
        is_measured(&broker, group, [3, 3, 0, 0, 0]);
        let page: Value = serde_json::from_str(&broker.http(&format!("/v1/groups/{group}")).unwrap().1).unwrap();
        assert_eq!((&page["lag_seconds"], &page["status"]), (&json!(0.0), &json!("OK")), "{page}");
        assert_eq!(page["isolation_level"], format!("read_{}", if group == "all" { "uncommitted" } else { group }));
    }
    teller.write(&[b"c", b"d", b"e"]);
    is_measured(&broker, "committed", [6, 3, 0, 3, 0]);
    is_measured(&broker, "all", [6, 3, 3, 3, 0]);
    let page = broker.http("/metrics").unwrap().1;
    for (family, lag) in [("kafka_consumergroup_lag", 0), ("ottla_consumergroup_lag_high_watermark", 3)] {
        let line = format!("\n{family}{{consumergroup=\"committed\",partition=\"0\",topic=\"{TOPIC}\"}} {lag}\n");
        assert!(page.contains(&line), "{line}{page}");
    }
    teller.commit();
    is_measured(&broker, "committed", [7, 7, 3, 3, 3]);
    is_measured(&broker, "all", [7, 7, 3, 3, 3]);
}
