//! What the coordinator of transactions needs of others: its topic, producer ids, and markers in the partitions of clients.
//!
//! A trait, so that the coordinator is tested without shards and nodes.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use ottla_protocol::ids::ProducerId;
use parking_lot::Mutex;

use super::partitions::NamedPartition;
use super::transitions::Producer;
use crate::coordinator::topic_log::TopicLog;
use crate::replicated::transaction::TransactionStore;
use crate::replicated::transactions::Marker;

/// What became of the marker of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkerOutcome {
    /// It is written, or there was nothing to end there: also where the partition has certainly been deleted.
    Done,
    /// Not now, or it is not known: send it again.
    Retry,
    /// A newer coordinator of the id has written there: this one is over.
    CoordinatorFenced,
    /// The producer has gone on there: the transaction has ended before.
    ProducerFenced,
}

/// `__transaction_state`, and what lies in other places.
pub trait TransactionLog: Debug + Send + Sync + 'static {
    /// `__transaction_state`.
    fn topic(&self) -> &dyn TopicLog;

    /// The replicated transactional ids of a partition; none where this node has no replica.
    fn store(&self, partition: i32) -> Option<Arc<Mutex<TransactionStore>>>;

    /// A producer id that no client has; none if the controller does not answer.
    fn new_producer_id(&self) -> BoxFuture<'static, Option<ProducerId>>;

    /// Writes the markers of a transaction into these partitions, wherever they are led: for each what became of it.
    fn write_markers(
        &self,
        producer: Producer,
        marker: Marker,
        partitions: Vec<NamedPartition>,
    ) -> BoxFuture<'static, Vec<(NamedPartition, MarkerOutcome)>>;
}
