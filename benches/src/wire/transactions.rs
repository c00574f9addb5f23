//! The requests of a transaction, in the versions that clients spoke before KIP-890 (every peer takes them), and those of
//! which a loop of transactions consists since.
//!
//! May not know: when a coordinator answers, and what is measured.

use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, BrokerId, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest, ProduceRequest,
    ProducerId, TransactionalId,
};
use kafka_protocol::records::Record;

use super::{Topic, Wire, acknowledged, encoded, produce_request, record, text, topic_name};

/// The first version of Produce that adds its partitions to the transaction itself (KIP-890).
const PRODUCE_ADDS: i16 = 12;
/// The first version of EndTxn that gives the producer the next epoch (KIP-890).
const END_BUMPS: i16 = 5;

/// Of a key in FindCoordinator.
const OF_TRANSACTION: i8 = 1;
/// The longest that brokers allow by default: `transaction.max.timeout.ms`.
const TIMEOUT_MS: i32 = 900_000;

/// A transactional id and the producer that it was given.
#[derive(Debug, Clone)]
pub(crate) struct Transaction {
    id: TransactionalId,
    producer: ProducerId,
    epoch: i16,
}

impl Transaction {
    /// A batch of one record, the producer's first of this epoch.
    fn batch(&self, value: Bytes) -> Bytes {
        encoded(&[Record {
            transactional: true,
            producer_id: self.producer.0,
            producer_epoch: self.epoch,
            ..record(0, 0, 1, value)
        }])
    }

    /// One record with that value to each of some partitions, which also adds them to the transaction.
    pub(crate) fn produce_request(&self, topic: &Topic, partitions: &[i32], value: Bytes) -> ProduceRequest {
        produce_request(&topic.name, partitions, &self.batch(value)).with_transactional_id(Some(self.id.clone()))
    }
}

impl Wire {
    /// The node that coordinates a transactional id, as this node knows it; `None` while there is none.
    pub(crate) fn try_coordinator(&mut self, id: &str) -> Option<BrokerId> {
        let request = FindCoordinatorRequest::default().with_key(text(id)).with_key_type(OF_TRANSACTION);
        let answer = self.try_call(2, &request)?;
        (answer.error_code == 0).then_some(answer.node_id)
    }

    /// A producer for a transactional id, whose coordinator this node is; `None` if it refuses.
    pub(crate) fn try_begin(&mut self, id: &str) -> Option<Transaction> {
        let id = TransactionalId(text(id));
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(id.clone()))
            .with_transaction_timeout_ms(TIMEOUT_MS);
        let answer = self.try_call(1, &request)?;
        let (producer, epoch) = (answer.producer_id, answer.producer_epoch);
        (answer.error_code == 0).then_some(Transaction { id, producer, epoch })
    }

    /// Adds a partition to a transaction, whose coordinator this node is; true once that is durable.
    pub(crate) fn try_add(&mut self, to: &Transaction, topic: &Topic, partition: i32) -> bool {
        let added =
            AddPartitionsToTxnTopic::default().with_name(topic_name(&topic.name)).with_partitions(vec![partition]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(to.id.clone())
            .with_v3_and_below_producer_id(to.producer)
            .with_v3_and_below_producer_epoch(to.epoch)
            .with_v3_and_below_topics(vec![added]);
        let answer = self.try_call(3, &request);
        let of_partition =
            answer.as_ref().and_then(|a| a.results_by_topic_v3_and_below.first()?.results_by_partition.first());
        of_partition.is_some_and(|p| p.partition_error_code == 0)
    }

    /// Writes one record into a partition of a transaction, which this node leads.
    pub(crate) fn try_produce_in(&mut self, of: &Transaction, topic: &Topic, partition: i32) -> bool {
        self.is_acknowledged(&of.produce_request(topic, &[partition], Bytes::from_static(b"open")))
    }

    /// Sends what [`Transaction::produce_request`] makes.
    pub(crate) fn try_send_adding(&mut self, request: &ProduceRequest) -> Option<()> {
        self.try_send(PRODUCE_ADDS, request)
    }

    /// The partitions that took what was sent so.
    pub(crate) fn try_receive_added(&mut self) -> Option<Vec<i32>> {
        Some(acknowledged(&self.try_receive::<ProduceRequest>(PRODUCE_ADDS)?))
    }

    /// Commits a transaction; false if this node refuses, for one because it does not coordinate it yet.
    pub(crate) fn try_commit(&mut self, of: &Transaction) -> bool {
        self.try_call(3, &end_request(of)).is_some_and(|answer| answer.error_code == 0)
    }

    /// The same by the version that gives the producer its next transaction.
    pub(crate) fn try_commit_for_next(&mut self, of: &Transaction) -> Option<Transaction> {
        let answer = self.try_call(END_BUMPS, &end_request(of))?;
        let (producer, epoch) = (answer.producer_id, answer.producer_epoch);
        (answer.error_code == 0).then(|| Transaction { id: of.id.clone(), producer, epoch })
    }
}

fn end_request(of: &Transaction) -> EndTxnRequest {
    EndTxnRequest::default()
        .with_transactional_id(of.id.clone())
        .with_producer_id(of.producer)
        .with_producer_epoch(of.epoch)
        .with_committed(true)
}
