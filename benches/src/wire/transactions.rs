//! The requests of a transaction, in the versions that clients spoke before KIP-890: every peer takes them.
//!
//! May not know: when a coordinator answers, and what is measured.

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, BrokerId, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest, ProducerId,
    TransactionalId,
};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

use super::{Topic, Wire, produce_request, text, topic_name};

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
    /// A batch of one record, the producer's first.
    fn batch(&self) -> Bytes {
        let record = Record {
            transactional: true,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: self.producer.0,
            producer_epoch: self.epoch,
            timestamp_type: TimestampType::Creation,
            offset: 0,
            sequence: 0,
            timestamp: 1,
            key: None,
            value: Some(Bytes::from_static(b"open")),
            headers: IndexMap::new(),
        };
        let mut out = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut out, [&record], &options).unwrap();
        out.freeze()
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
        let request = produce_request(&topic.name, partition, of.batch()).with_transactional_id(Some(of.id.clone()));
        self.is_acknowledged(&request)
    }

    /// Commits a transaction; false if this node refuses, for one because it does not coordinate it yet.
    pub(crate) fn try_commit(&mut self, of: &Transaction) -> bool {
        let request = EndTxnRequest::default()
            .with_transactional_id(of.id.clone())
            .with_producer_id(of.producer)
            .with_producer_epoch(of.epoch)
            .with_committed(true);
        self.try_call(3, &request).is_some_and(|answer| answer.error_code == 0)
    }
}
