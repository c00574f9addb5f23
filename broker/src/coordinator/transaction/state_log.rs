//! `__transaction_state` as this node carries it, and what its coordinators need of other nodes.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use ottla_protocol::ids::ProducerId;
use parking_lot::Mutex;

use super::partitions::NamedPartition;
use super::peers::TransactionPeers;
use super::runtime::Transactions;
use super::settings::TransactionSettings;
use super::transaction_log::{MarkerOutcome, TransactionLog};
use super::transitions::Producer;
use crate::coordinator::partition_writer::PartitionWriter;
use crate::coordinator::topic_log::TopicLog;
use crate::metadata::{InternalTopic, MetadataHandle};
use crate::partition::Partitions as NodePartitions;
use crate::replicated::transaction::TransactionStore;
use crate::replicated::transactions::Marker;
use crate::shard::MetadataView;

/// The log of this node's transaction coordinators.
struct StateLog {
    writer: PartitionWriter,
    metadata: MetadataHandle,
    peers: TransactionPeers,
}

/// Starts coordinating transactions over these partitions, and answers other nodes.
#[must_use]
pub fn start(
    settings: TransactionSettings,
    metadata: &MetadataHandle,
    partitions: &NodePartitions,
) -> (Transactions, TransactionPeers) {
    let view: Arc<dyn MetadataView> = Arc::new(metadata.clone());
    let peers = TransactionPeers::new(view.clone(), partitions.clone());
    let writer = PartitionWriter::new(InternalTopic::TransactionState, view, partitions.clone());
    let log = StateLog { writer, metadata: metadata.clone(), peers: peers.clone() };
    let transactions = Transactions::new(settings, Arc::new(log));
    peers.serve(&transactions);
    (transactions, peers)
}

impl std::fmt::Debug for StateLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StateLog")
    }
}

impl TransactionLog for StateLog {
    fn topic(&self) -> &dyn TopicLog {
        &self.writer
    }

    fn store(&self, partition: i32) -> Option<Arc<Mutex<TransactionStore>>> {
        self.writer.partition(partition).ok()?.transaction_store()
    }

    fn new_producer_id(&self) -> BoxFuture<'static, Option<ProducerId>> {
        let metadata = self.metadata.clone();
        Box::pin(async move {
            let allocated = metadata.allocate_producer_id().await;
            allocated.inspect_err(|error| tracing::debug!("no producer id: {error}")).ok()
        })
    }

    fn write_markers(
        &self,
        producer: Producer,
        marker: Marker,
        partitions: Vec<NamedPartition>,
    ) -> BoxFuture<'static, Vec<(NamedPartition, MarkerOutcome)>> {
        let peers = self.peers.clone();
        Box::pin(async move { peers.write_markers(producer, marker, &partitions).await })
    }
}
